//! Conversion between f32 and the 8- and 4-bit float formats of the ONNX specification.

use crate::DType;

/// Layout of a small float format.
#[derive(Clone, Copy)]
struct Format {
    exponent_bits: u32,
    mantissa_bits: u32,
    bias: i32,
    /// Largest finite magnitude as bits without sign.
    max: u8,
    /// Bit pattern of infinity without sign, if there is one.
    infinity: Option<u8>,
    /// Bit pattern of NaN, if there is one.
    nan: Option<u8>,
    /// Negative zero does not exist: its pattern is NaN.
    unsigned_zero: bool,
}

fn format(dtype: DType) -> Option<Format> {
    let f = |e, m, bias, max, infinity, nan, unsigned_zero| {
        Some(Format { exponent_bits: e, mantissa_bits: m, bias, max, infinity, nan, unsigned_zero })
    };
    match dtype {
        DType::F8E4M3FN => f(4, 3, 7, 0x7e, None, Some(0x7f), false),
        DType::F8E4M3FNUZ => f(4, 3, 8, 0x7f, None, Some(0x80), true),
        DType::F8E5M2 => f(5, 2, 15, 0x7b, Some(0x7c), Some(0x7f), false),
        DType::F8E5M2FNUZ => f(5, 2, 16, 0x7f, None, Some(0x80), true),
        DType::F4E2M1 => f(2, 1, 1, 0x7, None, None, false),
        _ => None,
    }
}

/// The value of a bit pattern of a small float type; `None` for other types.
pub fn decode(dtype: DType, bits: u8) -> Option<f32> {
    if dtype == DType::F8E8M0 {
        return Some(if bits == 0xff { f32::NAN } else { (2f64).powi(i32::from(bits) - 127) as f32 });
    }
    let f = format(dtype)?;
    let width = f.exponent_bits + f.mantissa_bits;
    let magnitude = bits & ((1u16 << width) - 1) as u8;
    let negative = (bits >> width) & 1 == 1;
    if f.unsigned_zero && bits == 0x80 {
        return Some(f32::NAN);
    }
    let v = if f.infinity == Some(magnitude) {
        f32::INFINITY
    } else if magnitude > f.max {
        f32::NAN
    } else {
        magnitude_value(f, magnitude) as f32
    };
    Some(if negative { -v } else { v })
}

fn magnitude_value(f: Format, magnitude: u8) -> f64 {
    let e = i32::from(magnitude >> f.mantissa_bits);
    let m = f64::from(magnitude & ((1 << f.mantissa_bits) - 1));
    let scale = f64::from(1u32 << f.mantissa_bits);
    if e == 0 { m / scale * 2f64.powi(1 - f.bias) } else { (1.0 + m / scale) * 2f64.powi(e - f.bias) }
}

/// Rounds to nearest even into a small float type. Out of range saturates or, without `saturate`, becomes infinity or
/// NaN as the format has it (ONNX Cast, table for float 8).
pub fn encode(dtype: DType, x: f32, saturate: bool) -> Option<u8> {
    if dtype == DType::F8E8M0 {
        return Some(encode_e8m0(x, saturate, Rounding::Up));
    }
    let f = format(dtype)?;
    let sign = if x.is_sign_negative() { 1u8 << (f.exponent_bits + f.mantissa_bits) } else { 0 };
    if x.is_nan() {
        return Some(match f.nan {
            Some(n) if f.unsigned_zero => n,
            Some(n) => n | sign,
            None => sign,
        });
    }
    let a = f64::from(x.abs());
    let overflow = || match (saturate, f.infinity, f.nan) {
        (false, Some(inf), _) => inf | sign,
        (false, None, Some(n)) if f.unsigned_zero => n,
        (false, None, Some(n)) => n | sign,
        _ => f.max | sign,
    };
    if x.is_infinite() {
        return Some(overflow());
    }
    let magnitude = nearest_magnitude(f, a);
    let top = magnitude_value(f, f.max);
    let ulp = top - magnitude_value(f, f.max - 1);
    if a > top + ulp / 2.0 || (a == top + ulp / 2.0 && f.max & 1 == 1) {
        return Some(overflow());
    }
    Some(if magnitude == 0 && f.unsigned_zero { 0 } else { magnitude | sign })
}

