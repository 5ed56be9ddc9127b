//! kernel: means and largest elements of quantized images. Both are exact, so any tier and any number of threads gives the
//! same bits.

use crate::conv_shape::{Window, pixels};
use crate::convert::Quantized;
use crate::dispatch::Tier;
use crate::error::{Error, product, same_length};
use crate::parallel::Pool;
use crate::partition::{GRAIN, Parts, ranges};
use crate::simd::{LANES, tiered};

/// What bytes stand for: `(byte − zero) · scale`, read as `i8` or `u8`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dequantization {
    pub signed: bool,
    pub zero: i32,
    pub scale: f32,
}

crate::fields! { Dequantization { signed, zero, scale } }

/// Channels whose sums are made together.
const BLOCK: usize = 64;
/// Most positions whose sums are sure to fit.
pub const MOST_POSITIONS: usize = 1 << 22;

/// The mean of each channel of each image: `x` is `[batch, positions, channels]`, `y` `[batch, channels]`.
pub fn global_average_i8(
    tier: Tier,
    pool: &dyn Pool,
    by: Dequantization,
    [batch, positions, channels]: [usize; 3],
    x: &[u8],
    y: &mut [f32],
) -> Result<(), Error> {
    let what = "an image leaves the address space";
    same_length("pooled bytes", product(what, &[batch, positions, channels])?, x.len())?;
    same_length("pooled means", product(what, &[batch, channels])?, y.len())?;
    if positions == 0 || positions > MOST_POSITIONS {
        return Err(Error::Shape { what: "the mean of no bytes, or of too many" });
    }
    let blocks = channels.div_ceil(BLOCK);
    let means = Parts::of(y);
    ranges(pool, batch * blocks, GRAIN.div_ceil(positions * BLOCK), &|range| {
        for i in range {
            let (image, first) = (i / blocks, i % blocks * BLOCK);
            let live = BLOCK.min(channels - first);
            let start = image * positions * channels + first;
            let mut sums = [0i32; BLOCK];
            // SAFETY: the slices hold what was checked; blocks have means of their own.
            unsafe {
                match by.signed {
                    true => add::<i8>(
                        tier,
                        bytemuck::cast_slice(&x[start..]),
                        channels,
                        positions,
                        &mut sums[..live],
                    ),
                    false => add::<u8>(tier, &x[start..], channels, positions, &mut sums[..live]),
                }
                let to = image * channels + first;
                for (y, sum) in means.part(to..to + live).iter_mut().zip(sums) {
                    *y = (i64::from(sum) - i64::from(by.zero) * positions as i64) as f32 * by.scale
                        / positions as f32;
                }
            }
        }
    });
    Ok(())
}

tiered! {
    /// Adds the first bytes of `rows` rows at distance `step` to `sums`.
    ///
    /// # Safety
    /// None beyond the tier's.
    unsafe fn add<B: Quantized>(s: S; x: &[B], step: usize, rows: usize, sums: &mut [i32]) {
        let _ = s;
        for row in x.chunks(step).take(rows) {
            // All of a block, where the compiler knows how many.
            if let (Some(sums), Some(row)) = (sums.first_chunk_mut::<BLOCK>(), row.first_chunk::<BLOCK>()) {
                for (sum, &x) in sums.iter_mut().zip(row) {
                    *sum += Into::<i32>::into(x);
                }
            } else {
                for (sum, &x) in sums.iter_mut().zip(row) {
                    *sum += Into::<i32>::into(x);
                }
            }
        }
    }
}

/// The largest byte under each window, padding apart, read as `i8` or `u8`: `x` is `[batch, D, H, W, channels]`, `y` as the
/// window's output. A window without an element gives the lowest byte.
pub fn max_pool_i8(
    tier: Tier,
    pool: &dyn Pool,
    window: &Window,
    signed: bool,
    [batch, channels]: [usize; 2],
    x: &[u8],
    y: &mut [u8],
) -> Result<(), Error> {
    window.check()?;
    let what = "the sizes leave the address space";
    let rows = product(what, &[batch, pixels(window.output)?])?;
    same_length("pooled bytes", product(what, &[batch, pixels(window.input)?, channels])?, x.len())?;
    same_length("largest bytes", product(what, &[rows, channels])?, y.len())?;
    if rows == 0 || channels == 0 {
        return Ok(());
    }
    let taps = pixels(window.kernel)?;
    let parts = Parts::of(y);
    ranges(pool, rows, (4 * GRAIN).div_ceil(channels.saturating_mul(taps)), &|range| {
        // SAFETY: tasks have rows of their own.
        let y = unsafe { parts.part(range.start * channels..range.end * channels) };
        // SAFETY: nothing beyond the tier, which is one of the CPU's.
        unsafe {
            match signed {
                true => largest::<i8>(
                    tier,
                    window,
                    range.start,
                    channels,
                    bytemuck::cast_slice(x),
                    bytemuck::cast_slice_mut(y),
                ),
                false => largest::<u8>(tier, window, range.start, channels, x, y),
            }
        }
    });
    Ok(())
}

/// The first pixel under a window, and how many there are along each axis and how far apart.
struct Field {
    corner: usize,
    count: [usize; 3],
    step: [usize; 3],
}

