use super::*;
use crate::epilogue::{Activation, Residual};
use crate::parallel::Serial;
use crate::testing::{Two, bytes, finished, random};
use proptest::prelude::*;

/// A weight by the definition of [`Codes`].
fn weight(c: &Codes, k: usize, n: usize) -> f64 {
    let code = c.codes[k * c.strides.row + n * c.strides.col];
    let value = c.table.map_or(f64::from(code), |t| f64::from(t[usize::from(code)]));
    let at = n * c.k.div_ceil(c.block) + k / c.block;
    let zero = match c.zero {
        Zero::One(z) => f64::from(z),
        Zero::Each(z) => f64::from(z[at]),
    };
    f64::from(c.scale[at]) * (value - zero)
}

struct Case {
    codes: Vec<u8>,
    scale: Vec<f32>,
    zeros: Option<Vec<f32>>,
    table: Option<Vec<f32>>,
    bits: u32,
}

impl Case {
    fn new(k: usize, n: usize, bits: u32, block: usize, kind: usize, seed: u64) -> Case {
        let codes = bytes(k * n, seed).into_iter().map(|c| if bits == 4 { c & 15 } else { c }).collect();
        let blocks = k.div_ceil(block);
        let half = |x: f32| if seed.is_multiple_of(2) { f16::from_f32(x).to_f32() } else { x };
        let scale = random(n * blocks, seed + 1).into_iter().map(|x| half(0.1 + 0.05 * x)).collect();
        let zeros =
            (kind == 1).then(|| bytes(n * blocks, seed + 2).iter().map(|&b| f32::from(b & 15)).collect());
        let entries = 1 << bits;
        let table = match kind {
            2 => Some(bytes(entries, seed + 3).iter().map(|&b| (f32::from(b) - 128.0) / 50.0).collect()),
            3 => Some(random(entries, seed + 3)),
            _ => None,
        };
        Case { codes, scale, zeros, table, bits }
    }

    fn codes(&self, k: usize, n: usize, block: usize, transposed: bool) -> Codes<'_> {
        Codes {
            codes: &self.codes,
            strides: if transposed { Strides::nk(k) } else { Strides::kn(n) },
            k,
            n,
            bits: self.bits,
            block,
            scale: &self.scale,
            zero: match &self.zeros {
                Some(z) => Zero::Each(z),
                None => Zero::One(if self.table.is_some() { 0 } else { 8 }),
            },
            table: self.table.as_deref(),
        }
    }
}

/// The result in f64, and the largest that the sum of magnitudes is.
fn wanted(m: usize, a: &[f32], c: &Codes, e: &Epilogue) -> (Vec<f64>, Vec<f64>) {
    let (mut y, mut scale) = (Vec::new(), Vec::new());
    for row in 0..m {
        let x = &a[row * c.k..(row + 1) * c.k];
        let most = x.iter().fold(0f64, |m, x| m.max(f64::from(x.abs())));
        for col in 0..c.n {
            let sum = (0..c.k).map(|k| f64::from(x[k]) * weight(c, k, col)).sum();
            y.push(finished(e, sum, row, col));
            let z = if let Zero::Each(_) = c.zero { 15.0 * f64::from(c.scale[col]) } else { 0.0 };
            scale.push((0..c.k).map(|k| weight(c, k, col).abs().max(z)).sum::<f64>() * most + 1.0);
        }
    }
    (y, scale)
}

fn check(tier: Tier, m: usize, c: &Codes, seed: u64) {
    match PackedCodes::dense(tier, c).unwrap() {
        Some(packed) => check_packed(&packed, m, c, seed),
        None => assert!(c.table.is_some_and(|t| t.len() == 256) && tier != Tier::Portable, "not packed"),
    }
}

