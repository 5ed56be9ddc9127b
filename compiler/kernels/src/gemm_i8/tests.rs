use super::*;
use crate::dispatch::Tier;
use crate::epilogue::{Affine, Residual};
use crate::pack::Strides;
use crate::pack_i8::Weights;
use crate::parallel::Serial;
use crate::testing::{Two, bends, bent, both, bytes, int, quantized, random, requantized};
use proptest::prelude::*;

struct Case {
    m: usize,
    k: usize,
    n: usize,
    signed: [bool; 3],
    zeros: [i32; 2],
    per_column: bool,
}

fn check(c: &Case) {
    let &Case { m, k, n, signed: [xs, ws, ys], zeros: [zx, zw], per_column } = c;
    let (x, w) = (bytes(m * k, 1), bytes(k * n, 2));
    let columns = if per_column { n } else { 1 };
    let scale: Vec<f32> = (0..columns).map(|i| 0.01 + 0.001 * i as f32).collect();
    let zero: Vec<i32> = (0..columns).map(|i| if zw == 0 { 0 } else { zw + (i % 3) as i32 }).collect();
    let bias = random(n, 3);
    let mut sums = vec![0i32; m * n];
    let mut values = vec![0f32; m * n];
    for (i, (sum, value)) in sums.iter_mut().zip(&mut values).enumerate() {
        let (r, col) = (i / n, i % n);
        let z = zero[col % columns];
        *sum = (0..k).map(|p| (int(x[r * k + p], xs) - zx) * (int(w[p * n + col], ws) - z)).sum();
        *value = (*sum as f32 * (scale[col % columns] * 0.02) + bias[col]).max(0.0);
    }
    let code = |i: usize| {
        let (scale, bias) = (scale[i % n % columns] * 0.02, bias[i % n]);
        let code = int(requantized(sums[i], scale, bias, (0.05, 3, ys)), ys).max(3) as u8;
        let distance = int(code, ys) - int(quantized(values[i], 0.05, 3, ys), ys);
        assert!(distance.abs() <= 1);
        code
    };
    let wanted: Vec<u8> = (0..sums.len()).map(code).collect();
    let by: Vec<f32> = (0..n).map(|c| 0.05 + 0.01 * (c % 7) as f32).collect();
    let by_column =
        |i: usize| requantized(sums[i], scale[i % n % columns] * 0.02, bias[i % n], (by[i % n], 3, ys));
    let by_column: Vec<u8> = (0..sums.len()).map(by_column).collect();
    let epilogue = Epilogue { bias: Some(&bias), act: Activation::Relu, ..Epilogue::default() };
    for &tier in Tier::available() {
        let weights = Weights { data: &w, signed: ws, zero: &zero, scale: &scale };
        let packed = PackedI8::from_strided(tier, &weights, Strides::kn(n), k, n).unwrap();
        let a = Activations { data: &x, signed: xs, zero: zx, zeros: &[], scale: 0.02 };
        for pool in [&Serial as &dyn Pool, &Two] {
            let mut y = vec![7; m * n];
            gemm_i8(pool, m, &a, &packed, &mut Results::Sums(&mut y), &Epilogue::default()).unwrap();
            assert_eq!(y, sums, "{tier:?}");
            let mut y = vec![7.0; m * n];
            gemm_i8(pool, m, &a, &packed, &mut Results::F32(&mut y), &epilogue).unwrap();
            assert_eq!(y, values, "{tier:?}");
            let mut y = vec![7; m * n];
            let mut out = Results::Bytes { data: &mut y, signed: ys, scale: &[0.05], zero: 3, zeros: &[] };
            gemm_i8(pool, m, &a, &packed, &mut out, &epilogue).unwrap();
            assert_eq!(y, wanted, "{tier:?}");
            let mut y = vec![7; m * n];
            let mut out = Results::Bytes { data: &mut y, signed: ys, scale: &by, zero: 3, zeros: &[] };
            let plain = Epilogue { bias: Some(&bias), ..Epilogue::default() };
            gemm_i8(pool, m, &a, &packed, &mut out, &plain).unwrap();
            assert_eq!(y, by_column, "{tier:?}");
            for (act, affine) in bends(n) {
                let affine = affine.as_ref().map(|[scale, shift]| Affine { scale, shift });
                let e = Epilogue { bias: Some(&bias), act, affine, ..Epilogue::default() };
                let of_value = |i: usize| {
                    let (c, factor) = (i % n, scale[i % n % columns] * 0.02);
                    bent(&e, sums[i] as f32 * factor + bias[c], c, (0.05, 3, ys))
                };
                let mut y = vec![7; m * n];
                let mut out =
                    Results::Bytes { data: &mut y, signed: ys, scale: &[0.05], zero: 3, zeros: &[] };
                gemm_i8(pool, m, &a, &packed, &mut out, &e).unwrap();
                assert_eq!(y, (0..m * n).map(of_value).collect::<Vec<_>>(), "{tier:?} {e:?}");
            }
            // What registers do not hold is quantized after its function.
            for (act, after_activation) in [(Activation::GeluErf, false), (Activation::Tanh, true)] {
                let data = random(m * n, 9);
                let residual = Some(Residual { data: &data, row_stride: n, after_activation });
                let e = Epilogue { bias: Some(&bias), act, residual, ..Epilogue::default() };
                let mut values = vec![7.0; m * n];
                gemm_i8(pool, m, &a, &packed, &mut Results::F32(&mut values), &e).unwrap();
                for scale in [&by[..], &[0.05]] {
                    let of_value =
                        |i: usize| quantized(values[i] * (1.0 / scale[i % n % scale.len()]), 1.0, 3, ys);
                    let mut y = vec![7; m * n];
                    let mut out = Results::Bytes { data: &mut y, signed: ys, scale, zero: 3, zeros: &[] };
                    gemm_i8(pool, m, &a, &packed, &mut out, &e).unwrap();
                    assert_eq!(y, (0..m * n).map(of_value).collect::<Vec<_>>(), "{tier:?} {e:?}");
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 64 }))]
    #[test]
    fn products_are_exact(
        m in 1usize..70, k in 1usize..200, n in 1usize..150, signed in any::<[bool; 3]>(),
        zx in 0i32..120, zw in prop_oneof![Just(0), 1..100], per_column in any::<bool>(),
    ) {
        both(|| check(&Case { m, k, n, signed, zeros: [zx, zw], per_column }));
    }
}

