//! Softmax and log-softmax, stable: the largest element is subtracted first.
//!
//! A row that is all -∞, or holds +∞ or NaN, becomes NaN, as the formula has it.

use crate::dispatch::Tier;
use crate::error::{Error, product, same_length};
use crate::parallel::Pool;
use crate::partition::{GRAIN, Parts, ranges, rows};
use crate::simd::{LANES, Simd, tiered};
use crate::vecmath::{exp_term, log};

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Softmax {
    /// `e^(x - m) / Σ e^(x - m)`.
    Plain,
    /// `x - m - ln Σ e^(x - m)`.
    Log,
}

/// An additive mask broadcast over rows: row `(a·dims[1] + b)·dims[2] + c` adds the `n` elements of `data` from
/// `a·strides[0] + b·strides[1] + c·strides[2]` on.
#[derive(Clone, Copy, Debug)]
pub struct RowMask<'a> {
    pub data: &'a [f32],
    pub dims: [usize; 3],
    pub strides: [usize; 3],
}

impl RowMask<'_> {
    fn check(&self, rows: usize, n: usize) -> Result<(), Error> {
        same_length("mask rows", rows, product("mask dimensions overflow", &self.dims)?)?;
        let mut end = n;
        for (d, s) in self.dims.into_iter().zip(self.strides) {
            let last = product("mask strides overflow", &[d.saturating_sub(1), s])?;
            end = end.checked_add(last).ok_or(Error::Shape { what: "mask strides overflow" })?;
        }
        if rows > 0 && self.data.len() < end {
            return Err(Error::Length { what: "mask", expected: end, found: self.data.len() });
        }
        Ok(())
    }

    fn row(&self, r: usize, n: usize) -> &[f32] {
        let [_, d1, d2] = self.dims;
        let (a, b, c) = (r / d2 / d1, r / d2 % d1, r % d2);
        let start = a * self.strides[0] + b * self.strides[1] + c * self.strides[2];
        &self.data[start..start + n]
    }
}

/// Rows that are worked on together: a row by itself waits for its own maximum, sum and quotient.
const TOGETHER: usize = 4;
/// Elements from which a row is long enough by itself.
const LONG: usize = 256;

tiered! {
    /// # Safety
    /// See [`softmax_together`].
    unsafe fn softmax_row(s: S; kind: Softmax, scale: f32, mask: *const f32, x: *const f32, y: *mut f32, n: usize) {
        softmax_together(s, kind, scale, [mask], [x], [y], n)
    }
}

tiered! {
    /// # Safety
    /// See [`softmax_together`].
    unsafe fn softmax_four(
        s: S;
        kind: Softmax,
        scale: f32,
        masks: [*const f32; TOGETHER],
        x: [*const f32; TOGETHER],
        y: [*mut f32; TOGETHER],
        n: usize
    ) {
        softmax_together(s, kind, scale, masks, x, y, n)
    }
}

/// Each row comes out the same whatever rows are beside it.
///
/// # Safety
/// Each of `x` and `y`, the same or apart, holds `n` elements; so does each mask, or all are null.
#[inline(always)]
unsafe fn softmax_together<S: Simd, const R: usize>(
    s: S,
    kind: Softmax,
    scale: f32,
    masks: [*const f32; R],
    mut x: [*const f32; R],
    y: [*mut f32; R],
    n: usize,
) {
    // SAFETY: as above.
    unsafe {
        if scale != 1.0 || !masks[0].is_null() {
            let k = s.splat(scale);
            for r in 0..R {
                let mut i = 0;
                while i < n {
                    let v = s.load_up_to(x[r].add(i), n - i);
                    let m = if masks[r].is_null() { s.zero() } else { s.load_up_to(masks[r].add(i), n - i) };
                    s.store_up_to(y[r].add(i), s.add(s.mul(v, k), m), n - i);
                    i += LANES;
                }
                x[r] = y[r];
            }
        }
        let tops = largest(s, x, n);
        let sums = exponentials(s, x, (kind == Softmax::Plain).then_some(y), n, tops);
        match kind {
            Softmax::Plain => {
                for r in 0..R {
                    let factor = s.splat(1.0 / sums[r]);
                    let mut i = 0;
                    while i < n {
                        let v = s.load_up_to(y[r].add(i), n - i);
                        s.store_up_to(y[r].add(i), s.mul(v, factor), n - i);
                        i += LANES;
                    }
                }
            }
            Softmax::Log => {
                for r in 0..R {
                    let (top, shift) = (s.splat(tops[r]), log(s, s.splat(sums[r])));
                    let mut i = 0;
                    while i < n {
                        let v = s.load_up_to(x[r].add(i), n - i);
                        s.store_up_to(y[r].add(i), s.sub(s.sub(v, top), shift), n - i);
                        i += LANES;
                    }
                }
            }
        }
    }
}