fn check_packed(packed: &PackedCodes, m: usize, c: &Codes, seed: u64) {
    let tier = packed.tier;
    let a = random(m * c.k, seed);
    let bias = random(c.n, seed + 7);
    let residual = random(m * c.n, seed + 8);
    let e = Epilogue {
        bias: Some(&bias),
        residual: Some(Residual { data: &residual, row_stride: c.n, after_activation: false }),
        act: Activation::Relu,
        ..Epilogue::default()
    };
    let (want, scale) = wanted(m, &a, c, &e);
    let run = |pool: &dyn Pool, precision| {
        let mut y = vec![f32::NAN; m * c.n];
        gemm_packed(pool, precision, m, (&a, c.k), packed, (&mut y, c.n), 1.0, &e).unwrap();
        y
    };
    let y = run(&Serial, Precision::Float);
    for i in 0..y.len() {
        // Digits, entries and sums of blocks each round once: a few units of float32.
        let error = (f64::from(y[i]) - want[i]).abs();
        assert!(error <= 4e-7 * scale[i], "{tier:?} element {i}: {} is not {}", y[i], want[i]);
    }
    for (i, &y) in run(&Serial, Precision::Words).iter().enumerate() {
        assert!(
            (f64::from(y) - want[i]).abs() <= scale[i] / 65_000.0,
            "{tier:?} {i}: {y} is not {}",
            want[i]
        );
    }
    for precision in [Precision::Float, Precision::Words, Precision::Bytes] {
        let y = run(&Serial, precision);
        assert_eq!(y, run(&Two, precision), "threads change nothing");
        for row in 0..m {
            let residual =
                Residual { data: &residual[row * c.n..], row_stride: c.n, after_activation: false };
            let e = Epilogue { residual: Some(residual), ..e };
            let mut alone = vec![f32::NAN; c.n];
            let x = (&a[row * c.k..(row + 1) * c.k], c.k);
            gemm_packed(&Serial, precision, 1, x, packed, (&mut alone, c.n), 1.0, &e).unwrap();
            assert_eq!(y[row * c.n..(row + 1) * c.n], alone, "{tier:?} row {row} beside others");
        }
    }
    for (i, &y) in run(&Serial, Precision::Bytes).iter().enumerate() {
        assert!((f64::from(y) - want[i]).abs() <= scale[i] / 200.0, "{tier:?} {i}: {y} is not {}", want[i]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 64 }))]
    #[test]
    fn products_are_those_of_the_weights(
        m in 1usize..6, k in 1usize..700, n in 1usize..150, bits in 0usize..2, block in 0usize..5, kind in 0usize..4,
        transposed: bool, seed in 1u64..1000,
    ) {
        let bits = [4, 8][bits];
        let block = [k, 16, 32, 128, 512][block];
        let case = Case::new(k, n, bits, block, kind, seed);
        for &tier in Tier::available() {
            check(tier, m, &case.codes(k, n, block, transposed), seed);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 32 }))]
    #[test]
    fn what_is_kept_of_sparse_weights_gives_the_same(
        m in 1usize..4, k in 1usize..500, n in 1usize..150, share in 0usize..101, block in 0usize..3, seed in 1u64..1000,
    ) {
        let block = [k, 16, 128][block];
        let mut case = Case::new(k, n, 8, block, 0, seed);
        for (c, r) in case.codes.iter_mut().zip(bytes(k * n, seed + 9)) {
            *c = if usize::from(r) * 100 < share * 256 { 8 } else { *c };
        }
        let c = case.codes(k, n, block, false);
        for &tier in Tier::available() {
            if let Some(packed) = PackedCodes::sparse(tier, &c).unwrap() {
                check_packed(&packed, m, &c, seed);
            }
        }
    }
}

#[test]
fn many_rows_read_panels_in_parts() {
    for bits in [4, 8] {
        let case = Case::new(1000, 70, bits, 1000, 0, 5);
        for &tier in Tier::available() {
            check(tier, 9, &case.codes(1000, 70, 1000, false), 5);
        }
    }
}

/// What takes rows 16 at a time gives each what it has alone.
#[test]
fn many_rows_of_bytes_are_those_of_one() {
    for (k, block, kind) in [(300, 300, 0), (520, 520, 1), (384, 128, 1), (320, 64, 0), (64, 32, 0)] {
        for (m, n, seed) in [(16, 64, 3), (37, 150, 4), (21, 130, 5)] {
            let case = Case::new(k, n, 8, block, kind, seed);
            for &tier in Tier::available() {
                check(tier, m, &case.codes(k, n, block, true), seed);
            }
        }
    }
}

