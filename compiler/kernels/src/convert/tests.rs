use super::*;
use crate::parallel::Serial;

#[test]
fn every_half_widens_exactly_and_narrows_back() {
    let step = if cfg!(miri) { 997 } else { 1 };
    let x: Vec<f16> = (0..=u16::MAX).step_by(step).map(f16::from_bits).collect();
    for &tier in Tier::available() {
        let mut y = vec![0.0; x.len()];
        widen_f16_on(tier, &x, &mut y).unwrap();
        let mut back = x.clone();
        back.fill(f16::ZERO);
        narrow_f16_on(tier, &y, &mut back).unwrap();
        for ((x, y), b) in x.iter().zip(&y).zip(&back) {
            assert!(x.to_f32_const() == *y || (x.is_nan() && y.is_nan()));
            assert!(x.to_bits() == b.to_bits() || (x.is_nan() && b.is_nan()));
        }
    }
    let b: Vec<bf16> = (0..=u16::MAX).step_by(step).map(bf16::from_bits).collect();
    let (mut y, mut back) = (vec![0.0; b.len()], vec![bf16::ZERO; b.len()]);
    widen_bf16(&b, &mut y).unwrap();
    narrow_bf16(&y, &mut back).unwrap();
    assert!(b.iter().zip(&back).all(|(x, y)| x == y || (x.is_nan() && y.is_nan())));
}

#[test]
fn narrowing_rounds_to_even_and_overflows_to_infinity() {
    let x = [1.0 + 1.0 / 2048.0, 1.0 + 3.0 / 2048.0, 65519.0, 65520.0, -1e9, 1e-9, f32::NAN];
    for &tier in Tier::available() {
        let mut y = [f16::ZERO; 7];
        narrow_f16_on(tier, &x, &mut y).unwrap();
        let bits = y.map(f16::to_bits);
        assert_eq!(bits[..6], [0x3c00, 0x3c02, 0x7bff, 0x7c00, 0xfc00, 0]);
        assert!(y[6].is_nan());
    }
    let mut y = [bf16::ZERO; 3];
    narrow_bf16(&[1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, f32::MAX], &mut y).unwrap();
    assert_eq!(y.map(bf16::to_bits), [0x3f80, 0x3f82, 0x7f80]);
}

#[test]
fn casts_saturate_truncate_and_wrap() {
    let x = [1.9, -1.9, 300.0, -300.0, f32::NAN, f32::INFINITY];
    let mut y = [0u8; 6];
    cast(&Serial, &x, &mut y).unwrap();
    assert_eq!(y, [1, 0, 255, 0, 0, 255]);
    let mut y = [0i64; 6];
    cast(&Serial, &x, &mut y).unwrap();
    assert_eq!(y, [1, -1, 300, -300, 0, i64::MAX]);
    let mut y = [0i8; 2];
    cast(&Serial, &[300i32, -129], &mut y).unwrap();
    assert_eq!(y, [44, 127]);
    let mut y = [false; 3];
    cast(&Serial, &[0.0f32, -0.5, f32::NAN], &mut y).unwrap();
    assert_eq!(y, [false, true, true]);
    let mut y = [0.0f32; 2];
    cast(&Serial, &[true, false], &mut y).unwrap();
    assert_eq!(y, [1.0, 0.0]);
    let mut y = [f16::ZERO; 1];
    cast(&Serial, &[70000i32], &mut y).unwrap();
    assert_eq!(y[0], f16::INFINITY);
    assert!(cast(&Serial, &[1u8], &mut [0i32; 2]).is_err());
}

fn check<Q: Quantized + PartialEq + std::fmt::Debug>(zeros: [i32; 3]) {
    let x: Vec<f32> = (0..3 * 5 * 7).map(|i| (i as f32 - 50.0) * 0.5 * 0.25).collect();
    let scale = [0.25, 0.5, 0.003];
    let zero = zeros.map(Q::of);
    for inner in [7, 1, 5] {
        for &tier in Tier::available() {
            let mut q = vec![Q::default(); x.len()];
            quantize_on(tier, &Serial, &x, Scales { scale: &scale, zero: &zero, inner }, &mut q).unwrap();
            let mut y = vec![0.0; x.len()];
            dequantize_on(tier, &Serial, &q, Scales { scale: &scale, zero: &zero, inner }, &mut y).unwrap();
            for i in 0..x.len() {
                let c = i / inner % 3;
                let want = (x[i] / scale[c]).round_ties_even() as i32 + zeros[c];
                assert_eq!(q[i].into(), want.clamp(Q::LOW, Q::HIGH), "{} {inner}", x[i]);
                assert_eq!(y[i], (q[i].into() - zeros[c]) as f32 * scale[c]);
            }
        }
    }
}

