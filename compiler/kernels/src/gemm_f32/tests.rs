use super::*;
use crate::epilogue::{Activation, Affine, Residual};
use crate::testing::{Two, close, random};
use proptest::prelude::*;

/// Sums in f64 and the epilogue as its definition has it.
fn naive(
    (m, n, k): (usize, usize, usize),
    a: impl Fn(usize, usize) -> f32,
    b: impl Fn(usize, usize) -> f32,
    alpha: f32,
    e: &Epilogue,
) -> Vec<f64> {
    let mut c = vec![0.0; m * n];
    for i in 0..m {
        for j in 0..n {
            let sum: f64 = (0..k).map(|t| f64::from(a(i, t)) * f64::from(b(t, j))).sum();
            c[i * n + j] = crate::testing::finished(e, sum * f64::from(alpha), i, j);
        }
    }
    c
}

fn check(tier: Tier, (m, n, k): (usize, usize, usize), pad: usize, alpha: f32, e: &Epilogue) {
    let (ld, cs) = (k + pad, n + pad);
    let (a, b) = (random(m * ld, 1), random(k * n, 2));
    let want = naive((m, n, k), |i, t| a[i * ld + t], |t, j| b[t * n + j], alpha, e);
    let packed = PackedB::from_kn(tier, &b, k, n).unwrap();
    let mut c = vec![7.0; m * cs];
    gemm_f32(&Serial, m, &a, ld, &packed, &mut c, cs, alpha, e).unwrap();
    for i in 0..m {
        close(&c[i * cs..i * cs + n], &want[i * n..(i + 1) * n], k);
        assert!(c[i * cs + n..(i + 1) * cs].iter().all(|&x| x == 7.0), "wrote past a row");
    }
    let mut d = vec![7.0; m * cs];
    gemm_f32(&Two, m, &a, ld, &packed, &mut d, cs, alpha, e).unwrap();
    assert_eq!(c, d, "{tier:?} {m} {n} {k}");
}

#[test]
fn odd_shapes_match_the_definition() {
    for &tier in Tier::available() {
        for shape in [
            (1, 1, 1),
            (1, 64, 3),
            (1, 1000, 700),
            (2, 17, 5),
            (3, 16, 0),
            (5, 33, 129),
            (6, 64, 64),
            (7, 80, 300),
            (13, 112, 31),
            (49, 40, 77),
            (50, 24, 900),
            (25, 130, 1025),
            (61, 9, 2),
            (100, 144, 24),
            (0, 5, 5),
            (5, 0, 5),
            (250, 48, 16),
        ] {
            for pad in [0, 3] {
                check(tier, shape, pad, 1.0, &Epilogue::default());
            }
        }
    }
}

#[test]
fn few_columns_match_the_definition() {
    let bias = random(4, 3);
    for &tier in Tier::available() {
        for n in 1..=4 {
            for (m, k) in [(32, 1), (33, 24), (67, 38), (130, 257)] {
                check(tier, (m, n, k), 2, 1.0, &Epilogue::default());
                let e = Epilogue { bias: Some(&bias[..n]), act: Activation::Sigmoid, ..Epilogue::default() };
                check(tier, (m, n, k), 0, 0.5, &e);
            }
        }
    }
}

#[test]
fn every_epilogue_matches_its_definition() {
    let (m, n, k) = (19, 83, 21);
    let (bias, scale, residual) = (random(n, 3), random(n, 4), random(m * (n + 2), 5));
    let acts = [
        Activation::None,
        Activation::Relu,
        Activation::Clip { lo: -0.3, hi: 0.6 },
        Activation::LeakyRelu(0.1),
        Activation::LeakyFrom { slope: 0.2, low: -0.1 },
        Activation::HardSwish,
        Activation::HardSigmoid { alpha: 0.2, beta: 0.5 },
        Activation::Sigmoid,
        Activation::Silu,
        Activation::Tanh,
        Activation::GeluErf,
        Activation::GeluTanh,
    ];
    for &tier in Tier::available() {
        for act in acts {
            for after_activation in [false, true] {
                let residual = Residual { data: &residual, row_stride: n + 2, after_activation };
                let e =
                    Epilogue { bias: Some(&bias), residual: Some(residual), act, affine: None, grid: None };
                check(tier, (m, n, k), 1, 0.5, &e);
                check(tier, (1, n, k), 1, 0.5, &e);
            }
            check(tier, (m, n, k), 0, 1.0, &Epilogue::activation(act));
            if act.is_cheap() {
                let affine = Some(Affine { scale: &scale, shift: &bias });
                check(tier, (m, n, k), 0, 1.0, &Epilogue { act, affine, ..Epilogue::default() });
            }
        }
    }
}

