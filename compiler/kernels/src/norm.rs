//! Normalisation of rows: layer, RMS, group, instance and Lp norms, with the residual sum before them fused.
//!
//! Mean and variance take two passes over a row that is in cache, so the variance does not cancel.

use crate::dispatch::Tier;
use crate::error::{Error, product, same_length};
use crate::parallel::Pool;
use crate::partition::{GRAIN, Parts, ranges};
use crate::simd::{LANES, Simd, tiered};

/// How a row is centred and scaled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Norm {
    /// `(x - mean) / √(variance + epsilon)`.
    Layer { epsilon: f32 },
    /// `x / √(mean of squares + epsilon)`.
    Rms { epsilon: f32 },
    /// `x / √(sum of squares)`; a zero row stays zero.
    L2,
    /// `x / Σ|x|`; a zero row stays zero.
    L1,
}

/// What is read and written besides the normalised rows; every slice may be left out.
#[derive(Default)]
pub struct NormArgs<'a> {
    /// Multiplied on, `[n]`.
    pub gamma: Option<&'a [f32]>,
    /// Added after, `[n]`.
    pub beta: Option<&'a [f32]>,
    /// Added to `x` before, `[rows × n]`, or `[k × n]` for `k` dividing the rows and repeated.
    pub residual: Option<&'a [f32]>,
    /// Added to `x` before, `[n]`.
    pub bias: Option<&'a [f32]>,
    /// Receives `x + residual + bias`, `[rows × n]`.
    pub sum: Option<&'a mut [f32]>,
    /// Receives each row's mean (zero but for [`Norm::Layer`]), `[rows]`.
    pub mean: Option<&'a mut [f32]>,
    /// Receives each row's factor, `[rows]`.
    pub inverse: Option<&'a mut [f32]>,
}

/// Four accumulators over a row, added in one order on every tier.
#[inline(always)]
unsafe fn total<S: Simd>(
    s: S,
    x: *const f32,
    n: usize,
    term: impl Fn(S::F, S::F) -> S::F,
    skip: S::F,
) -> f32 {
    // SAFETY: `x` holds `n` elements.
    unsafe {
        let mut a = [s.zero(); 4];
        let mut i = 0;
        while i + 4 * LANES <= n {
            for (j, a) in a.iter_mut().enumerate() {
                *a = term(s.load(x.add(i + j * LANES)), *a);
            }
            i += 4 * LANES;
        }
        while i < n {
            let v = s.load_up_to(x.add(i), n - i);
            let v = if n - i < LANES { s.select(s.head(n - i), v, skip) } else { v };
            a[0] = term(v, a[0]);
            i += LANES;
        }
        s.sum(s.add(s.add(a[0], a[1]), s.add(a[2], a[3])))
    }
}

/// The sum of `(x - mean)²`. A function, as a closure with three callers is not inlined, and compiled by itself it lacks
/// the instructions of its tier.
#[inline(always)]
unsafe fn squares<S: Simd>(s: S, x: *const f32, n: usize, mean: S::F) -> f32 {
    let term = |v, a| {
        let d = s.sub(v, mean);
        s.fma(d, d, a)
    };
    // SAFETY: `x` holds `n` elements.
    unsafe { total(s, x, n, term, mean) }
}

/// Mean and factor of a row, by the lanes of `s`.
#[inline(always)]
unsafe fn statistics<S: Simd>(s: S, norm: Norm, x: *const f32, n: usize) -> (f32, f32) {
    let count = n as f32;
    // SAFETY: `x` holds `n` elements.
    unsafe {
        let or_zero = |d: f32| if d == 0.0 { 0.0 } else { 1.0 / d };
        match norm {
            Norm::Layer { epsilon } => {
                let mean = total(s, x, n, |v, a| s.add(v, a), s.zero()) / count;
                (mean, 1.0 / (squares(s, x, n, s.splat(mean)) / count + epsilon).sqrt())
            }
            Norm::Rms { epsilon } => (0.0, 1.0 / (squares(s, x, n, s.zero()) / count + epsilon).sqrt()),
            Norm::L2 => (0.0, or_zero(squares(s, x, n, s.zero()).sqrt())),
            Norm::L1 => (0.0, or_zero(total(s, x, n, |v, a| s.add(s.abs(v), a), s.zero()))),
        }
    }
}

/// True when a row's sums left float32: too large, or so small that their squares vanished.
fn left_range(mean: f32, factor: f32) -> bool {
    !mean.is_finite() || !factor.is_finite() || factor == 0.0
}

