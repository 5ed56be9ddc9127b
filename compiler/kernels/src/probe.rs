//! What this CPU can do at most, measured: the roofs that kernels are compared with.

use crate::dispatch::Tier;
use crate::simd::{LANES, Simd, tiered};
use std::hint::black_box;
use std::time::Instant;

/// Steps of one timed loop: some tens of microseconds.
const STEPS: usize = 10_000;
/// Runs of which the fastest counts.
const RUNS: usize = 24;

/// Floating-point operations a second of fused multiply-adds in registers, on the calling thread.
pub fn peak_f32(tier: Tier) -> f64 {
    // SAFETY: registers only.
    rate(2 * LANES, chains(tier), || unsafe { black_box(multiply_adds(tier)) })
}

/// Operations a second of products of bytes in registers, or of the tile unit where it is there; a multiplication and an
/// addition counted as two.
pub fn peak_i8(tier: Tier) -> f64 {
    // SAFETY: registers only.
    let vectors = rate(8 * LANES, chains(tier), || unsafe { black_box(dots(tier)) });
    vectors.max(tiles(tier))
}

#[cfg(target_arch = "x86_64")]
fn tiles(tier: Tier) -> f64 {
    const TURNS: usize = 256;
    if !crate::amx::usable(tier) {
        return 0.0;
    }
    // SAFETY: the unit is usable, and this thread is in no kernel.
    (TURNS * crate::amx::TURN) as f64 / best(RUNS, || unsafe { crate::amx::turn(black_box(TURNS)) as f32 })
}

#[cfg(not(target_arch = "x86_64"))]
fn tiles(_: Tier) -> f64 {
    0.0
}

/// Bytes a second that one thread reads from `data`, which stays in the cache its size fits in.
pub fn read_bandwidth(tier: Tier, data: &[f32]) -> f64 {
    // SAFETY: the pointer and length are those of the slice.
    let read = || unsafe { black_box(sum(tier, data.as_ptr(), data.len())) };
    let runs = ((1 << 22) / data.len().max(1)).clamp(2, 64);
    size_of_val(data) as f64 / best(runs, read)
}

/// Bytes a second that one thread reads from `from` and writes to `to`, of the same length.
pub fn copy_bandwidth(from: &[f32], to: &mut [f32]) -> f64 {
    let n = from.len().min(to.len());
    let runs = ((1 << 22) / n.max(1)).clamp(2, 64);
    8.0 * n as f64
        / best(runs, || {
            to[..n].copy_from_slice(black_box(&from[..n]));
            black_box(to[0])
        })
}

/// Independent sums: enough to hide the latency of a step, few enough for the registers.
fn chains(tier: Tier) -> usize {
    if tier.usable() == Tier::Avx512 { 12 } else { 6 }
}

fn rate(operations: usize, chains: usize, f: impl FnMut() -> f32) -> f64 {
    (operations * chains * STEPS) as f64 / best(RUNS, f)
}

/// Seconds of the fastest of some runs.
fn best(runs: usize, mut f: impl FnMut() -> f32) -> f64 {
    let mut least = f64::INFINITY;
    for _ in 0..runs {
        let t = Instant::now();
        black_box(f());
        least = least.min(t.elapsed().as_secs_f64());
    }
    least
}

#[inline(always)]
fn multiply_chains<S: Simd, const N: usize>(s: S) -> f32 {
    let (x, y) = (s.splat(black_box(0.999)), s.splat(black_box(0.001)));
    let mut acc = [y; N];
    for _ in 0..STEPS {
        for a in &mut acc {
            *a = s.fma(*a, x, y);
        }
    }
    s.sum(acc.into_iter().fold(s.zero(), |t, a| s.add(t, a)))
}

#[inline(always)]
fn dot_chains<S: Simd, const N: usize>(s: S) -> f32 {
    let (x, y) = (s.splat_i(black_box(0x0102_0304)), s.splat_i(black_box(0x0403_0201)));
    let mut acc = [y; N];
    for _ in 0..STEPS {
        for a in &mut acc {
            *a = s.dot(*a, x, y);
        }
    }
    s.sum(acc.into_iter().fold(s.zero(), |t, a| s.add(t, s.to_f(a))))
}

tiered! {
    /// # Safety
    /// Touches registers only.
    unsafe fn multiply_adds(s: S;) -> f32 {
        if S::WIDE { multiply_chains::<S, 12>(s) } else { multiply_chains::<S, 6>(s) }
    }
}

tiered! {
    /// # Safety
    /// Touches registers only.
    unsafe fn dots(s: S;) -> f32 {
        if S::WIDE { dot_chains::<S, 12>(s) } else { dot_chains::<S, 6>(s) }
    }
}

tiered! {
    /// # Safety
    /// `p` is valid for reading `n` elements.
    unsafe fn sum(s: S; p: *const f32, n: usize) -> f32 {
        const AT_ONCE: usize = 8;
        let mut acc = [s.splat_i(0); AT_ONCE];
        for i in (0..n / (AT_ONCE * LANES)).map(|i| i * AT_ONCE * LANES) {
            for (v, a) in acc.iter_mut().enumerate() {
                *a = s.xor_i(*a, s.bits(s.load(p.add(i + v * LANES))));
            }
        }
        s.sum(acc.into_iter().fold(s.zero(), |t, a| s.add(t, s.of_bits(a))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tier_has_roofs() {
        let data = vec![1.0; 1 << 12];
        for &tier in Tier::available() {
            for rate in [peak_f32(tier), peak_i8(tier), read_bandwidth(tier, &data)] {
                assert!(rate.is_finite() && rate > 1e8, "{tier:?}: {rate}");
            }
        }
        assert!(copy_bandwidth(&data, &mut vec![0.0; 1 << 12]) > 1e8);
    }
}
