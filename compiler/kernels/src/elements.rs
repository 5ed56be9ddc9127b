//! kernel: single elements picked and placed by index, triangles and one-hot rows: ONNX `GatherElements`,
//! `ScatterElements`, `ScatterND`, `Trilu` and `OneHot`.

use crate::error::{Error, product, same_length};
use crate::gather::wrapped;
use crate::parallel::Pool;
use crate::partition::rows;
use crate::transpose::Element;

/// Indices of one axis into data, each of its place along the other axes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Along {
    pub axis: usize,
    /// Of the data.
    pub data: Vec<usize>,
    /// Of the indices; no larger than the data except along the axis.
    pub indices: Vec<usize>,
}

impl Along {
    /// Elements of data and of indices, when the shapes fit.
    fn sizes(&self) -> Result<(usize, usize), Error> {
        let what = "shapes of data and indices do not fit";
        let (d, i) = (&self.data, &self.indices);
        let fits = d.len() == i.len() && self.axis < d.len();
        if !fits || (0..d.len()).any(|a| a != self.axis && i[a] > d[a]) {
            return Err(Error::Shape { what });
        }
        Ok((product(what, d)?, product(what, i)?))
    }

    /// Calls `f(position among the indices, element of the data)` for all indices in order; the first outside the axis is
    /// the error.
    fn walk<I: Copy + Into<i64>>(&self, indices: &[I], mut f: impl FnMut(usize, usize)) -> Result<(), Error> {
        let (_, count) = self.sizes()?;
        same_length("indices", count, indices.len())?;
        if count == 0 {
            return Ok(());
        }
        let bound = self.data[self.axis];
        let strides: Vec<usize> = (0..self.data.len()).map(|d| self.data[d + 1..].iter().product()).collect();
        let last = self.data.len() - 1;
        let (along, line) = (strides[self.axis], self.indices[last]);
        // Steps of the data for each step of the indices; the axis itself has none.
        let step = |d: usize| if d == self.axis { 0 } else { strides[d] };
        let (mut index, mut base, mut at) = (vec![0; last], 0, 0);
        while at < count {
            for (j, &i) in indices[at..at + line].iter().enumerate() {
                let i = wrapped(i.into(), bound).ok_or(Error::Index {
                    position: at + j,
                    index: i.into(),
                    bound,
                })?;
                f(at + j, base + j * step(last) + i * along);
            }
            at += line;
            for d in (0..last).rev() {
                index[d] += 1;
                base += step(d);
                if index[d] < self.indices[d] {
                    break;
                }
                base -= step(d) * self.indices[d];
                index[d] = 0;
            }
        }
        Ok(())
    }
}

/// `y[…, p, …] = x[…, indices[…, p, …], …]`.
pub fn gather_elements<T: Element, I: Copy + Into<i64>>(
    along: &Along,
    x: &[T],
    indices: &[I],
    y: &mut [T],
) -> Result<(), Error> {
    let (elements, count) = along.sizes()?;
    same_length("data of indices", elements, x.len())?;
    same_length("elements picked", count, y.len())?;
    along.walk(indices, |p, at| y[p] = x[at])
}

/// `y = x`, then `y[…, indices[…, p, …], …] = updates[…, p, …]`; of updates of one element the last stays.
pub fn scatter_elements<T: Element, I: Copy + Into<i64>>(
    along: &Along,
    x: &[T],
    indices: &[I],
    updates: &[T],
    y: &mut [T],
) -> Result<(), Error> {
    let (elements, count) = along.sizes()?;
    same_length("data of indices", elements, x.len())?;
    same_length("elements placed", count, updates.len())?;
    same_length("result of updates", elements, y.len())?;
    y.copy_from_slice(x);
    along.walk(indices, |p, at| y[at] = updates[p])
}

