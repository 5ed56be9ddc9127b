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

fn outside() -> Error {
    Error::internal("element index out of bounds")
}

/// Number of elements of some dims of a tensor; saturates where other dims make the tensor empty.
pub fn volume(dims: &[usize]) -> usize {
    if dims.contains(&0) { 0 } else { dims.iter().fold(1, |n: usize, &d| n.saturating_mul(d)) }
}

/// Row-major strides; saturating, as [`volume`].
pub fn strides(shape: &[usize]) -> Vec<usize> {
    let mut s = vec![1usize; shape.len()];
    for i in (0..shape.len().saturating_sub(1)).rev() {
        s[i] = s[i + 1].saturating_mul(shape[i + 1]);
    }
    s
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
    if n == 0 {
        return Tensor::zeros(t.dtype(), shape);
    }
    match elements(t)? {
        Elements::Strings(v) => Tensor::strings(shape, pick(v, n, run, starts)?),
        Elements::Small(v) => Tensor::from_unpacked(t.dtype(), shape, &pick(&v, n, run, starts)?),
        Elements::Wide(b, w) => {
            let bytes = match (run, w) {
                (1, 2) => pick_one::<2>(b, n, starts)?,
                (1, 4) => pick_one::<4>(b, n, starts)?,
                (1, 8) => pick_one::<8>(b, n, starts)?,
                _ => pick(b, n * w, run.saturating_mul(w), starts.map(|s| s.saturating_mul(w)))?,
            };
            Tensor::from_bytes(t.dtype(), shape, bytes)
        }
    }
}

fn pick<T: Clone>(v: &[T], n: usize, run: usize, starts: impl Iterator<Item = usize>) -> Result<Vec<T>> {
    let mut out = budget::vec(n)?;
    for s in starts {
        let r = s.checked_add(run).and_then(|e| v.get(s..e)).ok_or_else(outside)?;
        out.extend_from_slice(r);
    }
    Ok(out)
}

/// Elements of `W` bytes, so that each copy is one move.
fn pick_one<const W: usize>(b: &[u8], n: usize, at: impl Iterator<Item = usize>) -> Result<Vec<u8>> {
    let (source, _) = b.as_chunks::<W>();
    let mut out = budget::vec(n * W)?;
    for s in at {
        out.extend_from_slice(source.get(s).ok_or_else(outside)?);
    }
    Ok(out)
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
    if n == 0 {
        return Tensor::zeros(dtype, shape);
    }
    let views: Vec<Elements> = parts.iter().map(|t| elements(t)).collect::<Result<_>>()?;
    let (mut strings, mut bytes) = (
        Vec::new(),
        budget::vec::<u8>(if dtype == DType::String { 0 } else { n * dtype.bits().div_ceil(8) })?,
    );
    for (p, s, len) in runs {
        match views.get(p).ok_or_else(outside)? {
            Elements::Strings(v) => strings.extend_from_slice(v.get(s..s + len).ok_or_else(outside)?),
            Elements::Small(v) => bytes.extend_from_slice(v.get(s..s + len).ok_or_else(outside)?),
            Elements::Wide(b, w) => bytes.extend_from_slice(b.get(s * w..(s + len) * w).ok_or_else(outside)?),
        }
    }
    match dtype {
        DType::String => Tensor::strings(shape, strings),
        d if d.bits() < 8 => Tensor::from_unpacked(d, shape, &bytes),
        d => Tensor::from_bytes(d, shape, bytes),
    }
}

/// A copy of `t` in which the k-th run of `run` elements of `updates` stands at element `at[k]`; later runs win.
pub fn overwrite(t: &Tensor, updates: &Tensor, at: &[usize], run: usize) -> Result<Tensor> {
    if t.dtype() != updates.dtype() || at.len().checked_mul(run) != Some(updates.len()) {
        return Err(Error::model(format!("updates {updates:?} do not fit {} {:?}", t.dtype(), t.shape())));
    }
    if updates.is_empty() {
        return Ok(t.clone());
    }
    budget::bytes(t.dtype(), t.shape())?;
    match (elements(t)?, elements(updates)?) {
        (Elements::Strings(v), Elements::Strings(u)) => Tensor::strings(t.shape(), put(v, u, at, run)?),
        (Elements::Small(v), Elements::Small(u)) => {
            Tensor::from_unpacked(t.dtype(), t.shape(), &put(&v, &u, at, run)?)
        }
        (Elements::Wide(v, w), Elements::Wide(u, _)) => {
            let mut bytes = v.to_vec();
            for (&a, u) in at.iter().zip(u.chunks_exact(run * w)) {
                bytes.get_mut(a * w..(a + run) * w).ok_or_else(outside)?.copy_from_slice(u);
            }
            Tensor::from_bytes(t.dtype(), t.shape(), bytes)
        }
        _ => Err(Error::internal("one type in two storages")),
    }
}

fn put<T: Clone>(v: &[T], updates: &[T], at: &[usize], run: usize) -> Result<Vec<T>> {
    let mut out = v.to_vec();
    for (&a, u) in at.iter().zip(updates.chunks_exact(run)) {
        out.get_mut(a..a + run).ok_or_else(outside)?.clone_from_slice(u);
    }
    Ok(out)
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

/// Offsets of a strided walk in row-major order of its dims, which must not be empty.
struct Walk<'a> {
    dims: &'a [(usize, isize)],
    index: Vec<usize>,
    next: Option<isize>,
}

