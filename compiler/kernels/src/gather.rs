//! Rows picked by index or by tuples of indices: embeddings, ONNX `Gather` and `GatherND`.

use crate::error::{Error, product, same_length};
use crate::parallel::Pool;
use crate::partition::{GRAIN, Parts, ranges};
use crate::transpose::Element;

/// `y[o, i, :] = table[o, indices[i], :]` for a table of `[outer × rows × width]`. Negative indices count from the
/// end. The first index outside the axis is the error, and nothing is written.
pub fn gather<T: Element, I: Copy + Into<i64>>(
    pool: &dyn Pool,
    table: &[T],
    outer: usize,
    rows: usize,
    width: usize,
    indices: &[I],
    y: &mut [T],
) -> Result<(), Error> {
    same_length("gather table", product("gather sizes overflow", &[outer, rows, width])?, table.len())?;
    same_length("gather output", product("gather sizes overflow", &[outer, indices.len(), width])?, y.len())?;
    let resolved = resolve(indices, rows)?;
    if y.is_empty() {
        return Ok(());
    }
    let (n, parts) = (resolved.len(), Parts::of(y));
    ranges(pool, outer * n, GRAIN.div_ceil(width), &|range| {
        // SAFETY: tasks have disjoint rows.
        let mut out = unsafe { parts.part(range.start * width..range.end * width) };
        let mut at = range.start;
        while at < range.end {
            let (o, i) = (at / n, at % n);
            let take = (n - i).min(range.end - at);
            let (to, rest) = out.split_at_mut(take * width);
            pick(&table[o * rows * width..(o + 1) * rows * width], width, &resolved[i..i + take], to);
            (out, at) = (rest, at + take);
        }
    });
    Ok(())
}

/// Elements below which a loop copies sooner than a call.
const SHORT: usize = 16;

/// Rows of `width` one after the other; those that follow each other in the table, as windows do, are copied together.
fn pick<T: Element>(table: &[T], width: usize, rows: &[usize], mut to: &mut [T]) {
    let mut i = 0;
    while i < rows.len() {
        let start = i;
        i += 1;
        while i < rows.len() && rows[i] == rows[i - 1] + 1 {
            i += 1;
        }
        let n = (i - start) * width;
        let from = &table[rows[start] * width..rows[start] * width + n];
        let (out, rest) = to.split_at_mut(n);
        if n < SHORT {
            out.iter_mut().zip(from).for_each(|(y, x)| *y = *x);
        } else {
            out.copy_from_slice(from);
        }
        to = rest;
    }
}

/// `y[b, t, :] = table[b, indices[b, t, 0], indices[b, t, 1], …, :]` for a table of `[batch × dims… × width]` and tuples of
/// as many indices as there are dims. Negative ones count from the end. The first index outside its dim is the error, and
/// nothing is written.
pub fn gather_tuples<T: Element>(
    table: &[T],
    batch: usize,
    dims: &[usize],
    width: usize,
    indices: &[i64],
    y: &mut [T],
) -> Result<(), Error> {
    let what = "gather sizes overflow";
    let (rows, k) = (product(what, dims)?, dims.len().max(1));
    same_length("gather table", product(what, &[batch, rows, width])?, table.len())?;
    let tuples = indices.len() / k;
    same_length("gather indices", product(what, &[tuples, dims.len()])?, indices.len())?;
    same_length("gather output", product(what, &[tuples, width])?, y.len())?;
    let each = tuples.checked_div(batch).unwrap_or(0);
    same_length("gather indices", product(what, &[each, batch])?, tuples)?;
    let mut starts = Vec::with_capacity(tuples);
    for (t, tuple) in indices.chunks_exact(k).enumerate() {
        let mut at = t.checked_div(each).unwrap_or(0);
        for (j, (&index, &bound)) in tuple.iter().zip(dims).enumerate() {
            let outside = Error::Index { position: t * k + j, index, bound };
            at = at * bound + wrapped(index, bound).ok_or(outside)?;
        }
        starts.push(at * width);
    }
    for (to, from) in y.chunks_exact_mut(width.max(1)).zip(starts) {
        to.copy_from_slice(&table[from..from + width]);
    }
    Ok(())
}

