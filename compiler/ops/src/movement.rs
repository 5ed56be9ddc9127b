//! Copies elements of any type by index: what every data-movement operator is built on.

use ir::{DType, Error, Result, Tensor, budget};

/// Elements one by one: strings, one byte per sub-byte element, or fixed-width bytes.
enum Elements<'a> {
    Strings(&'a [String]),
    Small(Vec<u8>),
    Wide(&'a [u8], usize),
}

fn elements(t: &Tensor) -> Result<Elements<'_>> {
    Ok(match t.dtype() {
        DType::String => Elements::Strings(t.string_data()?),
        d if d.bits() < 8 => Elements::Small(t.unpacked()?),
        d => Elements::Wide(t.bytes(), d.bits() / 8),
    })
}

/// A tensor of `shape` whose elements are runs of `run` consecutive elements of `t`, starting at the given indices.
pub fn gather_runs(
    t: &Tensor,
    shape: &[usize],
    run: usize,
    starts: impl Iterator<Item = usize>,
) -> Result<Tensor> {
    let n = budget::elements(shape)?;
    budget::bytes(t.dtype(), shape)?;
    let (len, outside) = (t.len(), || Error::internal("element index out of bounds"));
    let range = |s: usize| s.checked_add(run).filter(|&e| e <= len).map(|e| s..e).ok_or_else(outside);
    match elements(t)? {
        Elements::Strings(v) => {
            let mut out = budget::vec(n)?;
            for s in starts {
                out.extend_from_slice(&v[range(s)?]);
            }
            Tensor::strings(shape, out)
        }
        Elements::Small(v) => {
            let mut out = budget::vec(n)?;
            for s in starts {
                out.extend_from_slice(&v[range(s)?]);
            }
            Tensor::from_unpacked(t.dtype(), shape, &out)
        }
        Elements::Wide(b, w) => {
            let mut out = budget::vec(n * w)?;
            for s in starts {
                let r = range(s)?;
                out.extend_from_slice(&b[r.start * w..r.end * w]);
            }
            Tensor::from_bytes(t.dtype(), shape, out)
        }
    }
}

/// One element per index.
pub fn gather(t: &Tensor, shape: &[usize], indices: impl Iterator<Item = usize>) -> Result<Tensor> {
    gather_runs(t, shape, 1, indices)
}

/// A tensor of `shape` made of runs of several tensors of one type: (which tensor, first element, length).
pub fn assemble(
    parts: &[&Tensor],
    shape: &[usize],
    runs: impl Iterator<Item = (usize, usize, usize)>,
) -> Result<Tensor> {
    let dtype = parts.first().map(|t| t.dtype()).ok_or_else(|| Error::model("needs at least one input"))?;
    if let Some(t) = parts.iter().find(|t| t.dtype() != dtype) {
        return Err(Error::model(format!("inputs have types {dtype} and {}", t.dtype())));
    }
    let n = budget::elements(shape)?;
    budget::bytes(dtype, shape)?;
    let views: Vec<Elements> = parts.iter().map(|t| elements(t)).collect::<Result<_>>()?;
    let bad = || Error::internal("element run out of bounds");
    let (mut strings, mut bytes) = (
        Vec::new(),
        budget::vec::<u8>(if dtype == DType::String { 0 } else { n * dtype.bits().div_ceil(8) })?,
    );
    for (p, s, len) in runs {
        match &views[p] {
            Elements::Strings(v) => strings.extend_from_slice(v.get(s..s + len).ok_or_else(bad)?),
            Elements::Small(v) => bytes.extend_from_slice(v.get(s..s + len).ok_or_else(bad)?),
            Elements::Wide(b, w) => bytes.extend_from_slice(b.get(s * w..(s + len) * w).ok_or_else(bad)?),
        }
    }
    match dtype {
        DType::String => Tensor::strings(shape, strings),
        d if d.bits() < 8 => Tensor::from_unpacked(d, shape, &bytes),
        d => Tensor::from_bytes(d, shape, bytes),
    }
}

/// Row-major strides.
pub fn strides(shape: &[usize]) -> Vec<usize> {
    let mut s = vec![1; shape.len()];
    for i in (0..shape.len().saturating_sub(1)).rev() {
        s[i] = s[i + 1] * shape[i + 1];
    }
    s
}

/// Every index of `shape` in row-major order.
pub fn for_each(shape: &[usize], mut f: impl FnMut(&[usize])) {
    if shape.contains(&0) {
        return;
    }
    let mut index = vec![0usize; shape.len()];
    loop {
        f(&index);
        let mut d = shape.len();
        loop {
            if d == 0 {
                return;
            }
            d -= 1;
            index[d] += 1;
            if index[d] < shape[d] {
                break;
            }
            index[d] = 0;
        }
    }
}

/// A strided walk: element `(i, j, …)` of the result is element `start + i·steps[0] + j·steps[1] + …` of `t`.
pub fn strided(t: &Tensor, shape: &[usize], start: usize, steps: &[isize]) -> Result<Tensor> {
    budget::bytes(t.dtype(), shape)?;
    if shape.contains(&0) {
        return gather(t, shape, std::iter::empty());
    }
    // The longest suffix that is contiguous moves as one run.
    let (mut run, mut outer) = (1usize, shape.len());
    while outer > 0 && steps[outer - 1] == run as isize {
        run *= shape[outer - 1];
        outer -= 1;
    }
    let mut starts = budget::vec(shape[..outer].iter().product())?;
    for_each(&shape[..outer], |i| {
        let at: isize = i.iter().zip(steps).map(|(&i, &s)| i as isize * s).sum();
        starts.push((start as isize + at) as usize);
    });
    gather_runs(t, shape, run, starts.into_iter())
}