/// [`statistics`] in float64, for rows whose sums leave float32.
fn wide_statistics(norm: Norm, x: &[f32]) -> (f64, f64) {
    let sum = |f: &dyn Fn(f64) -> f64| x.iter().map(|&v| f(f64::from(v))).sum::<f64>();
    let count = x.len() as f64;
    let or_zero = |d: f64| if d == 0.0 { 0.0 } else { 1.0 / d };
    match norm {
        Norm::Layer { epsilon } => {
            let mean = sum(&|v| v) / count;
            (mean, 1.0 / (sum(&|v| (v - mean) * (v - mean)) / count + f64::from(epsilon)).sqrt())
        }
        Norm::Rms { epsilon } => (0.0, 1.0 / (sum(&|v| v * v) / count + f64::from(epsilon)).sqrt()),
        Norm::L2 => (0.0, or_zero(sum(&|v| v * v).sqrt())),
        Norm::L1 => (0.0, or_zero(sum(&f64::abs))),
    }
}

#[derive(Clone, Copy)]
struct Row {
    x: *const f32,
    residual: *const f32,
    bias: *const f32,
    /// Where the sum goes; `y` itself if nobody asked for it.
    sum: *mut f32,
    gamma: *const f32,
    beta: *const f32,
    y: *mut f32,
    n: usize,
}

tiered! {
    /// Returns mean and factor.
    ///
    /// # Safety
    /// Pointers are null or hold `n` elements; `y` and `sum` are not null.
    unsafe fn norm_row(s: S; norm: Norm, r: Row) -> (f32, f32) {
        let mut from = r.x;
        if !r.residual.is_null() || !r.bias.is_null() {
            let part = |p: *const f32, i: usize| if p.is_null() { s.zero() } else { s.load_up_to(p.add(i), r.n - i) };
            let mut i = 0;
            while i < r.n {
                let v = s.add(s.load_up_to(r.x.add(i), r.n - i), part(r.residual, i));
                s.store_up_to(r.sum.add(i), s.add(v, part(r.bias, i)), r.n - i);
                i += LANES;
            }
            from = r.sum;
        }
        let (mean, factor) = statistics(s, norm, from, r.n);
        if left_range(mean, factor) {
            return wide_row(norm, from, r);
        }
        let (m, f) = (s.splat(mean), s.splat(factor));
        let mut i = 0;
        while i < r.n {
            let left = r.n - i;
            let mut v = s.mul(s.sub(s.load_up_to(from.add(i), left), m), f);
            if !r.gamma.is_null() {
                v = s.mul(v, s.load_up_to(r.gamma.add(i), left));
            }
            if !r.beta.is_null() {
                v = s.add(v, s.load_up_to(r.beta.add(i), left));
            }
            s.store_up_to(r.y.add(i), v, left);
            i += LANES;
        }
        (mean, factor)
    }
}

/// The end of [`norm_row`] in float64.
///
/// # Safety
/// As [`norm_row`]; `from` holds `n` elements.
#[cold]
#[inline(never)]
unsafe fn wide_row(norm: Norm, from: *const f32, r: Row) -> (f32, f32) {
    // SAFETY: pointers that are not null hold `n` elements; `from` may be `y`, which is written behind where it is read.
    unsafe {
        let (mean, factor) = wide_statistics(norm, std::slice::from_raw_parts(from, r.n));
        for i in 0..r.n {
            let mut v = (f64::from(*from.add(i)) - mean) * factor;
            if !r.gamma.is_null() {
                v *= f64::from(*r.gamma.add(i));
            }
            if !r.beta.is_null() {
                v += f64::from(*r.beta.add(i));
            }
            *r.y.add(i) = v as f32;
        }
        (mean as f32, factor as f32)
    }
}

/// Normalises each row of `x`, `[rows × n]`, into `y`.
pub fn normalize_rows(
    pool: &dyn Pool,
    norm: Norm,
    x: &[f32],
    y: &mut [f32],
    n: usize,
    args: NormArgs<'_>,
) -> Result<(), Error> {
    normalize_rows_on(Tier::best(), pool, norm, x, y, n, args)
}

fn optional(what: &'static str, n: usize, v: Option<&[f32]>) -> Result<*const f32, Error> {
    v.map_or(Ok(std::ptr::null()), |v| same_length(what, n, v.len()).map(|()| v.as_ptr()))
}