/// Indices in `0..bound`, negative ones counted from the end.
pub fn resolve<I: Copy + Into<i64>>(indices: &[I], bound: usize) -> Result<Vec<usize>, Error> {
    let one = |(position, &index): (usize, &I)| {
        let index: i64 = index.into();
        wrapped(index, bound).ok_or(Error::Index { position, index, bound })
    };
    indices.iter().enumerate().map(one).collect()
}

/// An index in `0..bound`, a negative one counted from the end.
#[inline(always)]
pub(crate) fn wrapped(index: i64, bound: usize) -> Option<usize> {
    let at = if index < 0 { index.checked_add_unsigned(bound as u64)? } else { index };
    usize::try_from(at).ok().filter(|&at| at < bound)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parallel::Serial;

    #[test]
    fn rows_follow_their_indices() {
        let table: Vec<u16> = (0..24).collect();
        let mut y = [0; 12];
        gather(&Serial, &table, 2, 4, 3, &[3i32, -4], &mut y).unwrap();
        assert_eq!(y, [9, 10, 11, 0, 1, 2, 21, 22, 23, 12, 13, 14]);
    }

    /// Windows of a line, and rows in no order, on any number of threads' parts.
    #[test]
    fn rows_that_follow_each_other_are_copied_together() {
        let (outer, rows) = (3, 40);
        for width in [1, 2, 5] {
            let table: Vec<u32> = (0..outer * rows * width).map(|i| i as u32).collect();
            let windows: Vec<i64> =
                (0..9).flat_map(|k| k..k + 31).chain([39, 0, 7, 6, 38, 39, -40, -39]).collect();
            let mut y = vec![0; outer * windows.len() * width];
            gather(&Serial, &table, outer, rows, width, &windows, &mut y).unwrap();
            let row = |o: usize, i: i64| (o * rows + if i < 0 { i + 40 } else { i } as usize) * width;
            let wanted: Vec<u32> = (0..outer)
                .flat_map(|o| windows.iter().map(move |&i| row(o, i)))
                .flat_map(|r| r..r + width)
                .map(|i| i as u32)
                .collect();
            assert_eq!(y, wanted);
        }
    }

    #[test]
    fn slices_follow_their_tuples() {
        let table: Vec<u16> = (0..24).collect();
        let mut y = [0; 4];
        gather_tuples(&table, 1, &[3, 4], 2, &[2, 0, -1, -1], &mut y).unwrap();
        assert_eq!(y, [16, 17, 22, 23]);
        gather_tuples(&table, 2, &[3, 4], 1, &[0, 1, 2, 3, 1, 0, -3, 2], &mut y).unwrap();
        assert_eq!(y, [1, 11, 16, 14]);
        let got = gather_tuples(&table, 1, &[3, 4], 2, &[0, 0, 0, 4], &mut y);
        assert_eq!(got, Err(Error::Index { position: 3, index: 4, bound: 4 }));
        assert!(gather_tuples(&table, 1, &[3, 4], 2, &[0; 3], &mut y).is_err());
        assert!(gather_tuples(&table, 3, &[2, 4], 1, &[0; 8], &mut y).is_err());
    }

    #[test]
    fn an_index_outside_the_axis_is_named() {
        let mut y = [7.0f32; 2];
        for (index, position) in [(2i64, 1), (-3, 1), (i64::MIN, 1), (i64::MAX, 1)] {
            let got = gather(&Serial, &[1.0, 2.0], 1, 2, 1, &[0, index], &mut y);
            assert_eq!(got, Err(Error::Index { position, index, bound: 2 }));
        }
        assert_eq!(y, [7.0; 2]);
        assert!(gather(&Serial, &[1.0f32], 1, 2, 1, &[0i64], &mut y[..1]).is_err());
        assert!(gather::<f32, i64>(&Serial, &[], usize::MAX, 2, 1, &[], &mut []).is_err());
    }
}
