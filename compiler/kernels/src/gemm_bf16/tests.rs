use super::*;
use crate::dispatch::Tier;
use crate::epilogue::{Activation, Residual};
use crate::parallel::Serial;
use crate::testing::{Two, close, finished, random};
use half::bf16;

fn rounded(x: &[f32]) -> Vec<f32> {
    x.iter().map(|&x| bf16::from_f32(x).to_f32()).collect()
}

/// On every tier, with and without the CPU's own instruction.
fn packed(b: &[f32], strides: Strides, k: usize, n: usize) -> Vec<PackedBf16> {
    let of = |&tier: &Tier| PackedBf16::from_strided(tier, b, strides, k, n).unwrap();
    Tier::available().iter().flat_map(|t| [of(t), of(t).widened()]).collect()
}

#[test]
fn products_of_rounded_operands_match_the_definition() {
    for (m, n, k) in [
        (1, 1, 1),
        (1, 70, 9),
        (2, 17, 5),
        (3, 16, 0),
        (6, 64, 64),
        (13, 112, 31),
        (61, 9, 2),
        (25, 130, 1025),
        (16, 33, 40),
        (35, 70, 200),
        (97, 48, 64),
        (0, 5, 5),
    ] {
        for pad in [0, 3] {
            let (a_step, c_step) = (k + pad, n + pad);
            let (a, b, bias, residual) =
                (random(m * a_step, 1), random(k * n, 2), random(n, 3), random(m * n, 4));
            let residual = Residual { data: &residual, row_stride: n, after_activation: true };
            let e = Epilogue {
                bias: Some(&bias),
                residual: Some(residual),
                affine: None,
                grid: None,
                act: Activation::HardSwish,
            };
            let (ra, rb) = (rounded(&a), rounded(&b));
            let mut want = Vec::new();
            for i in 0..m {
                for j in 0..n {
                    let sum = |a: &[f32], b: &[f32]| -> f64 {
                        (0..k).map(|t| f64::from(a[i * a_step + t]) * f64::from(b[t * n + j])).sum()
                    };
                    let (near, exact) = (sum(&ra, &rb), sum(&a, &b));
                    let size: f64 = (0..k).map(|t| f64::from(a[i * a_step + t] * b[t * n + j]).abs()).sum();
                    assert!((near - exact).abs() <= size * 2.01 / 256.0 + 1e-12, "the stated bound");
                    want.push(finished(&e, near * 0.75, i, j));
                }
            }
            for (strides, b) in [
                (Strides::kn(n), b.clone()),
                (Strides::nk(k), (0..n * k).map(|i| b[i % k.max(1) * n + i / k.max(1)]).collect()),
            ] {
                for p in packed(&b, strides, k, n) {
                    let mut c = vec![7.0; m * c_step];
                    gemm_bf16(&Serial, m, &a, a_step, &p, &mut c, c_step, 0.75, &e).unwrap();
                    for i in 0..m {
                        close(&c[i * c_step..][..n], &want[i * n..][..n], k);
                        assert!(
                            c[i * c_step + n..(i + 1) * c_step].iter().all(|&x| x == 7.0),
                            "wrote past a row"
                        );
                    }
                    let mut d = vec![7.0; m * c_step];
                    gemm_bf16(&Two, m, &a, a_step, &p, &mut d, c_step, 0.75, &e).unwrap();
                    assert_eq!(c, d, "{:?}", p.tier());
                }
            }
        }
    }
}

#[test]
fn what_is_no_number_stays_none() {
    let (k, n) = (4, 3);
    let b = vec![1.0; k * n];
    for p in packed(&b, Strides::kn(n), k, n) {
        let a = [
            f32::NAN,
            1.0,
            2.0,
            3.0,
            f32::INFINITY,
            1.0,
            2.0,
            3.0,
            f32::INFINITY,
            f32::NEG_INFINITY,
            0.0,
            0.0,
            0.0,
            -0.0,
            0.0,
            0.0,
        ];
        // Alone, and with further rows: 16 and more may run on another unit.
        for more in [0, 17] {
            let a = [&a[..], &vec![1.0; more * k]].concat();
            let mut c = vec![0.0; (4 + more) * n];
            gemm_bf16(&Serial, 4 + more, &a, k, &p, &mut c, n, 1.0, &Epilogue::default()).unwrap();
            assert!(c[..n].iter().all(|x| x.is_nan()));
            assert!(c[n..2 * n].iter().all(|&x| x == f32::INFINITY));
            assert!(c[2 * n..3 * n].iter().all(|x| x.is_nan()));
            assert!(c[3 * n..4 * n].iter().all(|&x| x == 0.0));
            assert!(c[4 * n..].iter().all(|&x| x == 4.0));
        }
    }
}

#[test]
fn wrong_extents_are_refused() {
    let p = PackedBf16::from_strided(Tier::best(), &[0.0; 12], Strides::kn(4), 3, 4).unwrap();
    assert!(PackedBf16::from_strided(Tier::best(), &[0.0; 11], Strides::kn(4), 3, 4).is_err());
    let (a, mut c) = ([0.0; 6], [0.0; 8]);
    assert!(gemm_bf16(&Serial, 2, &a, 3, &p, &mut c, 4, 1.0, &Epilogue::default()).is_ok());
    assert!(gemm_bf16(&Serial, 2, &a[..5], 3, &p, &mut c, 4, 1.0, &Epilogue::default()).is_err());
    assert!(gemm_bf16(&Serial, 2, &a, 3, &p, &mut c[..7], 4, 1.0, &Epilogue::default()).is_err());
}