/// A part that tasks may write, or nothing.
fn outputs<'a>(
    what: &'static str,
    n: usize,
    v: &'a mut Option<&mut [f32]>,
) -> Result<Option<Parts<'a, f32>>, Error> {
    match v {
        None => Ok(None),
        Some(v) => same_length(what, n, v.len()).map(|()| Some(Parts::of(v))),
    }
}

/// [`normalize_rows`] on a chosen tier.
pub fn normalize_rows_on(
    tier: Tier,
    pool: &dyn Pool,
    norm: Norm,
    x: &[f32],
    y: &mut [f32],
    n: usize,
    mut args: NormArgs<'_>,
) -> Result<(), Error> {
    same_length("output", x.len(), y.len())?;
    if x.is_empty() {
        return Ok(());
    }
    if n == 0 || !x.len().is_multiple_of(n) {
        return Err(Error::Shape { what: "normalised rows do not divide the tensor" });
    }
    let count = x.len() / n;
    optional("gamma", n, args.gamma)?;
    optional("beta", n, args.beta)?;
    optional("bias", n, args.bias)?;
    let repeat = args.residual.map_or(1, |r| r.len() / n);
    if args
        .residual
        .is_some_and(|r| r.is_empty() || !r.len().is_multiple_of(n) || !count.is_multiple_of(repeat))
    {
        return Err(Error::Shape { what: "residual rows do not divide the tensor's" });
    }
    let (gamma, beta, bias, residual) = (args.gamma, args.beta, args.bias, args.residual);
    let sum = outputs("sum", x.len(), &mut args.sum)?;
    let mean = outputs("mean", count, &mut args.mean)?;
    let inverse = outputs("inverse deviation", count, &mut args.inverse)?;
    let y = Parts::of(y);
    let at = |p: Option<&[f32]>| p.map_or(std::ptr::null(), <[f32]>::as_ptr);
    ranges(pool, count, GRAIN.div_ceil(n), &|range| {
        for r in range {
            // SAFETY: row `r` of slices whose lengths were checked; tasks have disjoint rows.
            unsafe {
                let row = r * n..(r + 1) * n;
                let out = y.part(row.clone()).as_mut_ptr();
                let kept = sum.as_ref().map(|s| s.part(row.clone()).as_mut_ptr());
                let parts = Row {
                    x: x.as_ptr().add(r * n),
                    residual: residual.map_or(std::ptr::null(), |v| v.as_ptr().add(r % repeat * n)),
                    bias: at(bias),
                    sum: kept.unwrap_or(out),
                    gamma: at(gamma),
                    beta: at(beta),
                    y: out,
                    n,
                };
                if let (Some(kept), true) = (kept, residual.is_none() && bias.is_none()) {
                    std::ptr::copy_nonoverlapping(parts.x, kept, n);
                }
                let (m, f) = norm_row(tier, norm, parts);
                if let Some(p) = &mean {
                    p.part(r..r + 1)[0] = m;
                }
                if let Some(p) = &inverse {
                    p.part(r..r + 1)[0] = f;
                }
            }
        }
    });
    Ok(())
}

tiered! {
    /// `y = x·a + b`.
    ///
    /// # Safety
    /// `x` and `y` hold `n` elements.
    pub(crate) unsafe fn affine(s: S; x: *const f32, y: *mut f32, n: usize, a: f32, b: f32) {
        let mut i = 0;
        while i < n {
            let v = s.fma(s.load_up_to(x.add(i), n - i), s.splat(a), s.splat(b));
            s.store_up_to(y.add(i), v, n - i);
            i += LANES;
        }
    }
}

tiered! {
    /// `y = (x − mean)·a + b`: exact where `x` is the mean.
    ///
    /// # Safety
    /// `x` and `y` hold `n` elements.
    unsafe fn centred(s: S; x: *const f32, y: *mut f32, n: usize, mean: f32, ab: (f32, f32)) {
        let (a, b) = ab;
        let mut i = 0;
        while i < n {
            let d = s.sub(s.load_up_to(x.add(i), n - i), s.splat(mean));
            s.store_up_to(y.add(i), s.fma(d, s.splat(a), s.splat(b)), n - i);
            i += LANES;
        }
    }
}

tiered! {
    /// # Safety
    /// `x` holds `n` elements.
    unsafe fn row_statistics(s: S; norm: Norm, x: *const f32, n: usize) -> (f32, f32) {
        statistics(s, norm, x, n)
    }
}

