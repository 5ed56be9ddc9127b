//! kernel: means of quantized images. Sums of bytes are exact, so any tier and any number of threads gives the same bits.

use crate::convert::Quantized;
use crate::dispatch::Tier;
use crate::error::{Error, product, same_length};
use crate::parallel::Pool;
use crate::partition::{GRAIN, Parts, ranges};
use crate::simd::tiered;

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
}
