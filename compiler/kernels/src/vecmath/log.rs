//! log, log1p of an exponential, softplus.
//!
//! `x = 2^k·(1 + f)` with `1 + f` in `[√½, √2)`; `ln(1 + f) = f - f²/2 + f³·P(f)` with `P` a minimax polynomial.

use super::exp::{LN2_HI, LN2_LO, exp};
use crate::simd::Simd;

const P: [f32; 9] = [
    0.333_333_13,
    -0.250_000_1,
    0.200_020_78,
    -0.166_68,
    0.142_201_75,
    -0.124_058_44,
    0.118_848_47,
    -0.116_735,
    0.067_502_8,
];

/// `ln(1 + f) + k·ln2`.
#[inline(always)]
fn assemble<S: Simd>(s: S, f: S::F, k: S::F) -> S::F {
    let ff = s.mul(f, f);
    let y = s.mul(s.mul(ff, f), s.poly(f, P));
    let y = s.fma(k, s.splat(LN2_LO), y);
    let y = s.fnma(s.splat(0.5), ff, y);
    s.fma(k, s.splat(LN2_HI), s.add(f, y))
}

/// `ln x`: -∞ at ±0, NaN below, +∞ at +∞; denormals are scaled up first.
#[inline(always)]
pub(crate) fn log<S: Simd>(s: S, x: S::F) -> S::F {
    let tiny = s.lt(x, s.splat(f32::MIN_POSITIVE));
    let scaled = s.select(tiny, s.mul(x, s.splat(8388608.0)), x);
    let shift = s.select(tiny, s.splat(-23.0), s.zero());
    let root_half = s.splat_i(std::f32::consts::FRAC_1_SQRT_2.to_bits() as i32);
    let k = s.sar_i::<23>(s.sub_i(s.bits(scaled), root_half));
    let m = s.of_bits(s.sub_i(s.bits(scaled), s.shl_i::<23>(k)));
    let y = assemble(s, s.sub(m, s.splat(1.0)), s.add(s.to_f(k), shift));
    let y = s.select(s.eq(x, s.zero()), s.splat(f32::NEG_INFINITY), y);
    let y = s.select(s.lt(x, s.zero()), s.splat(f32::NAN), y);
    let y = s.select(s.eq(x, s.splat(f32::INFINITY)), x, y);
    s.select(s.is_nan(x), x, y)
}

/// `ln(1 + e)` for `e` in `[0, 1]`.
#[inline(always)]
fn log1p_unit<S: Simd>(s: S, e: S::F) -> S::F {
    let half = s.splat(0.5);
    let above = s.lt(s.splat(std::f32::consts::SQRT_2 - 1.0), e);
    let f = s.select(above, s.fma(e, half, s.neg(half)), e);
    assemble(s, f, s.select(above, s.splat(1.0), s.zero()))
}

/// `ln(1 + e^x) = max(x, 0) + ln(1 + e^-|x|)`.
#[inline(always)]
pub(crate) fn softplus<S: Simd>(s: S, x: S::F) -> S::F {
    let e = exp(s, s.neg(s.abs(x)));
    s.add(s.max(s.zero(), x), log1p_unit(s, e))
}