/// Group normalisation of `[batch × channels × inner]`: statistics over each of `groups` groups of channels, then
/// `gamma` and `beta`, `[channels]`. Instance normalisation is `groups = channels`.
pub fn group_norm(
    pool: &dyn Pool,
    x: &[f32],
    y: &mut [f32],
    batch: usize,
    channels: usize,
    inner: usize,
    groups: usize,
    gamma: &[f32],
    beta: &[f32],
    epsilon: f32,
) -> Result<(), Error> {
    group_norm_on(Tier::best(), pool, x, y, batch, channels, inner, groups, gamma, beta, epsilon)
}

/// [`group_norm`] on a chosen tier.
pub fn group_norm_on(
    tier: Tier,
    pool: &dyn Pool,
    x: &[f32],
    y: &mut [f32],
    batch: usize,
    channels: usize,
    inner: usize,
    groups: usize,
    gamma: &[f32],
    beta: &[f32],
    epsilon: f32,
) -> Result<(), Error> {
    let len = product("group norm sizes overflow", &[batch, channels, inner])?;
    same_length("group norm input", len, x.len())?;
    same_length("group norm output", len, y.len())?;
    same_length("gamma", channels, gamma.len())?;
    same_length("beta", channels, beta.len())?;
    if groups == 0 || !channels.is_multiple_of(groups) {
        return Err(Error::Shape { what: "groups do not divide the channels" });
    }
    if len == 0 {
        return Ok(());
    }
    let (wide, size) = (channels / groups, channels / groups * inner);
    let y = Parts::of(y);
    ranges(pool, batch * groups, GRAIN.div_ceil(size), &|range| {
        for g in range {
            // SAFETY: group `g` is `size` elements of both slices; tasks have disjoint groups.
            unsafe {
                let from = x.as_ptr().add(g * size);
                let norm = Norm::Layer { epsilon };
                let (mean, factor) = row_statistics(tier, norm, from, size);
                let wide_sums =
                    left_range(mean, factor).then(|| wide_statistics(norm, &x[g * size..(g + 1) * size]));
                for c in 0..wide {
                    let channel = g % groups * wide + c;
                    let span = g * size + c * inner..g * size + (c + 1) * inner;
                    let out = y.part(span.clone());
                    let (gamma, beta) = (gamma[channel], beta[channel]);
                    match wide_sums {
                        Some((mean, factor)) => {
                            let value =
                                |x: f32| (f64::from(x) - mean) * factor * f64::from(gamma) + f64::from(beta);
                            out.iter_mut().zip(&x[span]).for_each(|(y, &x)| *y = value(x) as f32);
                        }
                        None => {
                            let from = from.add(c * inner);
                            centred(tier, from, out.as_mut_ptr(), inner, mean, (factor * gamma, beta));
                        }
                    }
                }
            }
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parallel::Serial;

    fn values(n: usize, k: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 7919 + k) % 1009) as f32 / 100.0 - 3.0).collect()
    }

    fn exact(norm: Norm, x: &[f64]) -> (f64, f64) {
        let n = x.len() as f64;
        let squares = |m: f64| x.iter().map(|v| (v - m) * (v - m)).sum::<f64>();
        match norm {
            Norm::Layer { epsilon } => {
                let mean = x.iter().sum::<f64>() / n;
                (mean, 1.0 / (squares(mean) / n + f64::from(epsilon)).sqrt())
            }
            Norm::Rms { epsilon } => (0.0, 1.0 / (squares(0.0) / n + f64::from(epsilon)).sqrt()),
            Norm::L2 => (0.0, 1.0 / squares(0.0).sqrt()),
            Norm::L1 => (0.0, 1.0 / x.iter().map(|v| v.abs()).sum::<f64>()),
        }
    }

    #[test]
    fn every_norm_matches_the_formula_with_residual_and_bias() {
        for n in [1, 3, 16, 31, 64, 65, 384] {
            let rows = 6;
            let (x, residual) = (values(rows * n, 1), values(3 * n, 5));
            let (gamma, beta, bias) = (values(n, 7), values(n, 9), values(n, 11));
            for &tier in Tier::available() {
                for norm in [Norm::Layer { epsilon: 1e-5 }, Norm::Rms { epsilon: 1e-5 }, Norm::L2, Norm::L1] {
                    let mut y = vec![0.0; x.len()];
                    let (mut sum, mut mean, mut inverse) = (y.clone(), vec![0.0; rows], vec![0.0; rows]);
                    let args = NormArgs {
                        gamma: Some(&gamma),
                        beta: Some(&beta),
                        residual: Some(&residual),
                        bias: Some(&bias),
                        sum: Some(&mut sum),
                        mean: Some(&mut mean),
                        inverse: Some(&mut inverse),
                    };
                    normalize_rows_on(tier, &Serial, norm, &x, &mut y, n, args).unwrap();
                    for r in 0..rows {
                        let v: Vec<f64> = (0..n)
                            .map(|i| f64::from(x[r * n + i] + residual[r % 3 * n + i] + bias[i]))
                            .collect();
                        let (m, f) = exact(norm, &v);
                        assert!((f64::from(mean[r]) - m).abs() < 1e-5);
                        assert!((f64::from(inverse[r]) / f - 1.0).abs() < 1e-4);
                        for i in 0..n {
                            let want = (v[i] - m) * f * f64::from(gamma[i]) + f64::from(beta[i]);
                            assert!((f64::from(y[r * n + i]) - want).abs() < 2e-4, "{tier:?} {norm:?} {n}");
                            assert_eq!(sum[r * n + i], x[r * n + i] + residual[r % 3 * n + i] + bias[i]);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn rows_whose_sums_leave_float32_have_their_value() {
        let n = 33;
        for scale in [2.8e38f32, 1e30, 1e-30] {
            let x: Vec<f32> = (0..n).map(|i| scale * ((i % 7) as f32 / 6.0 - 0.4)).collect();
            let v: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
            for &tier in Tier::available() {
                for norm in [Norm::Layer { epsilon: 0.0 }, Norm::Rms { epsilon: 0.0 }, Norm::L2, Norm::L1] {
                    let mut y = vec![0.0; n];
                    normalize_rows_on(tier, &Serial, norm, &x, &mut y, n, NormArgs::default()).unwrap();
                    let (m, f) = exact(norm, &v);
                    for (y, v) in y.iter().zip(&v) {
                        assert!((f64::from(*y) - (v - m) * f).abs() < 1e-5, "{tier:?} {norm:?} {scale} {y}");
                    }
                }
                let mut y = vec![0.0; n];
                group_norm_on(tier, &Serial, &x, &mut y, 1, 1, n, 1, &[2.0], &[1.0], 0.0).unwrap();
                let (m, f) = exact(Norm::Layer { epsilon: 0.0 }, &v);
                for (y, v) in y.iter().zip(&v) {
                    assert!((f64::from(*y) - ((v - m) * f * 2.0 + 1.0)).abs() < 1e-5, "{tier:?} {scale}");
                }
            }
        }
    }

    #[test]
    fn a_group_of_one_element_is_its_shift() {
        let x = values(6, 5);
        let (gamma, beta) = (values(6, 1), values(6, 2));
        for &tier in Tier::available() {
            let mut y = vec![0.0; 6];
            group_norm_on(tier, &Serial, &x, &mut y, 1, 6, 1, 6, &gamma, &beta, 1e-5).unwrap();
            assert_eq!(y, beta);
        }
    }

    #[test]
    fn a_zero_row_stays_zero_under_lp() {
        for norm in [Norm::L1, Norm::L2] {
            let mut y = [1.0; 5];
            normalize_rows(&Serial, norm, &[0.0; 5], &mut y, 5, NormArgs::default()).unwrap();
            assert_eq!(y, [0.0; 5]);
        }
    }

    #[test]
    fn groups_match_the_formula() {
        let (batch, channels, inner) = (2, 6, 7);
        let x = values(batch * channels * inner, 3);
        let (gamma, beta) = (values(channels, 1), values(channels, 2));
        for groups in [1, 2, 6] {
            let wide = channels / groups;
            for &tier in Tier::available() {
                let mut y = vec![0.0; x.len()];
                group_norm_on(tier, &Serial, &x, &mut y, batch, channels, inner, groups, &gamma, &beta, 1e-5)
                    .unwrap();
                for (i, y) in y.iter().enumerate() {
                    let size = wide * inner;
                    let v: Vec<f64> = x[i / size * size..][..size].iter().map(|v| f64::from(*v)).collect();
                    let (m, f) = exact(Norm::Layer { epsilon: 1e-5 }, &v);
                    let c = i / inner % channels;
                    let want = (f64::from(x[i]) - m) * f * f64::from(gamma[c]) + f64::from(beta[c]);
                    assert!((f64::from(*y) - want).abs() < 1e-4);
                }
            }
        }
        let mut y = vec![0.0; x.len()];
        assert!(group_norm(&Serial, &x, &mut y, batch, channels, inner, 4, &gamma, &beta, 1e-5).is_err());
    }
}
