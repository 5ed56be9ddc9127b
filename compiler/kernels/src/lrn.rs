//! kernel: local response normalisation across channels (Krizhevsky et al., 2012): ONNX `LRN`.

use crate::dispatch::Tier;
use crate::error::{Error, product, same_length};
use crate::parallel::Pool;
use crate::partition::{GRAIN, Parts, ranges};
use crate::scratch;
use crate::simd::{LANES, Simd, tiered};
use crate::vecmath::{exp, log};

/// Sizes of `x`: `[batch, channels, inner]`, or `[batch, inner, channels]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lrn {
    pub batch: usize,
    pub channels: usize,
    pub inner: usize,
    pub last: bool,
    /// Channels of a window, of which the larger half is behind its channel.
    pub size: usize,
    pub alpha: f32,
    pub beta: f32,
    pub bias: f32,
}

impl Lrn {
    /// Channels of a window before and behind its own, those that can be there.
    fn reach(&self) -> (usize, usize) {
        let most = self.channels.saturating_sub(1);
        (((self.size - 1) / 2).min(most), (self.size / 2).min(most))
    }

    fn scale(&self) -> f64 {
        f64::from(self.alpha) / self.size as f64
    }
}

/// Pixels of a plane that go through all channels together: what a window of them reads stays in the first-level cache.
const PIXELS: usize = 256;
/// Elements of rows that are padded together: they have left the store buffer when they are read at other alignments.
const PADDED: usize = 2048;
/// Sums between these have powers that float32 holds; others are raised in `f64`.
const LEAST: f32 = 1.0 / MOST;
const MOST: f32 = (1u64 << 40) as f32;

/// `y = x / (bias + alpha / size · Σ x²)^beta`, the sum over the channels of a window.
///
/// # Errors
/// [`Error::Shape`] for an empty window, [`Error::Length`] where lengths do not fit.
pub fn lrn(tier: Tier, pool: &dyn Pool, l: &Lrn, x: &[f32], y: &mut [f32]) -> Result<(), Error> {
    match l.beta {
        0.5 => each(tier, pool, l, Half, x, y),
        0.75 => each(tier, pool, l, ThreeQuarters, x, y),
        1.0 => each(tier, pool, l, One, x, y),
        beta => each(tier, pool, l, Other(beta), x, y),
    }
}

fn each<P: Power>(
    tier: Tier,
    pool: &dyn Pool,
    l: &Lrn,
    power: P,
    x: &[f32],
    y: &mut [f32],
) -> Result<(), Error> {
    let what = "sizes of a response normalisation";
    let elements = product(what, &[l.batch, l.channels, l.inner])?;
    same_length("normalised input", elements, x.len())?;
    same_length("normalised result", elements, y.len())?;
    if l.size == 0 {
        return Err(Error::Shape { what });
    }
    if elements == 0 {
        return Ok(());
    }
    let (before, after) = l.reach();
    let c = l.channels;
    let y = Parts::of(y);
    if l.last {
        let wide = c + before + after;
        let together = (PADDED / wide).max(1);
        ranges(pool, elements / c, GRAIN.div_ceil(c), &|rows| {
            scratch::with(together * wide, |padded| {
                padded.fill(0.0);
                for first in rows.clone().step_by(together) {
                    let part = first * c..rows.end.min(first + together) * c;
                    // SAFETY: tasks have disjoint rows; `padded` holds `together` of them.
                    unsafe {
                        let (x, y) = (&x[part.clone()], y.part(part).as_mut_ptr());
                        for (to, from) in padded.chunks_exact_mut(wide).zip(x.chunks_exact(c)) {
                            to[before..before + c].copy_from_slice(from);
                        }
                        lines(tier, l, power, padded.as_ptr(), y, x.len() / c);
                    }
                }
            });
        });
        return Ok(());
    }
    let blocks = l.inner.div_ceil(PIXELS);
    let grain = GRAIN.div_ceil(c.saturating_mul(PIXELS.min(l.inner)));
    ranges(pool, l.batch * blocks, grain, &|tasks| {
        for t in tasks {
            let (image, first) = (t / blocks * c * l.inner, t % blocks * PIXELS);
            let n = PIXELS.min(l.inner - first);
            // SAFETY: `n` pixels from `first` on of all planes of an image; tasks have others.
            unsafe {
                let at = image + first;
                planes(tier, l, power, x.as_ptr().add(at), y.as_mut_ptr().add(at), n);
            }
        }
    });
    Ok(())
}

tiered! {
    /// Rows of channels, with zeros before and behind.
    ///
    /// # Safety
    /// `x` holds `rows` rows with as many zeros around as windows reach, `y` those without.
    unsafe fn lines<P: Power>(s: S; l: &Lrn, power: P, x: *const f32, y: *mut f32, rows: usize) {
        let ((before, after), c) = (l.reach(), l.channels);
        let taps = before + after + 1;
        for r in 0..rows {
            let (x, y) = (x.add(r * (c + before + after)), y.add(r * c));
            let window = Window { step: 1, taps, own: before };
            along(s, l, power, x, window, y, c);
        }
    }
}

