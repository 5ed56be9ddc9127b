//! sin, cos and tan: `x = k·π/2 + r` by Cody and Waite's reduction, a minimax polynomial for `|r| ≤ π/4`.

use crate::simd::{LANES, Simd};

/// Arguments beyond this are reduced one by one, in double precision.
const FAR: f32 = 12_800.0;

/// π/2 in parts of 11 bits, so that products with `k < 2^13` are exact, and a last of 24.
const HALF_PI: [f32; 5] = [1.570_312_5, 4.837_513e-4, 7.549_533_6e-8, 2.563_283e-12, 6.123_234e-17];

/// `sin` and `cos` of `x` reduced to the octant, and the quadrant.
#[inline(always)]
fn octant<S: Simd>(s: S, x: S::F) -> (S::F, S::F, S::I) {
    const SIN: [f32; 3] = [-0.166_666_55, 0.008_332_187, -0.000_195_179_09];
    const COS: [f32; 3] = [0.041_666_646, -0.001_388_731, 2.443_233_6e-5];
    let k = s.round(s.mul(x, s.splat(std::f32::consts::FRAC_2_PI)));
    let mut r = x;
    for part in HALF_PI {
        r = s.fnma(k, s.splat(part), r);
    }
    let z = s.mul(r, r);
    let sin = s.fma(s.mul(r, z), s.poly(z, SIN), r);
    let cos = s.fma(s.mul(z, z), s.poly(z, COS), s.fnma(s.splat(0.5), z, s.splat(1.0)));
    (sin, cos, s.to_i(k))
}

/// Sine `shift` quadrants further.
#[inline(always)]
fn turn<S: Simd>(s: S, sin: S::F, cos: S::F, k: S::I, shift: i32) -> S::F {
    let k = s.add_i(k, s.splat_i(shift));
    let odd = s.eq(s.to_f(s.and_i(k, s.splat_i(1))), s.splat(1.0));
    let sign = s.of_bits(s.shl_i::<30>(s.and_i(k, s.splat_i(2))));
    s.xor_sign(s.select(odd, cos, sin), sign)
}

/// `fast` unless a lane is far from zero, infinite or NaN; those lanes take `slow`.
#[inline(always)]
fn guarded<S: Simd>(s: S, x: S::F, fast: S::F, slow: fn(f64) -> f64) -> S::F {
    let near = s.le(s.abs(x), s.splat(FAR));
    let far = s.select(near, s.zero(), s.splat(1.0));
    if !s.any(s.eq(far, s.splat(1.0))) {
        return fast;
    }
    let (xs, mut ys) = (s.array(x), s.array(fast));
    for i in 0..LANES {
        let outside = xs[i].is_nan() || xs[i].abs() > FAR;
        if outside {
            ys[i] = slow(f64::from(xs[i])) as f32;
        }
    }
    // SAFETY: `ys` holds 16 lanes.
    unsafe { s.load(ys.as_ptr()) }
}

/// `sin x`; NaN at ±∞.
#[inline(always)]
pub(crate) fn sin<S: Simd>(s: S, x: S::F) -> S::F {
    let (sin, cos, k) = octant(s, x);
    // The sign of zero is lost in the reduction's last subtraction.
    let y = s.select(s.eq(x, s.zero()), x, turn(s, sin, cos, k, 0));
    guarded(s, x, y, f64::sin)
}

/// `cos x`; NaN at ±∞.
#[inline(always)]
pub(crate) fn cos<S: Simd>(s: S, x: S::F) -> S::F {
    let (sin, cos, k) = octant(s, x);
    guarded(s, x, turn(s, sin, cos, k, 1), f64::cos)
}

/// `tan x`; NaN at ±∞.
#[inline(always)]
pub(crate) fn tan<S: Simd>(s: S, x: S::F) -> S::F {
    let (sin, cos, k) = octant(s, x);
    let y = s.div(turn(s, sin, cos, k, 0), turn(s, sin, cos, k, 1));
    guarded(s, x, s.select(s.eq(x, s.zero()), x, y), f64::tan)
}
