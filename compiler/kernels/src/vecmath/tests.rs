//! Every function on every tier against `f64`, over a dense sweep of bit patterns.

use super::*;

/// Bit patterns at a stride that hits every exponent about 500 times, and the special values.
fn sweep() -> Vec<f32> {
    let stride = if cfg!(miri) { 40_000_003 } else { 16_411 };
    let specials = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.5,
        -0.5,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        f32::MAX,
        f32::MIN,
        f32::MIN_POSITIVE,
        -f32::MIN_POSITIVE,
        1e-45,
        -1e-45,
        88.72,
        88.73,
        89.5,
        -87.3,
        -87.5,
        -103.9,
        -104.1,
    ];
    (0..=u32::MAX).step_by(stride).map(f32::from_bits).chain(specials).collect()
}

/// Where activations live: `[-20, 20]` evenly.
fn middle() -> Vec<f32> {
    let steps = if cfg!(miri) { 50 } else { 200_000 };
    (0..=steps).map(|i| -20.0 + 40.0 * i as f32 / steps as f32).collect()
}

fn erf64(x: f64) -> f64 {
    let a = x.abs();
    if a > 6.0 {
        return 1f64.copysign(x);
    }
    let (mut term, mut sum, mut k) = (a, a, 0.0);
    while term > sum * 1e-18 {
        k += 1.0;
        term *= 2.0 * a * a / (2.0 * k + 1.0);
        sum += term;
    }
    (2.0 / std::f64::consts::PI.sqrt() * (-a * a).exp() * sum).copysign(x)
}

fn sigmoid64(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn exact(f: Function, x: f32) -> f64 {
    let x = f64::from(x);
    let d = f64::from;
    let elu = |x: f64, a: f32| if x > 0.0 { x } else { d(a) * x.exp_m1() };
    let hard = |x: f64, a: f32, b: f32| (d(a) * x + d(b)).clamp(0.0, 1.0);
    match f {
        Function::Exp => x.exp(),
        Function::Log => x.ln(),
        Function::Tanh => x.tanh(),
        Function::Erf => erf64(x),
        Function::Sigmoid => sigmoid64(x),
        Function::Silu => x * sigmoid64(x),
        Function::Gelu => 0.5 * x * (1.0 + erf64(x / 2f64.sqrt())),
        Function::GeluTanh => {
            0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh())
        }
        Function::QuickGelu { alpha } => x * sigmoid64(d(alpha) * x),
        Function::Softplus => x.max(0.0) + (-x.abs()).exp().ln_1p(),
        Function::Mish => {
            let e = x.min(300.0).exp();
            let n = e * (e + 2.0);
            x * (n / (n + 2.0))
        }
        Function::Softsign => x / (1.0 + x.abs()),
        Function::Sin => x.sin(),
        Function::Cos => x.cos(),
        Function::Tan => x.tan(),
        Function::Sinh => x.sinh(),
        Function::Cosh => x.cosh(),
        Function::Asin => x.asin(),
        Function::Acos => x.acos(),
        Function::Atan => x.atan(),
        Function::Sqrt => x.sqrt(),
        Function::Rsqrt => 1.0 / x.sqrt(),
        Function::Reciprocal => 1.0 / x,
        Function::Abs => x.abs(),
        Function::Neg => -x,
        Function::Floor => x.floor(),
        Function::Ceil => x.ceil(),
        Function::Round => x.round_ties_even(),
        Function::Sign => {
            if x == 0.0 || x.is_nan() {
                x
            } else {
                x.signum()
            }
        }
        Function::Relu => {
            if x.is_nan() {
                x
            } else {
                x.max(0.0)
            }
        }
        Function::Clip { lo, hi } => {
            if x.is_nan() {
                x
            } else {
                x.max(d(lo)).min(d(hi))
            }
        }
        Function::LeakyRelu { slope } => {
            if x < 0.0 {
                d(slope) * x
            } else {
                x
            }
        }
        Function::ThresholdedRelu { alpha } => {
            if x > d(alpha) {
                x
            } else {
                0.0
            }
        }
        Function::Elu { alpha } => elu(x, alpha),
        Function::Selu { alpha, gamma } => d(gamma) * elu(x, alpha),
        Function::Celu { alpha } => {
            if x > 0.0 {
                x
            } else {
                d(alpha) * (x / d(alpha)).exp_m1()
            }
        }
        Function::HardSigmoid { alpha, beta } => hard(x, alpha, beta),
        Function::HardSwish => x * hard(x, 1.0 / 6.0, 0.5),
    }
}

fn all() -> Vec<Function> {
    let mut fs: Vec<Function> = ENTRIES.iter().map(|e| e.1).collect();
    fs.extend([
        Function::QuickGelu { alpha: 1.702 },
        Function::Clip { lo: -1.5, hi: 6.0 },
        Function::LeakyRelu { slope: 0.01 },
        Function::ThresholdedRelu { alpha: 1.0 },
        Function::Elu { alpha: 1.0 },
        Function::Elu { alpha: 0.3 },
        Function::Selu { alpha: 1.673_263_2, gamma: 1.050_701 },
        Function::Celu { alpha: 1.7 },
        Function::HardSigmoid { alpha: 0.2, beta: 0.5 },
    ]);
    fs
}