/// Digits are relative to their block: a large activation leaves the others their precision.
#[test]
fn blocks_of_very_different_size_keep_their_precision() {
    let case = Case::new(512, 16, 4, 32, 0, 1);
    let mut c = case.codes(512, 16, 32, false);
    let mut codes = case.codes.clone();
    codes[..256 * 16].fill(8); // zero
    c.codes = &codes;
    let mut a = random(512, 3);
    a[..256].iter_mut().for_each(|x| *x *= 1e25);
    a[256..].iter_mut().for_each(|x| *x *= 1e-30);
    for &tier in Tier::available() {
        let packed = PackedCodes::new(tier, &c).unwrap().unwrap();
        let mut y = vec![0.0; 16];
        gemm_packed(
            &Serial,
            Precision::Float,
            1,
            (&a, 512),
            &packed,
            (&mut y, 16),
            1.0,
            &Epilogue::default(),
        )
        .unwrap();
        for (col, y) in y.iter().enumerate() {
            let want: f64 = (256..512).map(|k| f64::from(a[k]) * weight(&c, k, col)).sum();
            assert!((f64::from(*y) - want).abs() <= 1e-35, "{y} {want}");
        }
    }
}

#[test]
fn what_is_not_finite_goes_through() {
    let case = Case::new(40, 20, 4, 40, 0, 1);
    let c = case.codes(40, 20, 40, false);
    for x in [f32::INFINITY, f32::NAN] {
        let mut a = random(80, 2);
        a[3] = x;
        let all = Tier::available().iter();
        let forms =
            all.flat_map(|&t| [PackedCodes::dense(t, &c).unwrap(), PackedCodes::sparse(t, &c).unwrap()]);
        for packed in forms.flatten() {
            let mut y = vec![0.0; 40];
            let e = Epilogue::default();
            gemm_packed(&Serial, Precision::Float, 2, (&a, 40), &packed, (&mut y, 20), 1.0, &e).unwrap();
            for (col, y) in y[..20].iter().enumerate() {
                let want = x * weight(&c, 3, col) as f32;
                assert!(if want.is_nan() { y.is_nan() } else { *y == want }, "{y} {want}");
            }
            assert!(y[20..].iter().all(|y| y.is_finite()));
        }
    }
}

#[test]
fn tiny_and_huge_activations_do_not_overflow() {
    let case = Case::new(32, 16, 8, 32, 0, 3);
    let c = case.codes(32, 16, 32, false);
    for x in [f32::from_bits(1), f32::MIN_POSITIVE, 1e-30, 1.9999999, 3e27, 3e35, 0.0] {
        let a = vec![x; 32];
        for &tier in Tier::available() {
            let packed = PackedCodes::new(tier, &c).unwrap().unwrap();
            for precision in [Precision::Float, Precision::Bytes] {
                let mut y = vec![f32::NAN; 16];
                gemm_packed(
                    &Serial,
                    precision,
                    1,
                    (&a, 32),
                    &packed,
                    (&mut y, 16),
                    1.0,
                    &Epilogue::default(),
                )
                .unwrap();
                for (col, y) in y.iter().enumerate() {
                    let sum: f64 = (0..32).map(|k| weight(&c, k, col)).sum();
                    let want = sum * f64::from(x);
                    assert!(
                        (f64::from(*y) - want).abs() <= want.abs() * 1e-2 + 1e-35,
                        "{x:e}: {y:e} {want:e}"
                    );
                }
            }
        }
    }
}