tiered! {
    /// Planes of channels, channel by channel.
    ///
    /// # Safety
    /// `x` and `y` hold `n` elements of each of the channels, `inner` apart.
    unsafe fn planes<P: Power>(s: S; l: &Lrn, power: P, x: *const f32, y: *mut f32, n: usize) {
        let (before, after) = l.reach();
        for c in 0..l.channels {
            let first = c.saturating_sub(before);
            let taps = l.channels.min(c + after + 1) - first;
            let (x, y) = (x.add(first * l.inner), y.add(c * l.inner));
            let window = Window { step: l.inner, taps, own: c - first };
            along(s, l, power, x, window, y, n);
        }
    }
}

/// Elements that one result reads, `step` apart, and which of them it is.
#[derive(Clone, Copy)]
struct Window {
    step: usize,
    taps: usize,
    own: usize,
}

/// # Safety
/// `x` holds the windows of `n` neighbours, `y` as many elements.
#[inline(always)]
unsafe fn along<S: Simd, P: Power>(s: S, l: &Lrn, power: P, x: *const f32, w: Window, y: *mut f32, n: usize) {
    // SAFETY: passed on.
    unsafe {
        match (w.taps, w.own) {
            (3, 1) => windows(s, l, power, x, Window { taps: 3, own: 1, ..w }, y, n),
            (5, 2) => windows(s, l, power, x, Window { taps: 5, own: 2, ..w }, y, n),
            _ => windows(s, l, power, x, w, y, n),
        }
    }
}

/// # Safety
/// As [`along`].
#[inline(always)]
unsafe fn windows<S: Simd, P: Power>(
    s: S,
    l: &Lrn,
    power: P,
    x: *const f32,
    w: Window,
    y: *mut f32,
    n: usize,
) {
    let (scale, bias) = (s.splat(l.scale() as f32), s.splat(l.bias));
    for i in (0..n).step_by(LANES) {
        // SAFETY: the caller's contract; lanes past `n` are neither read nor written.
        unsafe {
            let (at, left) = (x.add(i), n - i);
            let mut squares = s.zero();
            for k in 0..w.taps {
                let v = s.load_up_to(at.add(k * w.step), left);
                squares = s.fma(v, v, squares);
            }
            let own = s.load_up_to(at.add(w.own * w.step), left);
            let sum = s.fma(squares, scale, bias);
            s.store_up_to(y.add(i), power.divided(s, own, sum), left);
            let known = s.select(s.lt(sum, s.splat(MOST)), sum, s.zero());
            if s.any(s.le(known, s.splat(LEAST))) {
                exactly(l, at, w, &s.array(sum), y.add(i), left.min(LANES));
            }
        }
    }
}

/// Writes those of `n` results in `f64` whose sums are out of range.
///
/// # Safety
/// As [`along`].
#[cold]
unsafe fn exactly(l: &Lrn, x: *const f32, w: Window, sums: &[f32; LANES], y: *mut f32, n: usize) {
    for (i, sum) in sums.iter().enumerate().take(n) {
        if *sum > LEAST && *sum < MOST {
            continue;
        }
        // SAFETY: the caller's contract.
        unsafe {
            let at = |k: usize| f64::from(*x.add(i + k * w.step));
            let squares: f64 = (0..w.taps).map(|k| at(k) * at(k)).sum();
            let power = (f64::from(l.bias) + l.scale() * squares).powf(f64::from(l.beta));
            *y.add(i) = (at(w.own) / power) as f32;
        }
    }
}

/// A division by `t^beta`, `t` between [`LEAST`] and [`MOST`].
trait Power: Copy + Sync {
    fn divided<S: Simd>(self, s: S, x: S::F, t: S::F) -> S::F;
}

#[derive(Clone, Copy)]
struct Half;
impl Power for Half {
    #[inline(always)]
    fn divided<S: Simd>(self, s: S, x: S::F, t: S::F) -> S::F {
        s.div(x, s.sqrt(t))
    }
}

#[derive(Clone, Copy)]
struct One;
impl Power for One {
    #[inline(always)]
    fn divided<S: Simd>(self, s: S, x: S::F, t: S::F) -> S::F {
        s.div(x, t)
    }
}

#[derive(Clone, Copy)]
struct ThreeQuarters;
impl Power for ThreeQuarters {
    #[inline(always)]
    fn divided<S: Simd>(self, s: S, x: S::F, t: S::F) -> S::F {
        // y·(1 - h)^-¼ with y a guess by the exponent, h = 1 - t³·y⁴ within ±0.175, and the power as a quotient of
        // parabolas, off by 2e-8: roots would wait for the divider three times as long.
        const GUESS: i32 = 0x6f14_7ae2;
        const ABOVE: [f32; 3] = [1.0, -0.876_656_1, 0.109_805_17];
        const BELOW: [f32; 3] = [1.0, -1.126_655_7, 0.235_219_33];
        let bits = s.bits(t);
        let y = s.of_bits(s.add_i(s.sub_i(s.splat_i(GUESS), bits), s.sar_i::<2>(bits)));
        let (cube, square) = (s.mul(s.mul(t, t), t), s.mul(y, y));
        let h = s.fnma(cube, s.mul(square, square), s.splat(1.0));
        s.div(s.mul(s.mul(x, y), s.poly(h, ABOVE)), s.poly(h, BELOW))
    }
}