#[test]
fn not_a_number_survives_relu_and_clip() {
    for &tier in Tier::available() {
        for act in [Activation::Relu, Activation::Clip { lo: 0.0, hi: 6.0 }, Activation::HardSwish] {
            for m in [1, 5] {
                let b = PackedB::from_kn(tier, &[1.0; 40], 1, 40).unwrap();
                let mut c = vec![0.0; m * 40];
                let a = vec![f32::NAN; m];
                gemm_f32(&Serial, m, &a, 1, &b, &mut c, 40, 1.0, &Epilogue::activation(act)).unwrap();
                assert!(c.iter().all(|x| x.is_nan()));
            }
        }
    }
}

#[test]
fn short_operands_are_refused() {
    let b = PackedB::from_kn(Tier::best(), &[1.0; 12], 3, 4).unwrap();
    let mut c = [0.0; 8];
    let e = Epilogue::default();
    assert!(gemm_f32(&Serial, 2, &[0.0; 5], 3, &b, &mut c, 4, 1.0, &e).is_err());
    assert!(gemm_f32(&Serial, 2, &[0.0; 6], 3, &b, &mut c[..7], 4, 1.0, &e).is_err());
    assert!(gemm_f32(&Serial, 2, &[0.0; 6], 3, &b, &mut c, 3, 1.0, &e).is_err());
    assert!(gemm_f32(&Serial, usize::MAX, &[0.0; 6], 3, &b, &mut c, 4, 1.0, &e).is_err());
    let e = Epilogue { bias: Some(&[0.0; 3]), ..e };
    assert!(gemm_f32(&Serial, 2, &[0.0; 6], 3, &b, &mut c, 4, 1.0, &e).is_err());
    assert!(PackedB::from_kn(Tier::best(), &[1.0; 12], 3, 5).is_err());
    assert!(PackedB::from_kn(Tier::best(), &[], usize::MAX, 2).is_err());
}

proptest! {
    #[test]
    fn batches_and_transposes_match_the_definition(
        batch in 1usize..4, m in 1usize..40, n in 1usize..70, k in 0usize..50,
        ta: bool, tb: bool, shared: bool, two: bool,
    ) {
        let (a, b) = (random(batch * m * k, 6), random(batch * k * n, 7));
        let sa = if ta { Strides { row: 1, col: m } } else { Strides { row: k, col: 1 } };
        let sb = if tb { Strides::nk(k) } else { Strides::kn(n) };
        let shape = GemmShape { batch, m, n, k };
        let b_batch = if shared { 0 } else { k * n };
        for &tier in Tier::available() {
            let mut c = vec![0.0; batch * m * n];
            let mut scratch = vec![f32::NAN; gemm_dynamic_scratch(shape, ta, 2).unwrap()];
            let pool: &dyn Pool = if two { &Two } else { &Serial };
            gemm_dynamic_f32(
                tier, pool, shape,
                Operand { data: &a, strides: sa, batch_stride: m * k },
                Operand { data: &b, strides: sb, batch_stride: b_batch },
                &mut c, n, m * n, 1.0, &Epilogue::default(), &mut scratch,
            ).unwrap();
            for i in 0..batch {
                let want = naive(
                    (m, n, k),
                    |r, t| a[i * m * k + r * sa.row + t * sa.col],
                    |t, j| b[i * b_batch + t * sb.row + j * sb.col],
                    1.0, &Epilogue::default(),
                );
                close(&c[i * m * n..(i + 1) * m * n], &want, k);
            }
        }
    }
}