#[test]
fn quantization_rounds_half_to_even_and_saturates() {
    check::<u8>([128, 0, 255]);
    check::<i8>([0, -128, 127]);
    check::<u8>([7; 3]);
    check::<i8>([-9; 3]);
    check::<u16>([32768, 0, 9]);
    check::<i16>([0, -32768, 5]);
    let mut q = [9i8; 5];
    let x = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 2.5, -2.5];
    quantize(&Serial, &x, Scales { scale: &[1.0], zero: &[], inner: 1 }, &mut q).unwrap();
    assert_eq!(q, [-128, 127, -128, 2, -2]);
}

/// Values at and beside every tie, of scales near and far and of either sign, and what is no number of any size.
#[test]
fn quantization_is_that_of_the_quotient() {
    let next = |x: f32, by: i32| f32::from_bits((x.to_bits() as i32 + by) as u32);
    for scale in [0.003f32, 0.25, 1.0, 0.017_320_5, 7.3, 1e-30, 3e30, 1e-39, 1e38, -0.1, f32::INFINITY, 0.0] {
        let ties = (-300..300).map(|k| (k as f32 + 0.5) * scale).filter(|x| x.is_finite() && *x != 0.0);
        let mut x: Vec<f32> = ties.flat_map(|t| [-2, -1, 0, 1, 2].map(|by| next(t, by))).collect();
        x.extend([f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, 0.0, -0.0, 1e-40]);
        for zero in [0u8, 3, 255] {
            // What is no number is the lowest.
            let quantized = |x: f32| crate::testing::quantized(x, scale, i32::from(zero), false);
            let want: Vec<u8> =
                x.iter().map(|&x| if (x / scale).is_nan() { 0 } else { quantized(x) }).collect();
            for &tier in Tier::available() {
                let mut y = vec![7u8; x.len()];
                let by = Scales { scale: &[scale], zero: &[zero], inner: x.len() };
                quantize_on(tier, &Serial, &x, by, &mut y).unwrap();
                let wrong = (0..x.len()).find(|&i| y[i] != want[i]);
                assert_eq!(wrong.map(|i| (x[i], y[i], want[i])), None, "{tier:?} {scale} {zero}");
            }
        }
    }
}

#[test]
fn dynamic_quantization_covers_zero() {
    let mut q = [0; 4];
    let (scale, zero) = quantize_dynamic(&Serial, &[1.0, 2.0, 3.0, 5.1], &mut q).unwrap();
    assert_eq!((scale, zero, q), (0.02, 0, [50, 100, 150, 255]));
    let (_, zero) = quantize_dynamic(&Serial, &[-1.0, 0.0, -2.0, -0.5], &mut q).unwrap();
    assert_eq!((zero, q[1]), (255, 255));
    assert_eq!(quantize_dynamic(&Serial, &[0.0; 4], &mut q).unwrap(), (1.0, 0));
    let (scale, zero) = quantize_dynamic(&Serial, &[f32::NAN, 2.0, -3.1, 0.1], &mut q).unwrap();
    assert_eq!((scale, zero, q[1], q[2]), (0.02, 155, 255, 0));
}

#[test]
fn ranges_of_any_length_and_thread_count_agree() {
    for len in [1, 15, 16, 63, 65, 1000, GRAIN + 17] {
        let x: Vec<f32> = crate::testing::random(len, 5).iter().map(|x| x * 3.0).collect();
        let (lo, hi) = x.iter().fold((0f32, 0f32), |(a, b), &x| (a.min(x), b.max(x)));
        for &tier in Tier::available() {
            // SAFETY: the tier is available.
            assert_eq!(unsafe { range(tier, &x) }, [lo, hi]);
        }
        let (mut q, mut r) = (vec![0; len], vec![0; len]);
        let a = quantize_dynamic(&Serial, &x, &mut q).unwrap();
        assert_eq!((a, &q), (quantize_dynamic(&crate::testing::Two, &x, &mut r).unwrap(), &r));
        let wanted = x.iter().map(|&x| crate::testing::quantized(x, a.0, a.1.into(), false));
        assert!(q.iter().copied().eq(wanted));
    }
}

#[test]
fn scales_that_do_not_divide_the_tensor_are_refused() {
    let mut q = [0u8; 6];
    let go = |scale: &[f32], zero: &[u8], inner, q: &mut [u8]| {
        quantize(&Serial, &[0.0; 6], Scales { scale, zero, inner }, q)
    };
    assert!(go(&[1.0; 3], &[0; 3], 2, &mut q).is_ok());
    assert!(go(&[1.0; 4], &[], 1, &mut q).is_err());
    assert!(go(&[1.0; 3], &[0; 2], 2, &mut q).is_err());
    assert!(go(&[1.0; 3], &[], usize::MAX, &mut q).is_err());
    assert!(go(&[], &[], 1, &mut q).is_err());
    assert!(go(&[1.0], &[], 1, &mut q[..5]).is_err());
}