#[derive(Clone, Copy)]
struct Other(f32);
impl Power for Other {
    #[inline(always)]
    fn divided<S: Simd>(self, s: S, x: S::F, t: S::F) -> S::F {
        s.mul(x, exp(s, s.mul(s.splat(-self.0), log(s, t))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parallel::Serial;
    use crate::testing::{Two, random};

    fn wanted(l: &Lrn, x: &[f32]) -> Vec<f32> {
        let place = |b: usize, c: usize, i: usize| match l.last {
            true => (b * l.inner + i) * l.channels + c,
            false => (b * l.channels + c) * l.inner + i,
        };
        let mut y = vec![0.0; x.len()];
        for b in 0..l.batch {
            for (c, i) in (0..l.channels).flat_map(|c| (0..l.inner).map(move |i| (c, i))) {
                let near = c.saturating_sub((l.size - 1) / 2)..l.channels.min(c + l.size / 2 + 1);
                let squares: f64 = near.map(|j| f64::from(x[place(b, j, i)]).powi(2)).sum();
                let power = (f64::from(l.bias) + l.scale() * squares).powf(f64::from(l.beta));
                y[place(b, c, i)] = (f64::from(x[place(b, c, i)]) / power) as f32;
            }
        }
        y
    }

    fn close(found: &[f32], wanted: &[f32], about: &dyn std::fmt::Debug) {
        for (i, (f, w)) in found.iter().zip(wanted).enumerate() {
            let near = (f - w).abs() <= 4e-6 * w.abs() || f == w || f.is_nan() && w.is_nan();
            assert!(near, "{about:?}, element {i}: {f} is not {w}");
        }
    }

    #[test]
    fn responses_are_normalised_as_by_definition() {
        for &tier in Tier::available() {
            for (channels, inner) in [(1, 7), (3, 1), (16, 19), (37, 300), (64, 33), (200, 600)] {
                for (size, beta) in
                    [(1, 0.75), (2, 0.5), (3, 0.75), (5, 0.75), (5, 0.6), (8, 1.0), (99, 0.75)]
                {
                    for last in [false, true] {
                        let l = Lrn { batch: 2, channels, inner, last, size, alpha: 0.8, beta, bias: 1.5 };
                        let x: Vec<f32> = random(2 * channels * inner, 1).iter().map(|x| 30.0 * x).collect();
                        let run = |pool: &dyn Pool| {
                            let mut y = vec![f32::NAN; x.len()];
                            lrn(tier, pool, &l, &x, &mut y).unwrap();
                            y
                        };
                        let y = run(&Serial);
                        assert_eq!(y, run(&Two));
                        close(&y, &wanted(&l, &x), &(tier, l));
                    }
                }
            }
        }
    }

    #[test]
    fn sums_out_of_range_are_raised_too() {
        for &tier in Tier::available() {
            for (last, beta, bias) in
                [(false, 0.75, 0.0), (true, 0.75, 0.0), (true, 0.5, 1e-30), (true, 0.6, 2.0)]
            {
                let l = Lrn { batch: 1, channels: 21, inner: 18, last, size: 4, alpha: 1e-4, beta, bias };
                let mut x = random(21 * 18, 3);
                for (i, v) in [1e30, -3e38, 1e-30, 0.0, f32::INFINITY, f32::NAN].into_iter().enumerate() {
                    (0..4).for_each(|k| x[60 * i + k] = v);
                    x[60 * i + 36] = v;
                }
                let run = |pool: &dyn Pool| {
                    let mut y = vec![7.0; x.len()];
                    lrn(tier, pool, &l, &x, &mut y).unwrap();
                    y.iter().map(|y| y.to_bits()).collect::<Vec<_>>()
                };
                let y = run(&Serial);
                assert_eq!(y, run(&Two));
                let y: Vec<f32> = y.into_iter().map(f32::from_bits).collect();
                close(&y, &wanted(&l, &x), &(tier, l));
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let l =
            Lrn { batch: 1, channels: 4, inner: 2, last: false, size: 3, alpha: 1.0, beta: 0.75, bias: 1.0 };
        let run = |l: &Lrn, n: usize| lrn(Tier::best(), &Serial, l, &vec![1.0; n], &mut [0.0; 8]);
        assert!(run(&l, 8).is_ok());
        for last in [false, true] {
            assert!(run(&Lrn { last, size: usize::MAX, ..l }, 8).is_ok());
            assert!(run(&Lrn { last, size: 0, ..l }, 8).is_err());
            assert!(run(&Lrn { last, channels: usize::MAX, ..l }, 8).is_err());
            assert!(lrn(Tier::best(), &Serial, &Lrn { last, inner: 0, ..l }, &[], &mut []).is_ok());
        }
        assert!(run(&l, 7).is_err());
    }
}
