//! Copies elements of any type by index: the part of data movement that does not look at values.

use ir::{Error, Result, Tensor, budget};

/// A tensor of `shape` whose elements are those of `t` at the row-major indices `from`, and zero (or the empty string)
/// where there is none.
pub(crate) fn gather(
    t: &Tensor,
    shape: &[usize],
    from: impl Iterator<Item = Option<usize>>,
) -> Result<Tensor> {
    let n = budget::elements(shape)?;
    let outside = |i: usize| Error::internal(format!("element {i} is outside shape {:?}", t.shape()));
    let bits = t.dtype().bits();
    if bits == 0 {
        let data = t.string_data()?;
        let mut out = budget::vec(n)?;
        for i in from.take(n) {
            out.push(match i {
                Some(i) => data.get(i).cloned().ok_or_else(|| outside(i))?,
                None => String::new(),
            });
        }
        return Tensor::strings(shape, out);
    }
    if bits < 8 {
        let data = t.unpacked()?;
        let mut out = budget::filled(n, 0u8)?;
        for (o, i) in out.iter_mut().zip(from) {
            if let Some(i) = i {
                *o = *data.get(i).ok_or_else(|| outside(i))?;
            }
        }
        return Tensor::from_unpacked(t.dtype(), shape, &out);
    }
    let width = bits / 8;
    let mut out = budget::filled(budget::bytes(t.dtype(), shape)?, 0u8)?;
    for (o, i) in out.chunks_exact_mut(width).zip(from) {
        if let Some(i) = i {
            let at = i.checked_mul(width).ok_or_else(|| outside(i))?;
            o.copy_from_slice(t.bytes().get(at..at + width).ok_or_else(|| outside(i))?);
        }
    }
    Tensor::from_bytes(t.dtype(), shape, out)
}

/// Row-major indices into a tensor of the product of table entries: entry `i` of axis `a` adds `tables[a][i]`, `None`
/// anywhere gives `None`.
pub(crate) fn products(tables: &[Vec<Option<usize>>]) -> Result<Vec<Option<usize>>> {
    let mut out = vec![Some(0)];
    for table in tables {
        let n = out.len().checked_mul(table.len()).ok_or_else(|| Error::limit("index table overflows"))?;
        let mut next = budget::vec(n)?;
        for base in &out {
            next.extend(table.iter().map(|t| base.zip(*t).map(|(a, b)| a + b)));
        }
        out = next;
    }
    Ok(out)
}

/// Row-major strides of a shape.
pub(crate) fn strides(shape: &[usize]) -> Vec<usize> {
    let mut step = 1usize;
    let mut out = vec![0; shape.len()];
    for (s, &d) in out.iter_mut().zip(shape).rev() {
        *s = step;
        step = step.saturating_mul(d);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use ir::DType;

    #[test]
    fn every_width_is_copied() {
        let from = || [Some(2), None, Some(0)].into_iter();
        let t = Tensor::from_i64s(DType::I4, &[3], vec![1, 2, -3]).unwrap();
        assert_eq!(gather(&t, &[3], from()).unwrap().to_i64s().unwrap(), [-3, 0, 1]);
        let t = Tensor::vector(vec![1i64, 2, 3]);
        assert_eq!(gather(&t, &[3, 1], from()).unwrap().to_i64s().unwrap(), [3, 0, 1]);
        let t = Tensor::strings(&[3], ["a", "b", "c"].map(String::from).to_vec()).unwrap();
        assert_eq!(gather(&t, &[3], from()).unwrap().string_data().unwrap(), ["c", "", "a"]);
        assert!(gather(&t, &[1], std::iter::once(Some(3))).is_err());
    }
}