/// Largest element of each row; unspecified with NaN among them.
///
/// # Safety
/// Each of `x` holds `n` elements.
#[inline(always)]
unsafe fn largest<S: Simd, const R: usize>(s: S, x: [*const f32; R], n: usize) -> [f32; R] {
    // SAFETY: as above.
    unsafe {
        let lowest = s.splat(f32::NEG_INFINITY);
        let (mut a, mut b) = ([lowest; R], [lowest; R]);
        let mut i = 0;
        while i + 2 * LANES <= n {
            for r in 0..R {
                a[r] = s.max(a[r], s.load(x[r].add(i)));
                b[r] = s.max(b[r], s.load(x[r].add(i + LANES)));
            }
            i += 2 * LANES;
        }
        while i < n {
            for r in 0..R {
                let v = s.load_up_to(x[r].add(i), n - i);
                a[r] = s.max(a[r], if n - i < LANES { s.select(s.head(n - i), v, lowest) } else { v });
            }
            i += LANES;
        }
        let mut tops = [0.0; R];
        for r in 0..R {
            tops[r] = s.largest(s.max(a[r], b[r]));
        }
        tops
    }
}

/// `Σ e^(x - top)` of each row; the terms go to `y`, where there is one.
///
/// # Safety
/// Each of `x` and `y`, the same or apart, holds `n` elements.
#[inline(always)]
unsafe fn exponentials<S: Simd, const R: usize>(
    s: S,
    x: [*const f32; R],
    y: Option<[*mut f32; R]>,
    n: usize,
    tops: [f32; R],
) -> [f32; R] {
    // SAFETY: as above.
    unsafe {
        let (mut a, mut b) = ([s.zero(); R], [s.zero(); R]);
        let mut i = 0;
        while i + 2 * LANES <= n {
            for r in 0..R {
                let top = s.splat(tops[r]);
                let e = exp_term(s, s.sub(s.load(x[r].add(i)), top));
                let f = exp_term(s, s.sub(s.load(x[r].add(i + LANES)), top));
                if let Some(y) = y {
                    s.store(y[r].add(i), e);
                    s.store(y[r].add(i + LANES), f);
                }
                a[r] = s.add(a[r], e);
                b[r] = s.add(b[r], f);
            }
            i += 2 * LANES;
        }
        while i < n {
            for r in 0..R {
                let e = exp_term(s, s.sub(s.load_up_to(x[r].add(i), n - i), s.splat(tops[r])));
                if let Some(y) = y {
                    s.store_up_to(y[r].add(i), e, n - i);
                }
                a[r] = s.add(a[r], if n - i < LANES { s.select(s.head(n - i), e, s.zero()) } else { e });
            }
            i += LANES;
        }
        let mut sums = [0.0; R];
        for r in 0..R {
            sums[r] = s.sum(s.add(a[r], b[r]));
        }
        sums
    }
}

tiered! {
    /// Softmax down `n` elements at distance `inner`, for `w ≤ 16` neighbouring columns.
    ///
    /// # Safety
    /// `x` and `y`, the same or apart, are valid for `w` elements at each of the `n` steps.
    unsafe fn softmax_columns(s: S; kind: Softmax, x: *const f32, y: *mut f32, n: usize, inner: usize, w: usize) {
        let mut top = s.splat(f32::NEG_INFINITY);
        for k in 0..n {
            top = s.max(top, s.load_up_to(x.add(k * inner), w));
        }
        let mut sum = s.zero();
        for k in 0..n {
            let v = s.sub(s.load_up_to(x.add(k * inner), w), top);
            let e = exp_term(s, v);
            s.store_up_to(y.add(k * inner), if kind == Softmax::Plain { e } else { v }, w);
            sum = s.add(sum, e);
        }
        let factor = s.div(s.splat(1.0), sum);
        let shift = log(s, sum);
        for k in 0..n {
            let v = s.load_up_to(y.add(k * inner), w);
            let z = if kind == Softmax::Plain { s.mul(v, factor) } else { s.sub(v, shift) };
            s.store_up_to(y.add(k * inner), z, w);
        }
    }
}