/// `y = x` of `[dims… × width]`, then row `t` of `updates` in the place of the row that tuple `t` of `indices` names; of
/// updates of one row the last stays.
pub fn scatter_rows<T: Element>(
    x: &[T],
    dims: &[usize],
    width: usize,
    indices: &[i64],
    updates: &[T],
    y: &mut [T],
) -> Result<(), Error> {
    let what = "scatter sizes overflow";
    same_length("data of updates", product(what, &[product(what, dims)?, width])?, x.len())?;
    same_length("result of updates", x.len(), y.len())?;
    let k = dims.len().max(1);
    let tuples = indices.len() / k;
    same_length("scatter indices", product(what, &[tuples, dims.len()])?, indices.len())?;
    same_length("updates", product(what, &[tuples, width])?, updates.len())?;
    y.copy_from_slice(x);
    for (t, tuple) in indices.chunks_exact(k).enumerate() {
        let mut at = 0;
        for (j, (&index, &bound)) in tuple.iter().zip(dims).enumerate() {
            let error = Error::Index { position: t * k + j, index, bound };
            at = at * bound + wrapped(index, bound).ok_or(error)?;
        }
        y[at * width..(at + 1) * width].copy_from_slice(&updates[t * width..(t + 1) * width]);
    }
    Ok(())
}

/// Which part of matrices `[… × height × width]` is kept: on and above the `diagonal`-th diagonal, or on and below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Triangle {
    pub height: usize,
    pub width: usize,
    pub diagonal: i64,
    pub upper: bool,
}

/// `x` where the triangle is, zero elsewhere.
pub fn triangle<T: Element + Default>(
    pool: &dyn Pool,
    of: Triangle,
    x: &[T],
    y: &mut [T],
) -> Result<(), Error> {
    same_length("triangle", x.len(), y.len())?;
    let Triangle { height, width, diagonal, upper } = of;
    if x.is_empty() {
        return Ok(());
    }
    if height == 0 || width == 0 || !x.len().is_multiple_of(width) {
        return Err(Error::Shape { what: "matrices do not divide the tensor" });
    }
    rows(pool, y, width, &|first, out| {
        for (r, to) in out.chunks_exact_mut(width).enumerate() {
            let row = first + r;
            let from = &x[row * width..(row + 1) * width];
            // The first column that an upper triangle keeps, or that a lower one does not.
            let edge = ((row % height) as i64).saturating_add(diagonal).saturating_add(i64::from(!upper));
            let cut = usize::try_from(edge).unwrap_or(0).min(width);
            let ((kept, source), lost) = if upper {
                let (lost, kept) = to.split_at_mut(cut);
                ((kept, &from[cut..]), lost)
            } else {
                let (kept, lost) = to.split_at_mut(cut);
                ((kept, &from[..cut]), lost)
            };
            kept.copy_from_slice(source);
            lost.fill(T::default());
        }
    });
    Ok(())
}