impl<'a> Walk<'a> {
    fn new(start: usize, dims: &'a [(usize, isize)]) -> Walk<'a> {
        Walk { dims, index: vec![0; dims.len()], next: Some(start as isize) }
    }
}

impl Iterator for Walk<'_> {
    type Item = usize;
    fn next(&mut self) -> Option<usize> {
        let at = self.next?;
        let mut to = at;
        self.next = None;
        for (i, &(n, step)) in self.index.iter_mut().zip(self.dims).rev() {
            *i += 1;
            if *i < n {
                self.next = Some(to + step);
                break;
            }
            to -= step * (n as isize - 1);
            *i = 0;
        }
        Some(at as usize)
    }
}

/// Dims of a walk without those of size 1, neighbours that continue each other merged.
fn merged(shape: &[usize], steps: &[isize]) -> Vec<(usize, isize)> {
    let mut dims: Vec<(usize, isize)> = Vec::new();
    for (&n, &step) in shape.iter().zip(steps).filter(|(n, _)| **n != 1) {
        match dims.last_mut() {
            Some(d) if step.checked_mul(n as isize) == Some(d.1) => *d = (d.0 * n, step),
            _ => dims.push((n, step)),
        }
    }
    dims
}

/// An error unless every offset of the walk is an element of a tensor of `len`.
fn check_walk(start: usize, dims: &[(usize, isize)], len: usize) -> Result<()> {
    let (mut lo, mut hi) = (start as i128, start as i128);
    for &(n, step) in dims {
        let span = (n as i128 - 1) * step as i128;
        (lo, hi) = (lo + span.min(0), hi + span.max(0));
    }
    if lo < 0 || hi >= len as i128 { Err(outside()) } else { Ok(()) }
}

/// A strided walk: element `(i, j, …)` of the result is element `start + i·steps[0] + j·steps[1] + …` of `t`.
pub fn strided(t: &Tensor, shape: &[usize], start: usize, steps: &[isize]) -> Result<Tensor> {
    budget::bytes(t.dtype(), shape)?;
    if shape.contains(&0) {
        return Tensor::zeros(t.dtype(), shape);
    }
    let dims = merged(shape, steps);
    check_walk(start, &dims, t.len())?;
    match dims.split_last() {
        None => gather_runs(t, shape, 1, std::iter::once(start)),
        Some((&(n, 1), outer)) => gather_runs(t, shape, n, Walk::new(start, outer)),
        Some((&(n, step), outer)) => {
            let along = move |s: usize| (0..n as isize).map(move |i| (s as isize + i * step) as usize);
            gather_runs(t, shape, 1, Walk::new(start, outer).flat_map(along))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn like(dtype: DType, shape: &[usize]) -> Tensor {
        let n = volume(shape);
        match dtype {
            DType::String => Tensor::strings(shape, (0..n).map(|i| i.to_string()).collect()).unwrap(),
            d if d.bits() < 8 => {
                Tensor::from_unpacked(d, shape, &(0..n).map(|i| i as u8).collect::<Vec<_>>()).unwrap()
            }
            d => {
                let w = d.bits() / 8;
                Tensor::from_bytes(d, shape, (0..n * w).map(|i| (i / w + i) as u8).collect()).unwrap()
            }
        }
    }

    #[test]
    fn every_type_moves_there_and_back() {
        for &d in DType::ALL {
            let x = like(d, &[2, 3, 4]);
            let y = crate::transpose::transpose(&x, &[2, 0, 1]).unwrap();
            assert_eq!(y.shape(), [4, 2, 3]);
            assert_eq!(crate::transpose::transpose(&y, &[1, 2, 0]).unwrap(), x, "{d}");
            let reversed = gather(&x, &[24], (0..24).rev()).unwrap();
            assert_eq!(strided(&x, &[24], 23, &[-1]).unwrap(), reversed, "{d}");
            let halves: Vec<Tensor> =
                (0..2).map(|i| strided(&x, &[1, 3, 4], i * 12, &[12, 4, 1]).unwrap()).collect();
            let runs = (0..2).map(|p| (p, 0, 12));
            assert_eq!(assemble(&[&halves[0], &halves[1]], &[2, 3, 4], runs).unwrap(), x, "{d}");
            assert_eq!(
                overwrite(&x, &halves[1], &[0], 12).unwrap().reshaped(&[24]).unwrap(),
                gather(&x, &[24], (12..24).chain(12..24)).unwrap(),
                "{d}"
            );
        }
    }

    #[test]
    fn nothing_is_read_outside() {
        let x = like(DType::F32, &[4]);
        assert!(strided(&x, &[3], 2, &[1]).is_err());
        assert!(strided(&x, &[3], 1, &[-1]).is_err());
        assert!(gather(&x, &[1], std::iter::once(4)).is_err());
        assert!(gather_runs(&x, &[2], 2, std::iter::once(usize::MAX)).is_err());
        assert!(overwrite(&x, &like(DType::F32, &[2]), &[3], 2).is_err());
        assert_eq!(strided(&x, &[0, 1 << 40], 9, &[1, 1]).unwrap().len(), 0);
    }

    proptest! {
        #[test]
        fn a_walk_visits_what_its_strides_say(
            shape in prop::collection::vec(1usize..4, 0..4),
            steps in prop::collection::vec(-3isize..4, 4),
        ) {
            let low: isize = shape.iter().zip(&steps).map(|(&n, &s)| ((n as isize - 1) * s).min(0)).sum();
            let x = Tensor::vector((0..64i32).collect());
            let start = (-low) as usize;
            let mut want = Vec::new();
            for_each(&shape, |i| {
                let at: isize = i.iter().zip(&steps).map(|(&i, &s)| i as isize * s).sum();
                want.push((start as isize + at) as i32);
            });
            let y = strided(&x, &shape, start, &steps[..shape.len()]).unwrap();
            prop_assert_eq!(y.data::<i32>().unwrap().to_vec(), want);
        }
    }
}
