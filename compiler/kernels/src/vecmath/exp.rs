//! exp, expm1 and what is made of them: tanh, sigmoid, softplus, mish, gelu.
//!
//! The argument is split as `n·ln2 + r`, `|r| ≤ ln2/2`; `e^r = 1 + r + r²·q(r)` with `q` a minimax polynomial.

use crate::simd::Simd;

const LOG2_E: f32 = std::f32::consts::LOG2_E;
/// `ln2 = LN2_HI + LN2_LO`; `n · LN2_HI` is exact for every exponent `n`.
pub(super) const LN2_HI: f32 = 355.0 / 512.0;
pub(super) const LN2_LO: f32 = -2.121_944_4e-4;

/// `r` and `n` with `x = n·ln2 + r`.
#[inline(always)]
fn split<S: Simd>(s: S, x: S::F) -> (S::F, S::F) {
    let n = s.round(s.mul(x, s.splat(LOG2_E)));
    let r = s.fnma(n, s.splat(LN2_HI), x);
    (s.fnma(n, s.splat(LN2_LO), r), n)
}

/// `e^x`. Below -103.98 zero, above 88.72 infinity; results below 2^-126 are denormal, rounded once.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::F) -> S::F {
    const Q: [f32; 5] = [0.499_999_94, 0.166_665_21, 0.041_668_262, 0.008_368_671, 0.001_382_099_9];
    let x = s.min(s.splat(89.0), s.max(s.splat(-104.5), x));
    let (r, n) = split(s, x);
    let p = s.fma(s.mul(r, r), s.poly(r, Q), r);
    s.scale2(s.add(p, s.splat(1.0)), n)
}

/// `e^x` of a sum whose largest term is 1: zero where a term would be denormal, which takes a processor a hundred cycles.
#[inline(always)]
pub(crate) fn exp_term<S: Simd>(s: S, x: S::F) -> S::F {
    let least = s.splat(-87.3);
    s.select(s.lt(x, least), s.zero(), exp(s, s.max(least, x)))
}

/// `e^x - 1` for `x ≤ 80`.
#[inline(always)]
pub(crate) fn expm1<S: Simd>(s: S, x: S::F) -> S::F {
    const Q: [f32; 6] = [0.5, 0.166_666_66, 0.041_666_493, 0.008_333_546, 0.001_393_232_1, 0.000_197_617_25];
    let x = s.max(s.splat(-18.0), x);
    let (r, n) = split(s, x);
    let p = s.fma(s.mul(r, r), s.poly(r, Q), r);
    let two_n = s.of_bits(s.shl_i::<23>(s.add_i(s.to_i(n), s.splat_i(127))));
    s.fma(two_n, p, s.sub(two_n, s.splat(1.0)))
}

/// `tanh x = t / (t + 2)`, `t = e^(2|x|) - 1`, with the sign of `x`.
#[inline(always)]
pub(crate) fn tanh<S: Simd>(s: S, x: S::F) -> S::F {
    let (n, d) = tanh_ratio(s, x);
    s.div(n, d)
}

/// Numerator and denominator of [`tanh`].
#[inline(always)]
pub(crate) fn tanh_ratio<S: Simd>(s: S, x: S::F) -> (S::F, S::F) {
    let a = s.min(s.splat(10.0), s.abs(x));
    let t = expm1(s, s.add(a, a));
    (s.xor_sign(t, x), s.add(t, s.splat(2.0)))
}

/// `1 / (1 + e^-x)`, computed from `e^-|x|` so that no side overflows.
#[inline(always)]
pub(crate) fn sigmoid<S: Simd>(s: S, x: S::F) -> S::F {
    let (n, d) = sigmoid_ratio(s, x);
    s.div(n, d)
}

/// Numerator and denominator of [`sigmoid`].
#[inline(always)]
pub(crate) fn sigmoid_ratio<S: Simd>(s: S, x: S::F) -> (S::F, S::F) {
    let one = s.splat(1.0);
    let e = exp(s, s.neg(s.abs(x)));
    (s.select(s.lt(x, s.zero()), e, one), s.add(one, e))
}