/// `y[o, d, i] = d == indices[o, i] ? values[1] : values[0]` for `d` below `depth`; negative indices count from the end,
/// those outside are no `d`.
pub fn one_hot<T: Element, I: Copy + Into<i64>>(
    indices: &[I],
    values: &[T],
    depth: usize,
    inner: usize,
    y: &mut [T],
) -> Result<(), Error> {
    let &[off, on] = values else {
        return Err(Error::Length { what: "one-hot values", expected: 2, found: values.len() });
    };
    same_length("one-hot rows", product("one-hot sizes overflow", &[indices.len(), depth])?, y.len())?;
    y.fill(off);
    if y.is_empty() {
        return Ok(());
    }
    if inner == 0 || !indices.len().is_multiple_of(inner) {
        return Err(Error::Shape { what: "one-hot columns do not divide the indices" });
    }
    for (slab, indices) in y.chunks_exact_mut(depth * inner).zip(indices.chunks_exact(inner)) {
        for (i, &index) in indices.iter().enumerate() {
            if let Some(d) = wrapped(index.into(), depth) {
                slab[d * inner + i] = on;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parallel::Serial;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn elements_follow_their_indices(
            dims in prop::collection::vec((1usize..5, 0usize..5), 1..5), axis in 0usize..4, seed in any::<u32>(),
        ) {
            let axis = axis % dims.len();
            let data: Vec<usize> = dims.iter().map(|d| d.0).collect();
            let shape: Vec<usize> =
                dims.iter().enumerate().map(|(a, d)| if a == axis { d.1 } else { d.1.min(d.0) }).collect();
            let along = Along { axis, data: data.clone(), indices: shape.clone() };
            let (n, count): (usize, usize) = (data.iter().product(), shape.iter().product());
            let x: Vec<u16> = (0..n as u16).collect();
            let bound = data[axis] as i64;
            let indices: Vec<i64> =
                (0..count as i64).map(|i| (i * 7 + i64::from(seed)) % (2 * bound) - bound).collect();
            let updates: Vec<u16> = (0..count as u16).map(|i| 1000 + i).collect();
            let (mut y, mut z) = (vec![0; count], vec![0; n]);
            gather_elements(&along, &x, &indices, &mut y).unwrap();
            scatter_elements(&along, &x, &indices, &updates, &mut z).unwrap();
            let mut want = x.clone();
            for p in 0..count {
                let (mut rest, mut at, mut step) = (p, 0, 1);
                for a in (0..data.len()).rev() {
                    let i = if a == axis { (indices[p] + bound) as usize % data[a] } else { rest % shape[a] };
                    at += i * step;
                    step *= data[a];
                    rest /= shape[a];
                }
                prop_assert_eq!(y[p], x[at]);
                want[at] = updates[p];
            }
            prop_assert_eq!(z, want);
        }
    }

    #[test]
    fn an_index_outside_is_named() {
        let along = Along { axis: 0, data: vec![2], indices: vec![2] };
        let mut y = [0u8; 2];
        for bad in [2, -3, i64::MIN, i64::MAX] {
            let error = Err(Error::Index { position: 1, index: bad, bound: 2 });
            assert_eq!(gather_elements(&along, &[1, 2], &[0, bad], &mut y), error);
            assert_eq!(scatter_elements(&along, &[1, 2], &[0, bad], &[3, 4], &mut y), error);
            assert_eq!(scatter_rows(&[1, 2], &[2], 1, &[0, bad], &[3, 4], &mut y), error);
        }
        assert!(gather_elements(&along, &[1, 2], &[0i32], &mut y).is_err());
        let wide = Along { axis: 0, data: vec![2, 2], indices: vec![2, 3] };
        assert!(gather_elements(&wide, &[0u8; 4], &[0i64; 6], &mut [0; 6]).is_err());
    }

    #[test]
    fn rows_follow_their_tuples() {
        let x: Vec<u16> = (0..12).collect();
        let mut y = [0; 12];
        scatter_rows(&x, &[2, 3], 2, &[1, -1, 0, 0, 1, 2], &[50, 51, 60, 61, 70, 71], &mut y).unwrap();
        assert_eq!(y, [60, 61, 2, 3, 4, 5, 6, 7, 8, 9, 70, 71]);
        assert!(scatter_rows(&x, &[2, 3], 2, &[1, -1, 0], &[0; 2], &mut y).is_err());
    }

    #[test]
    fn triangles_follow_the_diagonal() {
        let x = [1u8, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
        for diagonal in [i64::MIN, -2, -1, 0, 1, 2, 3, i64::MAX] {
            for upper in [true, false] {
                let mut y = [99; 12];
                triangle(&Serial, Triangle { height: 2, width: 3, diagonal, upper }, &x, &mut y).unwrap();
                for (i, y) in y.into_iter().enumerate() {
                    let off = i128::from((i % 3) as i64 - (i / 3 % 2) as i64) - i128::from(diagonal);
                    let kept = if upper { off >= 0 } else { off <= 0 };
                    assert_eq!(y, if kept { x[i] } else { 0 }, "{diagonal} {upper} {i}");
                }
            }
        }
    }

    #[test]
    fn indices_outside_are_cold() {
        let mut y = [0; 12];
        one_hot(&[0i64, -1, 3, i64::MIN], &[5, 7], 3, 2, &mut y).unwrap();
        assert_eq!(y, [7, 5, 5, 5, 5, 7, 5, 5, 5, 5, 5, 5]);
        assert!(one_hot(&[0i64], &[5], 3, 1, &mut y[..3]).is_err());
        assert!(one_hot(&[0i64], &[5, 7], 3, 1, &mut y).is_err());
    }
}