tiered! {
    /// `ln Σ e^x`.
    ///
    /// # Safety
    /// `x` holds `n` elements.
    unsafe fn row_log_sum(s: S; x: *const f32, n: usize) -> f32 {
        let [top] = largest(s, [x], n);
        // Infinite terms are what they are.
        let top = if top.is_finite() { top } else { 0.0 };
        let [sum] = exponentials(s, [x], None, n, [top]);
        s.array(log(s, s.splat(sum)))[0] + top
    }
}

/// `ln Σ e^x` of each row of `x`, `[len(y) × n]`.
pub fn log_sum_exp(pool: &dyn Pool, x: &[f32], y: &mut [f32], n: usize) -> Result<(), Error> {
    log_sum_exp_on(Tier::best(), pool, x, y, n)
}

/// [`log_sum_exp`] on a chosen tier.
pub fn log_sum_exp_on(tier: Tier, pool: &dyn Pool, x: &[f32], y: &mut [f32], n: usize) -> Result<(), Error> {
    same_length("softmax input", product("softmax sizes overflow", &[y.len(), n])?, x.len())?;
    let parts = Parts::of(y);
    ranges(pool, x.len().checked_div(n).unwrap_or(0), GRAIN.div_ceil(n.max(1)), &|range| {
        for r in range {
            // SAFETY: row `r` of checked lengths, of which tasks have their own.
            unsafe { parts.part(r..r + 1)[0] = row_log_sum(tier, x[r * n..(r + 1) * n].as_ptr(), n) };
        }
    });
    Ok(())
}

/// Softmax over each row of `y`, `[len/n × n]`, in place, of `scale·y + mask`.
pub fn softmax_in_place(
    pool: &dyn Pool,
    kind: Softmax,
    y: &mut [f32],
    n: usize,
    scale: f32,
    mask: Option<RowMask<'_>>,
) -> Result<(), Error> {
    softmax_rows_on(Tier::best(), pool, kind, None, y, n, scale, mask)
}

/// Softmax over each row of `x`, `[len/n × n]`, of `scale·x + mask`.
pub fn softmax_rows(
    pool: &dyn Pool,
    kind: Softmax,
    x: &[f32],
    y: &mut [f32],
    n: usize,
    scale: f32,
    mask: Option<RowMask<'_>>,
) -> Result<(), Error> {
    softmax_rows_on(Tier::best(), pool, kind, Some(x), y, n, scale, mask)
}

/// [`softmax_rows`] (of `y` itself without `x`) on a chosen tier.
pub fn softmax_rows_on(
    tier: Tier,
    pool: &dyn Pool,
    kind: Softmax,
    x: Option<&[f32]>,
    y: &mut [f32],
    n: usize,
    scale: f32,
    mask: Option<RowMask<'_>>,
) -> Result<(), Error> {
    if let Some(x) = x {
        same_length("output", x.len(), y.len())?;
    }
    if y.is_empty() {
        return Ok(());
    }
    if n == 0 || !y.len().is_multiple_of(n) {
        return Err(Error::Shape { what: "softmax rows do not divide the tensor" });
    }
    if let Some(mask) = &mask {
        mask.check(y.len() / n, n)?;
    }
    rows(pool, y, n, &|first, out| {
        if n <= LANES && scale == 1.0 && mask.is_none() {
            let x = x.map(|x| &x[first * n..][..out.len()]);
            return short_rows(tier, kind, x, out, n);
        }
        let at = |r: usize| mask.as_ref().map_or(std::ptr::null(), |m| m.row(first + r, n).as_ptr());
        let count = out.len() / n;
        let together = if n < LONG { TOGETHER } else { 1 };
        let y = out.as_mut_ptr();
        let x = x.map_or(y.cast_const(), |x| x[first * n..][..out.len()].as_ptr());
        for r in (0..count).step_by(together) {
            // SAFETY: the rows hold `n` elements each, and the masks' rows as well.
            unsafe {
                if together == TOGETHER && count - r >= TOGETHER {
                    let masks = std::array::from_fn(|k| at(r + k));
                    let from = std::array::from_fn(|k| x.add((r + k) * n));
                    let to = std::array::from_fn(|k| y.add((r + k) * n));
                    softmax_four(tier, kind, scale, masks, from, to, n);
                } else {
                    for r in r..count.min(r + together) {
                        softmax_row(tier, kind, scale, at(r), x.add(r * n), y.add(r * n), n);
                    }
                }
            }
        }
    });
    Ok(())
}

