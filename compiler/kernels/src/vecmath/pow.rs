//! pow: exponents that are a few multiplications away go that way; the rest through `2^(y·log2 x)` in `f64`.

use crate::simd::{LANES, Simd, tiered};

/// `x^y` for positive normal `x` and finite `y`, else what the platform's `powf` says.
#[inline(always)]
fn pow_lanes(x: &[f32; LANES], y: &[f32; LANES], out: &mut [f32; LANES]) {
    let mut plain = true;
    for i in 0..LANES {
        plain &= (x[i] >= f32::MIN_POSITIVE) & (x[i] < f32::INFINITY) & (y[i].abs() < f32::INFINITY);
    }
    for i in 0..LANES {
        out[i] = pow_positive(x[i], y[i]);
    }
    if !plain {
        for i in 0..LANES {
            out[i] = x[i].powf(y[i]);
        }
    }
}

/// Branch-free, no fused operations: every tier gives the same bits.
#[inline(always)]
fn pow_positive(x: f32, y: f32) -> f32 {
    const ROOT_HALF: u32 = 0x3f35_04f3;
    let k = (x.to_bits().wrapping_sub(ROOT_HALF) as i32) >> 23;
    let m = f64::from(f32::from_bits(x.to_bits().wrapping_sub((k as u32) << 23)));
    // atanh series: ln m = 2(t + t³/3 + …), |t| ≤ 0.172
    let t = (m - 1.0) / (m + 1.0);
    let u = t * t;
    let series = 1.0
        + u * (1.0 / 3.0
            + u * (1.0 / 5.0
                + u * (1.0 / 7.0 + u * (1.0 / 9.0 + u * (1.0 / 11.0 + u * (1.0 / 13.0 + u / 15.0))))));
    let log2 = f64::from(k) + 2.0 * std::f64::consts::LOG2_E * t * series;
    let e = f64::from(y) * log2;
    let e = if e > 200.0 { 200.0 } else { e };
    let e = if e < -200.0 { -200.0 } else { e };
    const MAGIC: f64 = 6755399441055744.0; // 1.5·2^52: adding it rounds to an integer, kept in the low bits
    let shifted = e + MAGIC;
    let r = (e - (shifted - MAGIC)) * std::f64::consts::LN_2;
    let p = 1.0
        + r * (1.0
            + r * (0.5
                + r * (1.0 / 6.0
                    + r * (1.0 / 24.0
                        + r * (1.0 / 120.0 + r * (1.0 / 720.0 + r * (1.0 / 5040.0 + r / 40320.0)))))));
    let two_n = f64::from_bits(shifted.to_bits().wrapping_add(1023) << 52);
    (p * two_n) as f32
}

tiered! {
    /// `out[i] = x[i·dx]^y[i·dy]`, strides 0 or 1.
    ///
    /// # Safety
    /// `x`, `y` and `out` are valid for the `n` elements their strides reach.
    pub(super) unsafe fn pow_pairs(s: S; x: *const f32, dx: usize, y: *const f32, dy: usize, out: *mut f32, n: usize) {
        let fill = |p: *const f32, d: usize, i: usize| if d == 0 { s.splat(*p) } else { s.load_up_to(p.add(i), n - i) };
        let mut i = 0;
        while i < n {
            let mut z = [0.0; LANES];
            pow_lanes(&s.array(fill(x, dx, i)), &s.array(fill(y, dy, i)), &mut z);
            s.store_up_to(out.add(i), s.load(z.as_ptr()), n - i);
            i += LANES;
        }
    }
}

/// `x^y` for one exponent of few multiplications; `None` for the others.
#[derive(Clone, Copy)]
pub(super) enum Easy {
    One,
    X,
    Square,
    Cube,
    Fourth,
    Inverse,
    InverseSquare,
}

impl Easy {
    pub(super) fn of(y: f32) -> Option<Easy> {
        Some(match y {
            0.0 => Easy::One,
            1.0 => Easy::X,
            2.0 => Easy::Square,
            3.0 => Easy::Cube,
            4.0 => Easy::Fourth,
            -1.0 => Easy::Inverse,
            -2.0 => Easy::InverseSquare,
            _ => return None,
        })
    }
}

impl super::Map for Easy {
    #[inline(always)]
    fn map<S: Simd>(self, s: S, x: S::F) -> S::F {
        let one = s.splat(1.0);
        let xx = s.mul(x, x);
        match self {
            Easy::One => one,
            Easy::X => x,
            Easy::Square => xx,
            Easy::Cube => s.mul(xx, x),
            Easy::Fourth => s.mul(xx, xx),
            Easy::Inverse => s.div(one, x),
            Easy::InverseSquare => s.div(one, xx),
        }
    }
}