/// `x · sigmoid(u)`: the error is at most `2.5e-7·|x|` where `u` is right to `1e-7·|u|`.
///
/// What is small beside 1 needs no digits of its own, so the exponential is `2^t` with `t` rounded once, and the quotient a
/// product with a reciprocal.
#[inline(always)]
pub(crate) fn gated<S: Simd>(s: S, x: S::F, u: S::F) -> S::F {
    /// `2^f = 1 + f·q(f)` for `|f| ≤ ½`, to 9e-8.
    const Q: [f32; 5] = [0.693_146_94, 0.240_222_32, 0.055_507_794, 0.009_671_999, 0.001_325_460_3];
    // Beside it a number below 2^22 has no digits behind the point, and stands in the low bits.
    const WHOLE: f32 = 12_582_912.0;
    let t = s.max(s.splat(-126.0), s.mul(u, s.splat(-LOG2_E)));
    let m = s.add(t, s.splat(WHOLE));
    let f = s.sub(t, s.sub(m, s.splat(WHOLE)));
    let p = s.fma(s.poly(f, Q), f, s.splat(1.0));
    let e = s.of_bits(s.add_i(s.bits(p), s.shl_i::<23>(s.bits(m))));
    // Zero where the power does not fit: infinity times it is no number.
    let sigmoid = s.select(s.lt(t, s.splat(127.5)), s.reciprocal(s.add(e, s.splat(1.0))), s.zero());
    s.mul(x, sigmoid)
}

/// `x · sigmoid(x)`.
#[inline(always)]
pub(crate) fn silu<S: Simd>(s: S, x: S::F) -> S::F {
    gated(s, x, x)
}

/// `x · tanh(ln(1 + e^x)) = x · n / (n + 2)`, `n = e^x (e^x + 2)`.
#[inline(always)]
pub(crate) fn mish<S: Simd>(s: S, x: S::F) -> S::F {
    let two = s.splat(2.0);
    let e = exp(s, s.min(s.splat(20.0), x));
    let n = s.mul(e, s.add(e, two));
    s.mul(x, s.div(n, s.add(n, two)))
}

/// `½x (1 + tanh(√(2/π) (x + 0.044715 x³)))`, as `x · sigmoid(2·…)`.
#[inline(always)]
pub(crate) fn gelu_tanh<S: Simd>(s: S, x: S::F) -> S::F {
    const A: f32 = 1.595_769;
    const B: f32 = 0.071_354_814;
    gated(s, x, s.mul(x, s.fma(s.mul(x, x), s.splat(B), s.splat(A))))
}

/// `sinh x`, from `t = e^|x| - 1` below 1 and halved exponentials above.
#[inline(always)]
pub(crate) fn sinh<S: Simd>(s: S, x: S::F) -> S::F {
    let a = s.abs(x);
    let half = s.splat(0.5);
    let t = expm1(s, s.min(s.splat(1.5), a));
    let near = s.mul(half, s.add(t, s.div(t, s.add(t, s.splat(1.0)))));
    let (e, inv) = half_exp(s, a);
    s.xor_sign(s.select(s.lt(a, s.splat(1.0)), near, s.sub(e, inv)), x)
}

/// `cosh x`.
#[inline(always)]
pub(crate) fn cosh<S: Simd>(s: S, x: S::F) -> S::F {
    let (e, inv) = half_exp(s, s.abs(x));
    s.add(e, inv)
}

/// `½e^a` and `½e^-a` for `a ≥ 0`, finite up to the overflow of the first.
#[inline(always)]
fn half_exp<S: Simd>(s: S, a: S::F) -> (S::F, S::F) {
    let half = s.splat(0.5);
    let e = exp(s, s.mul(half, a));
    let far = s.mul(s.mul(half, e), e);
    let near = s.mul(half, exp(s, a));
    let e = s.select(s.lt(a, s.splat(88.0)), near, far);
    (e, s.div(s.splat(0.25), e))
}