/// Rows of at most as many elements as there are lanes: as many rows as lanes are turned into columns.
fn short_rows(tier: Tier, kind: Softmax, x: Option<&[f32]>, y: &mut [f32], n: usize) {
    let mut columns = [0.0; LANES * LANES];
    for at in (0..y.len()).step_by(n * LANES) {
        let out = &mut y[at..];
        let w = LANES.min(out.len() / n);
        let out = &mut out[..w * n];
        let rows = x.map_or(&*out, |x| &x[at..][..w * n]);
        for (r, row) in rows.chunks_exact(n).enumerate() {
            row.iter().enumerate().for_each(|(k, v)| columns[k * LANES + r] = *v);
        }
        let p = columns.as_mut_ptr();
        // SAFETY: `n ≤ LANES` steps of `LANES` columns lie in the array.
        unsafe { softmax_columns(tier, kind, p, p, n, LANES, LANES) };
        for (r, row) in out.chunks_exact_mut(n).enumerate() {
            row.iter_mut().enumerate().for_each(|(k, v)| *v = columns[k * LANES + r]);
        }
    }
}

/// Softmax over the middle axis of `[outer × n × inner]`.
pub fn softmax_axis(
    pool: &dyn Pool,
    kind: Softmax,
    x: &[f32],
    y: &mut [f32],
    outer: usize,
    n: usize,
    inner: usize,
) -> Result<(), Error> {
    softmax_axis_on(Tier::best(), pool, kind, x, y, outer, n, inner)
}

