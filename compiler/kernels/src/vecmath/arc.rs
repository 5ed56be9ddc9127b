//! Inverse trigonometric functions, by an odd minimax polynomial for the arctangent of `[0, 1]`; beyond it `π/2 - arctan 1/x`.

use crate::simd::Simd;

/// `(arctan(x)/x - 1) / x²` in `x²`.
const P: [f32; 9] = [
    -0.333_333,
    0.199_985_49,
    -0.142_642_42,
    0.109_521_86,
    -0.084_034_495,
    0.057_957_582,
    -0.031_177_834,
    0.010_914_6,
    -0.001_793_620_3,
];

/// π/2, and what is lost of it in single precision.
const HALF_PI: [f32; 2] = [std::f32::consts::FRAC_PI_2, -4.371_139e-8];

/// `arctan x`.
#[inline(always)]
pub(crate) fn atan<S: Simd>(s: S, x: S::F) -> S::F {
    let a = s.abs(x);
    let far = s.lt(s.splat(1.0), a);
    let t = s.select(far, s.div(s.splat(1.0), a), a);
    let z = s.mul(t, t);
    let y = s.fma(s.mul(t, z), s.poly(z, P), t);
    let rest = s.sub(s.splat(HALF_PI[0]), s.sub(y, s.splat(HALF_PI[1])));
    s.xor_sign(s.select(far, rest, y), x)
}

/// `arcsin x`; NaN outside `[-1, 1]`.
#[inline(always)]
pub(crate) fn asin<S: Simd>(s: S, x: S::F) -> S::F {
    let one = s.splat(1.0);
    let leg = s.sqrt(s.mul(s.sub(one, x), s.add(one, x)));
    let y = atan(s, s.div(x, leg));
    s.select(s.is_nan(x), x, y)
}

/// `arccos x`; NaN outside `[-1, 1]`.
#[inline(always)]
pub(crate) fn acos<S: Simd>(s: S, x: S::F) -> S::F {
    let one = s.splat(1.0);
    let half = atan(s, s.sqrt(s.div(s.sub(one, x), s.add(one, x))));
    s.select(s.is_nan(x), x, s.add(half, half))
}