/// Distance of `got` from `want` in units in the last place of `want` rounded to `f32`.
pub(crate) fn ulps(got: f32, want: f64) -> f64 {
    let rounded = want as f32;
    if got.is_nan() || want.is_nan() {
        return if got.is_nan() == want.is_nan() { 0.0 } else { f64::INFINITY };
    }
    if got == rounded {
        return 0.0;
    }
    if rounded.is_infinite() || got.is_infinite() {
        return if got.abs() == f32::MAX || rounded.abs() == f32::MAX { 1.0 } else { f64::INFINITY };
    }
    let exponent = rounded.abs().max(f32::MIN_POSITIVE).log2().floor();
    (f64::from(got) - want).abs() / 2f64.powi(exponent as i32 - 23)
}

fn worst(f: Function, tier: Tier, xs: &[f32], want: &[f64]) -> (f64, f32, f32) {
    let mut ys = vec![0.0; xs.len()];
    map_on(tier, f, xs, &mut ys).unwrap();
    let mut worst = (0.0, 0.0, 0.0);
    for ((&x, &y), &w) in xs.iter().zip(&ys).zip(want) {
        let error = match (f.ulp(), w.is_finite() && y.is_finite()) {
            (None, true) => (f64::from(y) - w).abs() / f64::from(x.abs()).max(1.0) * 2f64.powi(23),
            _ => ulps(y, w),
        };
        if error > worst.0 {
            worst = (error, x, y);
        }
    }
    worst
}

#[test]
fn errors_stay_inside_the_stated_bounds() {
    let xs: Vec<f32> = sweep().into_iter().chain(middle()).collect();
    let mut failures = Vec::new();
    for f in all() {
        let want: Vec<f64> = xs.iter().map(|&x| exact(f, x)).collect();
        for &tier in Tier::available() {
            let slack = if tier == Tier::Portable { 2.0 } else { 0.0 };
            let (error, x, y) = worst(f, tier, &xs, &want);
            let bound = f64::from(f.ulp().unwrap_or(2.1)) + slack + 1e-3;
            println!("{f:?} {tier:?}: {error:.2} at {x:e}");
            if error > bound {
                failures.push(format!("{f:?} {tier:?}: {error:.2} > {bound} at {x:e} giving {y:e}"));
            }
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn signed_zero_survives_odd_functions() {
    use Function::*;
    for f in [Tanh, Erf, Sin, Tan, Sinh, Silu, Gelu, GeluTanh, Softsign, Neg, Floor, Ceil, Round, Sign, Sqrt]
    {
        let mut y = [0f32; 2];
        for &tier in Tier::available() {
            map_on(tier, f, &[-0.0, 0.0], &mut y).unwrap();
            let flip = f == Neg;
            assert_eq!(
                y.map(f32::to_bits),
                [-0f32, 0.0].map(|z| if flip { -z } else { z }.to_bits()),
                "{f:?}"
            );
        }
    }
}

#[test]
fn tails_equal_the_body() {
    let xs = middle();
    let whole = {
        let mut y = vec![0.0; 100];
        map(Function::Gelu, &xs[..100], &mut y).unwrap();
        y
    };
    for &tier in Tier::available() {
        for n in 0..70 {
            let mut y = vec![7.0; n + 1];
            map_on(tier, Function::Relu, &xs[..n], &mut y[..n]).unwrap();
            assert!(y[..n].iter().zip(&xs).all(|(y, x)| *y == x.max(0.0)) && y[n] == 7.0);
        }
    }
    for n in 0..70 {
        let mut y = xs[..n].to_vec();
        map_in_place(Function::Gelu, &mut y);
        assert_eq!(y, whole[..n]);
    }
}

#[test]
fn pow_is_correct_to_an_ulp_and_equal_on_all_tiers() {
    let xs: Vec<f32> = sweep().into_iter().step_by(7).collect();
    let mut first: Option<Vec<f32>> = None;
    for &tier in Tier::available() {
        let mut all = Vec::new();
        for e in [0.5, 0.25, -0.5, 2.2, 1.7, -3.3, 10.0, 0.001, f32::INFINITY, f32::NAN] {
            let ys = vec![e; xs.len()];
            let mut z = vec![0.0; xs.len()];
            pow_on(tier, &xs, &ys, &mut z).unwrap();
            for (&x, &z) in xs.iter().zip(&z) {
                let error = ulps(z, f64::from(x).powf(f64::from(e)));
                assert!(error <= 1.0, "{x:e}^{e} = {z:e}: {error} ulp");
            }
            all.extend(z);
        }
        let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(first.get_or_insert(all.clone())), bits(&all));
    }
}

#[test]
fn easy_exponents_multiply() {
    let x = [-2.0, 3.0, 0.5];
    for (e, want) in [
        (0.0, [1.0, 1.0, 1.0]),
        (1.0, x),
        (2.0, [4.0, 9.0, 0.25]),
        (3.0, [-8.0, 27.0, 0.125]),
        (4.0, [16.0, 81.0, 0.0625]),
        (-1.0, [-0.5, 1.0 / 3.0, 2.0]),
        (-2.0, [0.25, 1.0 / 9.0, 4.0]),
    ] {
        let mut z = [0.0; 3];
        pow(&x, &[e], &mut z).unwrap();
        assert_eq!(z, want);
    }
    assert!(pow(&x, &[1.0, 2.0], &mut [0.0; 3]).is_err());
}