/// [`softmax_axis`] on a chosen tier.
pub fn softmax_axis_on(
    tier: Tier,
    pool: &dyn Pool,
    kind: Softmax,
    x: &[f32],
    y: &mut [f32],
    outer: usize,
    n: usize,
    inner: usize,
) -> Result<(), Error> {
    let len = product("softmax sizes overflow", &[outer, n, inner])?;
    same_length("softmax input", len, x.len())?;
    same_length("softmax output", len, y.len())?;
    if len == 0 {
        return Ok(());
    }
    if inner == 1 {
        return softmax_rows_on(tier, pool, kind, Some(x), y, n, 1.0, None);
    }
    let blocks = inner.div_ceil(LANES);
    let parts = Parts::of(y);
    ranges(pool, outer * blocks, GRAIN.div_ceil(n * LANES), &|r| {
        for t in r {
            let at = t / blocks * n * inner + t % blocks * LANES;
            let w = LANES.min(inner - t % blocks * LANES);
            // SAFETY: columns `at..at + w` of one slab; blocks are disjoint between tasks.
            unsafe {
                softmax_columns(tier, kind, x.as_ptr().add(at), parts.as_mut_ptr().add(at), n, inner, w)
            };
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parallel::Serial;

    fn values(n: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 7919 + 13) % 1009) as f32 / 50.0 - 10.0).collect()
    }

    fn exact(kind: Softmax, v: &[f64]) -> Vec<f64> {
        let m = v.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = v.iter().map(|x| (x - m).exp()).sum();
        v.iter().map(|x| if kind == Softmax::Log { x - m - sum.ln() } else { (x - m).exp() / sum }).collect()
    }

    fn close(kind: Softmax, got: f32, want: f64) {
        // The logarithm of a sum near one has an absolute error.
        let floor = if kind == Softmax::Log { 0.3 } else { 1e-3 };
        assert!((f64::from(got) - want).abs() <= 2e-6 * want.abs().max(floor), "{got} {want}");
    }

    #[test]
    fn rows_match_the_formula_with_scale_and_mask() {
        for n in [1, 2, 15, 16, 17, 33, 100] {
            let x = values(12 * n);
            let mask: Vec<f32> =
                values(6 * n).iter().map(|m| if *m > 5.0 { f32::NEG_INFINITY } else { *m }).collect();
            let m = RowMask { data: &mask, dims: [2, 2, 3], strides: [3 * n, 0, n] };
            for &tier in Tier::available() {
                for kind in [Softmax::Plain, Softmax::Log] {
                    let mut y = vec![0.0; x.len()];
                    softmax_rows_on(tier, &Serial, kind, Some(&x), &mut y, n, 0.25, Some(m)).unwrap();
                    for r in 0..12 {
                        let row = &mask[(r / 6 * 3 + r % 3) * n..][..n];
                        let v: Vec<f64> =
                            (0..n).map(|i| f64::from(x[r * n + i]) * 0.25 + f64::from(row[i])).collect();
                        if v.iter().all(|x| *x == f64::NEG_INFINITY) {
                            assert!(y[r * n..][..n].iter().all(|y| y.is_nan()));
                            continue;
                        }
                        for (y, w) in y[r * n..][..n].iter().zip(exact(kind, &v)) {
                            if w == f64::NEG_INFINITY {
                                assert_eq!(f64::from(*y), w)
                            } else {
                                close(kind, *y, w)
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn rows_come_out_the_same_beside_others() {
        for n in [17, 32, 33, 100, 255, 256, 300] {
            let x = values(7 * n);
            for &tier in Tier::available() {
                for kind in [Softmax::Plain, Softmax::Log] {
                    let mut y = vec![0.0; x.len()];
                    softmax_rows_on(tier, &Serial, kind, Some(&x), &mut y, n, 1.0, None).unwrap();
                    let mut inside = x.clone();
                    softmax_rows_on(tier, &Serial, kind, None, &mut inside, n, 1.0, None).unwrap();
                    assert_eq!(y, inside);
                    for (x, y) in x.chunks(n).zip(y.chunks(n)) {
                        let mut alone = x.to_vec();
                        softmax_rows_on(tier, &Serial, kind, None, &mut alone, n, 1.0, None).unwrap();
                        assert_eq!(y, alone);
                        let v: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
                        y.iter().zip(exact(kind, &v)).for_each(|(y, w)| close(kind, *y, w));
                    }
                }
            }
        }
    }

    #[test]
    fn middle_axes_match_the_formula() {
        for (outer, n, inner) in
            [(2, 5, 3), (1, 1, 40), (3, 7, 16), (2, 4, 35), (5, 2, 1), (37, 3, 1), (40, 16, 1)]
        {
            let x = values(outer * n * inner);
            for &tier in Tier::available() {
                for kind in [Softmax::Plain, Softmax::Log] {
                    let mut y = vec![0.0; x.len()];
                    softmax_axis_on(tier, &Serial, kind, &x, &mut y, outer, n, inner).unwrap();
                    for o in 0..outer {
                        for i in 0..inner {
                            let at = |k: usize| (o * n + k) * inner + i;
                            let v: Vec<f64> = (0..n).map(|k| f64::from(x[at(k)])).collect();
                            for (k, w) in exact(kind, &v).into_iter().enumerate() {
                                close(kind, y[at(k)], w);
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn logarithms_of_sums_are_those_of_the_formula() {
        for n in [1, 2, 15, 16, 33, 100] {
            let mut x = values(5 * n);
            x[n..2 * n].fill(f32::NEG_INFINITY);
            (x[2 * n], x[3 * n], x[4 * n]) = (f32::INFINITY, f32::NAN, f32::NEG_INFINITY);
            for &tier in Tier::available() {
                let mut y = [0.0; 5];
                log_sum_exp_on(tier, &Serial, &x, &mut y, n).unwrap();
                let want: f64 = x[..n].iter().map(|x| f64::from(*x).exp()).sum::<f64>().ln();
                assert!((f64::from(y[0]) - want).abs() <= 2e-6 * want.abs().max(0.3), "{} {want}", y[0]);
                assert_eq!(y[1..3], [f32::NEG_INFINITY, f32::INFINITY]);
                assert!(y[3].is_nan() && (y[4] == f32::NEG_INFINITY) == (n == 1));
            }
        }
        assert!(log_sum_exp(&Serial, &[0.0; 3], &mut [0.0], 2).is_err());
    }

    #[test]
    fn a_short_mask_is_refused() {
        let mask = RowMask { data: &[0.0; 5], dims: [1, 1, 2], strides: [0, 0, 3] };
        assert!(softmax_in_place(&Serial, Softmax::Plain, &mut [0.0; 6], 3, 1.0, Some(mask)).is_err());
        assert!(softmax_in_place(&Serial, Softmax::Plain, &mut [0.0; 6], 4, 1.0, None).is_err());
    }
}