tiered! {
    /// Rows of the output from `first` on.
    ///
    /// # Safety
    /// None beyond the tier's.
    unsafe fn largest<B: Quantized>(s: S; w: &Window, first: usize, channels: usize, x: &[B], y: &mut [B]) {
        let _ = s;
        let step = [w.input[1] * w.input[2], w.input[2], 1];
        let step = std::array::from_fn(|i| step[i].saturating_mul(w.dilation[i]));
        for (row, y) in (first..).zip(y.chunks_exact_mut(channels)) {
            let (image, d, h) = w.line(row / w.output[2]);
            let [(d, depth), (h, height), (v, width)] = [w.span(0, d), w.span(1, h), w.span(2, row % w.output[2])];
            let corner = ((image * w.input[0] + d) * w.input[1] + h) * w.input[2] + v;
            let field = Field { corner, count: [depth, height, width], step };
            let mut c = 0;
            while c + BLOCK <= channels {
                block::<B, BLOCK>(&field, channels, c, x, y);
                c += BLOCK;
            }
            while c + LANES <= channels {
                block::<B, LANES>(&field, channels, c, x, y);
                c += LANES;
            }
            // The last ones again, with those that are left.
            match channels {
                _ if c == channels => {}
                LANES.. => block::<B, LANES>(&field, channels, channels - LANES, x, y),
                _ => (c..channels).for_each(|c| block::<B, 1>(&field, channels, c, x, y)),
            }
        }
    }
}

/// The largest bytes of `N` channels from `c` on.
#[inline(always)]
fn block<B: Quantized, const N: usize>(f: &Field, channels: usize, c: usize, x: &[B], y: &mut [B]) {
    let mut most = [B::of(B::LOW); N];
    for d in 0..f.count[0] {
        for h in 0..f.count[1] {
            for w in 0..f.count[2] {
                let pixel = f.corner + d * f.step[0] + h * f.step[1] + w * f.step[2];
                if let Some(x) = x.get(pixel * channels + c..).and_then(|x| x.first_chunk::<N>()) {
                    most.iter_mut().zip(x).for_each(|(m, &x)| *m = (*m).max(x));
                }
            }
        }
    }
    y[c..c + N].copy_from_slice(&most);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parallel::Serial;
    use crate::testing::{Two, bytes, int};

    #[test]
    fn means_are_those_of_the_values() {
        for (batch, positions, channels) in [(1, 1, 1), (2, 49, 3), (1, 400, 64), (3, 10, 150)] {
            let x = bytes(batch * positions * channels, 5);
            for (signed, zero) in [(false, 0), (false, 131), (true, -7)] {
                let by = Dequantization { signed, zero, scale: 0.03 };
                let mean = |i: usize| {
                    let at = |p: usize| x[(i / channels * positions + p) * channels + i % channels];
                    let sum: i64 = (0..positions).map(|p| i64::from(int(at(p), signed) - zero)).sum();
                    sum as f64 * 0.03 / positions as f64
                };
                for &tier in Tier::available() {
                    for pool in [&Serial as &dyn Pool, &Two] {
                        let mut y = vec![7.0; batch * channels];
                        global_average_i8(tier, pool, by, [batch, positions, channels], &x, &mut y).unwrap();
                        for (i, &y) in y.iter().enumerate() {
                            assert!((f64::from(y) - mean(i)).abs() < 1e-5, "{tier:?} {i} {y} {}", mean(i));
                        }
                    }
                }
            }
        }
        let by = Dequantization { signed: false, zero: 0, scale: 1.0 };
        let none = global_average_i8(Tier::best(), &Serial, by, [1, 0, 2], &[], &mut [0.0; 2]);
        assert!(none.is_err());
    }

    #[test]
    fn largest_bytes_are_those_under_the_window() {
        let of = |input: [usize; 3], output, kernel, stride, dilation, pad| Window {
            input,
            output,
            kernel,
            stride,
            dilation,
            pad,
        };
        let windows = [
            of([1, 5, 7], [1, 3, 4], [1, 3, 3], [1, 2, 2], [1; 3], [0, 1, 1]),
            of([2, 4, 9], [2, 4, 9], [2, 5, 1], [1; 3], [1; 3], [0, 2, 0]),
            of([1, 1, 12], [1, 1, 4], [1, 1, 3], [1, 1, 3], [1, 1, 2], [0, 0, 2]),
            // A window that meets nothing.
            of([1, 1, 2], [1, 1, 3], [1, 1, 1], [1, 1, 4], [1; 3], [0, 0, 4]),
        ];
        for w in windows {
            for channels in [1, 3, 16, 67, 150] {
                let [positions, outputs] = [w.input, w.output].map(|n| n.iter().product::<usize>());
                let x = bytes(2 * positions * channels, 3);
                for signed in [false, true] {
                    let want = (0..2 * outputs * channels).map(|i| {
                        let (c, o, image) = (i % channels, i / channels % outputs, i / channels / outputs);
                        let o =
                            [o / w.output[2] / w.output[1], o / w.output[2] % w.output[1], o % w.output[2]];
                        let [k0, k1, k2] = w.kernel;
                        let taps = (0..k0 * k1 * k2).map(|k| [k / k2 / k1, k / k2 % k1, k % k2]);
                        let found = taps.filter_map(|k| {
                            let at: Vec<usize> =
                                (0..3).map(|i| w.source(i, o[i], k[i])).collect::<Option<_>>()?;
                            let p = ((image * w.input[0] + at[0]) * w.input[1] + at[1]) * w.input[2] + at[2];
                            Some(int(x[p * channels + c], signed))
                        });
                        found.max().unwrap_or(if signed { -128 } else { 0 }) as u8
                    });
                    let want: Vec<u8> = want.collect();
                    for &tier in Tier::available() {
                        for pool in [&Serial as &dyn Pool, &Two] {
                            let mut y = vec![7; want.len()];
                            max_pool_i8(tier, pool, &w, signed, [2, channels], &x, &mut y).unwrap();
                            assert_eq!(y, want, "{tier:?} {w:?} {channels}");
                        }
                    }
                }
                let short = max_pool_i8(Tier::best(), &Serial, &w, false, [3, channels], &x, &mut []);
                assert!(short.is_err());
            }
        }
    }
}
