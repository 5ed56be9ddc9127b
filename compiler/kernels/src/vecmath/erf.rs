//! erf and the exact gelu.

use super::exp::exp;
use crate::simd::Simd;

/// `erf x`: `x + x·R(x²)` for `|x| < 1`, else `1 - e^(-t·Q(t))`, `t = |x|`, with the sign of `x`.
#[inline(always)]
pub(crate) fn erf<S: Simd>(s: S, x: S::F) -> S::F {
    const R: [f32; 6] =
        [0.128_379_12, -0.376_123_22, 0.112_801_515, -0.026_710_577, 0.004_916_755_5, -0.000_562_834_26];
    const Q: [f32; 7] = [
        1.128_665_7,
        0.635_082_07,
        0.106_350_51,
        -0.023_859_229,
        0.003_688_090_2,
        -0.000_333_956_65,
        1.233_918_3e-5,
    ];
    let t = s.min(s.splat(4.0), s.abs(x));
    let near = s.fma(x, s.poly(s.mul(x, x), R), x);
    let far = s.sub(s.splat(1.0), exp(s, s.neg(s.mul(t, s.poly(t, Q)))));
    s.select(s.lt(t, s.splat(1.0)), near, s.xor_sign(far, x))
}

/// `½x (1 + erf(x/√2))`.
#[inline(always)]
pub(crate) fn gelu<S: Simd>(s: S, x: S::F) -> S::F {
    let e = erf(s, s.mul(x, s.splat(std::f32::consts::FRAC_1_SQRT_2)));
    s.mul(s.mul(x, s.splat(0.5)), s.add(e, s.splat(1.0)))
}