/// Nearest representable magnitude, ties to the even pattern; patterns are ordered like their values.
fn nearest_magnitude(f: Format, a: f64) -> u8 {
    let (mut lo, mut hi) = (0u8, f.max);
    while hi - lo > 1 {
        let mid = lo + (hi - lo) / 2;
        if magnitude_value(f, mid) <= a { lo = mid } else { hi = mid }
    }
    let (dl, dh) = (a - magnitude_value(f, lo), magnitude_value(f, hi) - a);
    if dl < dh || (dl == dh && lo & 1 == 0) { lo } else { hi }
}

/// Which power of two a scale becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rounding {
    Up,
    Down,
    /// Halfway goes up.
    Nearest,
}

/// Power-of-two scale; there is no sign and no zero (ONNX Cast, table for float8e8m0).
pub fn encode_e8m0(x: f32, saturate: bool, rounding: Rounding) -> u8 {
    const NAN: u8 = 0xff;
    let a = f64::from(x.abs());
    if a.is_nan() {
        return NAN;
    }
    let outside = |bits: u8| if saturate { bits } else { NAN };
    if a == 0.0 {
        return outside(0);
    }
    if a.is_infinite() {
        return outside(0xfe);
    }
    let below = a.log2().floor() as i32;
    let fraction = a / 2f64.powi(below);
    let up = match rounding {
        Rounding::Up => fraction > 1.0,
        Rounding::Down => false,
        Rounding::Nearest => fraction >= 1.5,
    };
    match below + i32::from(up) + 127 {
        b if b < 0 => outside(0),
        b if b > 254 => outside(0xfe),
        b => b as u8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finite_pattern_round_trips() {
        for d in [DType::F8E4M3FN, DType::F8E4M3FNUZ, DType::F8E5M2, DType::F8E5M2FNUZ, DType::F8E8M0] {
            for b in 0..=255u8 {
                let v = decode(d, b).unwrap();
                if v.is_finite() {
                    assert_eq!(encode(d, v, true), Some(b), "{d} {b:#x} {v}");
                }
            }
        }
        for b in 0..16u8 {
            assert_eq!(encode(DType::F4E2M1, decode(DType::F4E2M1, b).unwrap(), true), Some(b));
        }
    }

    #[test]
    fn known_values() {
        assert_eq!(decode(DType::F8E4M3FN, 0x7e), Some(448.0));
        assert_eq!(decode(DType::F8E5M2, 0x7b), Some(57344.0));
        assert_eq!(encode(DType::F8E4M3FN, 1e9, true), Some(0x7e));
        assert_eq!(encode(DType::F8E4M3FN, 1e9, false), Some(0x7f));
        assert_eq!(encode(DType::F8E5M2, 1e9, false), Some(0x7c));
        assert_eq!(encode(DType::F4E2M1, 2.5, true), Some(4));
    }

    #[test]
    fn scales_round_to_powers_of_two() {
        use Rounding::*;
        let each = |x: f32| [Up, Down, Nearest].map(|r| i32::from(encode_e8m0(x, true, r)) - 127);
        assert_eq!(each(1.0), [0, 0, 0]);
        assert_eq!(each(1.1), [1, 0, 0]);
        assert_eq!(each(1.5), [1, 0, 1]);
        assert_eq!(each(0.124), [-3, -4, -3]);
        assert_eq!([0.0, f32::INFINITY, f32::NAN].map(|x| encode_e8m0(x, true, Up)), [0, 0xfe, 0xff]);
        assert_eq!([0.0, f32::INFINITY, 3e38].map(|x| encode_e8m0(x, false, Up)), [0xff, 0xff, 0xff]);
    }
}
