//! kernel: positions of extremes along the middle axis of `[outer × n × inner]`, ONNX `ArgMax` and `ArgMin`.

use crate::dispatch::Tier;
use crate::error::{Error, product, same_length};
use crate::parallel::Pool;
use crate::partition::{GRAIN, Parts, ranges};
use crate::reduce::{Extreme, Max, Min, any_nan, fold_block};
use crate::simd::{LANES, tiered};

/// Position of the extreme along the middle axis of `[outer × n × inner]`: the first of equals, or the last if
/// `select_last`. The first NaN counts as the extreme.
pub fn arg_reduce(
    pool: &dyn Pool,
    which: Extreme,
    select_last: bool,
    x: &[f32],
    y: &mut [i64],
    outer: usize,
    n: usize,
    inner: usize,
) -> Result<(), Error> {
    arg_reduce_on(Tier::best(), pool, which, select_last, x, y, outer, n, inner)
}

/// [`arg_reduce`] on a chosen tier.
pub fn arg_reduce_on(
    tier: Tier,
    pool: &dyn Pool,
    which: Extreme,
    select_last: bool,
    x: &[f32],
    y: &mut [i64],
    outer: usize,
    n: usize,
    inner: usize,
) -> Result<(), Error> {
    same_length("reduction input", product("reduction sizes overflow", &[outer, n, inner])?, x.len())?;
    same_length("reduction output", product("reduction sizes overflow", &[outer, inner])?, y.len())?;
    if n == 0 && !y.is_empty() {
        return Err(Error::Shape { what: "an empty axis has no extreme" });
    }
    if i32::try_from(n).is_err() {
        return Err(Error::Shape { what: "the axis of an extreme has more than 2^31 steps" });
    }
    if inner == 1 {
        let parts = Parts::of(y);
        ranges(pool, outer, GRAIN.div_ceil(n.max(1)), &|range| {
            // SAFETY: tasks have disjoint rows.
            let out = unsafe { parts.part(range.clone()) };
            for (y, r) in out.iter_mut().zip(range) {
                *y = row(tier, which, select_last, &x[r * n..(r + 1) * n]) as i64;
            }
        });
        return Ok(());
    }
    let blocks = inner.div_ceil(WIDE);
    let parts = Parts::of(y);
    ranges(pool, outer * blocks, GRAIN.div_ceil(n.max(1) * WIDE), &|range| {
        for t in range {
            let (o, i) = (t / blocks, t % blocks * WIDE);
            let w = WIDE.min(inner - i);
            let mut at = [0i32; WIDE];
            // SAFETY: columns i..i+w of slab `o`, inside the checked lengths; `at` holds whole vectors.
            unsafe {
                let from = x.as_ptr().add(o * n * inner + i);
                columns(tier, which == Extreme::Max, select_last, from, at.as_mut_ptr(), n, inner, w);
            }
            // SAFETY: tasks have disjoint columns.
            let out = unsafe { parts.part(o * inner + i..o * inner + i + w) };
            out.iter_mut().zip(&at).for_each(|(y, &at)| *y = i64::from(at));
        }
    });
    Ok(())
}

/// Columns that run together: their best values stay in the first-level cache.
const WIDE: usize = 32 * LANES;

fn row(tier: Tier, which: Extreme, select_last: bool, x: &[f32]) -> usize {
    // SAFETY: both read `x`.
    let best = unsafe {
        if any_nan(tier, x.as_ptr(), x.len()) {
            return x.iter().position(|v| v.is_nan()).unwrap_or(0);
        }
        match which {
            Extreme::Max => fold_block(tier, Max, x.as_ptr(), x.len()),
            Extreme::Min => fold_block(tier, Min, x.as_ptr(), x.len()),
        }
    };
    let is = |v: &f32| *v == best;
    // A block at a time, so that the search runs in vectors.
    let block = |b: &[f32]| b.iter().fold(false, |found, v| found | is(v));
    let found = if select_last {
        let blocks = x.chunks(LANES).enumerate();
        blocks.rev().find(|(_, b)| block(b)).map(|(i, b)| (i, b.iter().rposition(is)))
    } else {
        x.chunks(LANES).enumerate().find(|(_, b)| block(b)).map(|(i, b)| (i, b.iter().position(is)))
    };
    found.map_or(0, |(i, at)| i * LANES + at.unwrap_or(0))
}

tiered! {
    /// Positions of the extremes of `w ≤ WIDE` neighbouring columns of `n` steps at distance `inner`.
    ///
    /// # Safety
    /// `x` is valid for `w` elements at each step, `at` for `w` up to a whole vector.
    unsafe fn columns(
        s: S; largest: bool, select_last: bool, x: *const f32, at: *mut i32, n: usize, inner: usize, w: usize,
    ) {
        let mut best = [0f32; WIDE];
        let best = best.as_mut_ptr();
        let at = at.cast::<f32>();
        let mut i = 0;
        while i < w {
            s.store(best.add(i), s.load_up_to(x.add(i), w - i));
            i += LANES;
        }
        let mut k = 1;
        while k < n {
            let here = s.of_bits(s.splat_i(k as i32));
            let p = x.add(k * inner);
            let mut i = 0;
            while i < w {
                let (v, b) = (s.load_up_to(p.add(i), w - i), s.load(best.add(i)));
                let better = if largest { s.lt(b, v) } else { s.lt(v, b) };
                let better = if select_last { s.or_mask(better, s.eq(v, b)) } else { better };
                // A NaN takes the place of a number, never of a NaN.
                let first = s.is_nan(s.select(s.is_nan(b), s.zero(), v));
                let better = s.or_mask(better, first);
                s.store(best.add(i), s.select(better, v, b));
                s.store(at.add(i), s.select(better, here, s.load(at.add(i))));
                i += LANES;
            }
            k += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parallel::Serial;

    /// One element after the other, as the operator says.
    fn plain(which: Extreme, select_last: bool, column: &[f32]) -> i64 {
        let (mut at, mut best) = (0, column[0]);
        for (k, &v) in column.iter().enumerate().skip(1) {
            let better = if which == Extreme::Max { v > best } else { v < best };
            if better || (select_last && v == best) || (v.is_nan() && !best.is_nan()) {
                (at, best) = (k, v);
            }
        }
        at as i64
    }

    #[test]
    fn positions_are_those_of_a_plain_search() {
        for (outer, n, inner) in [(3, 1, 1), (2, 40, 1), (1, 133, 1), (2, 7, 5), (1, 21, 600), (2, 3, 33)] {
            // Few values, so that there are equals; zeros of both signs; then with NaNs.
            for nan in [0, 37] {
                let value = |i: usize| match (i * 7919 + 13) % 1009 {
                    r if nan > 0 && r % nan == 0 => f32::NAN,
                    r if r % 5 == 0 => -0.0,
                    r => (r % 9) as f32 - 4.0,
                };
                let x: Vec<f32> = (0..outer * n * inner).map(value).collect();
                for which in [Extreme::Max, Extreme::Min] {
                    for last in [false, true] {
                        let column = |j: usize| {
                            (0..n).map(|k| x[(j / inner * n + k) * inner + j % inner]).collect::<Vec<f32>>()
                        };
                        let want: Vec<i64> =
                            (0..outer * inner).map(|j| plain(which, last, &column(j))).collect();
                        for &tier in Tier::available() {
                            let mut y = vec![0; want.len()];
                            arg_reduce_on(tier, &Serial, which, last, &x, &mut y, outer, n, inner).unwrap();
                            assert_eq!(y, want, "{tier:?} {which:?} {last} {n} {inner}");
                        }
                    }
                }
            }
        }
    }
}