#[test]
fn hostile_sizes_are_errors() {
    let case = Case::new(32, 16, 4, 32, 0, 1);
    let good = case.codes(32, 16, 32, false);
    assert!(PackedCodes::new(Tier::Portable, &Codes { n: 17, ..good }).is_err());
    assert!(PackedCodes::new(Tier::Portable, &Codes { scale: &case.scale[1..], ..good }).is_err());
    assert!(PackedCodes::new(Tier::Portable, &Codes { table: Some(&[1.0; 3]), ..good }).is_err());
    assert!(PackedCodes::new(Tier::Portable, &Codes { block: 0, ..good }).unwrap().is_none());
    let packed = PackedCodes::new(Tier::Portable, &good).unwrap().unwrap();
    let mut y = [0.0; 16];
    let e = Epilogue::default();
    assert!(
        gemm_packed(&Serial, Precision::Float, 2, (&[0.0; 40], 32), &packed, (&mut y, 16), 1.0, &e).is_err()
    );
    assert!(
        gemm_packed(&Serial, Precision::Float, 1, (&[0.0; 32], 32), &packed, (&mut y[1..], 16), 1.0, &e)
            .is_err()
    );
}

#[test]
fn many_zeros_of_large_weights_lie_behind_a_bitmap() {
    let case = Case::new(64, 32, 8, 64, 0, 3);
    let c = case.codes(64, 32, 64, false);
    let zeros = vec![8u8; 64 * 32];
    for &tier in Tier::available() {
        let small = PackedCodes::new(tier, &Codes { codes: &zeros, ..c }).unwrap().unwrap();
        assert!(small.kept.is_none());
    }
    let large = Codes { k: 4096, n: 4096, ..c };
    let all = 4096 * 4096;
    assert!(PackedCodes::bitmap_pays(&large, all / 10 * 7));
    assert!(!PackedCodes::bitmap_pays(&large, all / 2));
    assert!(!PackedCodes::bitmap_pays(&Codes { bits: 4, ..large }, all));
}

#[test]
fn rows_for_which_weights_stay_packed() {
    let case = Case::new(64, 32, 8, 64, 0, 3);
    let c = case.codes(64, 32, 64, false);
    let (float, words) = (Precision::Float, Precision::Words);
    for &tier in Tier::available() {
        for m in [1, 4, 5] {
            assert_eq!(PackedCodes::for_rows(tier, &c, m, float).unwrap().is_some(), m <= 4);
        }
        let table: Vec<f32> = (0..16).map(|i| i as f32).collect();
        let tabled = Codes { bits: 4, table: Some(&table), zero: Zero::One(0), ..c };
        assert!(PackedCodes::pays(tier, &tabled, 1, float) && !PackedCodes::pays(tier, &tabled, 2, float));
        let long = Codes { k: 512, n: 512, block: 512, ..c };
        let most = |float, words| if tier == Tier::Avx512 { (float, words) } else { (4, 4) };
        for (c, (float_most, words_most)) in [
            (long, most(1024, PackedCodes::MOST_ROWS)),
            (Codes { bits: 4, block: 32, ..long }, most(128, PackedCodes::MOST_ROWS)),
        ] {
            for (precision, most) in [(float, float_most), (words, words_most)] {
                assert!(PackedCodes::pays(tier, &c, most, precision));
                assert!(!PackedCodes::pays(tier, &c, most + 1, precision));
            }
        }
    }
}

/// Weights packed for one number of rows serve all that are decided alike.
#[test]
fn numbers_of_rows_are_decided_alike_between_steps() {
    for tier in [Tier::Portable, Tier::Avx512] {
        for (k, n, bits, block, kind) in [
            (64, 32, 8, 64, 0),
            (512, 32, 8, 64, 0),
            (512, 32, 4, 32, 0),
            (512, 2048, 8, 64, 2),
            (512, 32, 4, 32, 2),
            (512, 32, 8, 512, 1),
        ] {
            let case = Case::new(k, n, bits, block, kind, 3);
            let c = case.codes(k, n, block, false);
            for m in (1..1100).chain([65_535, 65_536, 65_537, 1 << 20]) {
                let like = PackedCodes::rows_like(m);
                assert_eq!(m <= 4, like <= 4, "{m}");
                for precision in [Precision::Float, Precision::Words] {
                    let pays = |m| PackedCodes::pays(tier, &c, m, precision);
                    assert_eq!(pays(m), pays(like), "{tier:?} {k} {n} {bits} {block} {kind} {m}");
                }
            }
        }
    }
}