#[test]
fn two_tiles_of_rows_are_exact() {
    for (m, k, n) in [(32, 64, 32), (33, 128, 48), (50, 192, 64), (97, 64, 150), (64, 256, 16)] {
        both(|| check(&Case { m, k, n, signed: [false, true, true], zeros: [7, 0], per_column: true }));
    }
}

#[test]
fn long_sums_of_extremes_do_not_saturate() {
    for &tier in Tier::available() {
        let (k, x, w) = (4096, vec![255u8; 4096], vec![0x80u8; 4096]);
        let weights = Weights { data: &w, signed: true, zero: &[], scale: &[1.0] };
        let packed = PackedI8::from_strided(tier, &weights, Strides::kn(1), k, 1).unwrap();
        let a = Activations { data: &x, signed: false, zero: 0, zeros: &[], scale: 1.0 };
        let mut y = [0];
        gemm_i8(&Serial, 1, &a, &packed, &mut Results::Sums(&mut y), &Epilogue::default()).unwrap();
        assert_eq!(y, [-4096 * 255 * 128]);
        let (x, mut y) = (vec![255u8; 16 * k], [0; 16]);
        let a = Activations { data: &x, ..a };
        gemm_i8(&Serial, 16, &a, &packed, &mut Results::Sums(&mut y), &Epilogue::default()).unwrap();
        assert_eq!(y, [-4096 * 255 * 128; 16]);
    }
}

#[test]
fn values_out_of_32_bits_saturate() {
    for &tier in Tier::available() {
        let weights = Weights { data: &[0x7f, 0x80, 1], signed: true, zero: &[], scale: &[1e30] };
        let packed = PackedI8::from_strided(tier, &weights, Strides::kn(3), 1, 3).unwrap();
        let a = Activations { data: &[255], signed: false, zero: 0, zeros: &[], scale: 1e6 };
        let mut y = [7; 3];
        let mut out = Results::Bytes { data: &mut y, signed: true, scale: &[1e-4], zero: 1, zeros: &[] };
        gemm_i8(&Serial, 1, &a, &packed, &mut out, &Epilogue::default()).unwrap();
        assert_eq!(y, [127, 128, 127]);
    }
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let weights = Weights { data: &[1; 6], signed: true, zero: &[], scale: &[1.0] };
    let packed = PackedI8::from_strided(Tier::best(), &weights, Strides::kn(3), 2, 3).unwrap();
    let a = Activations { data: &[1; 4], signed: false, zero: 0, zeros: &[], scale: 1.0 };
    let go = |m, e: &Epilogue, y: &mut [u8]| {
        gemm_i8(
            &Serial,
            m,
            &a,
            &packed,
            &mut Results::Bytes { data: y, signed: false, scale: &[1.0], zero: 0, zeros: &[] },
            e,
        )
    };
    assert!(go(2, &Epilogue::default(), &mut [0; 6]).is_ok());
    assert!(go(3, &Epilogue::default(), &mut [0; 9]).is_err());
    assert!(go(2, &Epilogue::default(), &mut [0; 5]).is_err());
    assert!(go(2, &Epilogue::activation(Activation::Tanh), &mut [0; 6]).is_ok());
    let short = Weights { data: &[1; 5], ..weights };
    assert!(PackedI8::from_strided(Tier::best(), &short, Strides::kn(3), 2, 3).is_err());
    let scales = Weights { scale: &[1.0; 2], ..weights };
    assert!(PackedI8::from_strided(Tier::best(), &scales, Strides::kn(3), 2, 3).is_err());
}
