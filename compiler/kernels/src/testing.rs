//! What the tests of contractions share: data, a pool of two threads, the epilogue in f64.

use crate::epilogue::{Activation, Epilogue};
use crate::parallel::Pool;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Reproducible values in -1..1.
pub(crate) fn random(len: usize, seed: u64) -> Vec<f32> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            (x >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

/// Reproducible bytes.
pub(crate) fn bytes(len: usize, seed: u64) -> Vec<u8> {
    random(len, seed).into_iter().map(|x| ((x + 1.0) * 128.0) as u8).collect()
}

/// A byte as the integer it stands for.
pub(crate) fn int(b: u8, signed: bool) -> i32 {
    if signed { i32::from(b as i8) } else { i32::from(b) }
}

/// ONNX `QuantizeLinear` by its definition.
pub(crate) fn quantized(x: f32, scale: f32, zero: i32, signed: bool) -> u8 {
    let (low, high) = if signed { (-128, 127) } else { (0, 255) };
    ((x / scale).round_ties_even() as i32).saturating_add(zero).clamp(low, high) as u8
}

/// How a contraction stores a sum of integers as a byte when nothing but a bias comes between.
pub(crate) fn requantized(sum: i32, scale: f32, bias: f32, (s, zero, signed): (f32, i32, bool)) -> u8 {
    quantized(sum as f32 * (scale / s) + bias / s, 1.0, zero, signed)
}

/// How a contraction stores a value as a byte, where a function with or without a factor and an addend for each column
/// comes between: rounded to a whole number once where these are the same for all.
pub(crate) fn bent(e: &Epilogue, value: f32, col: usize, (s, zero, signed): (f32, i32, bool)) -> u8 {
    let x = match e.act {
        Activation::LeakyRelu(slope) if value < 0.0 => slope * value,
        Activation::LeakyFrom { slope, low } if value < 0.0 => (slope * value).max(low),
        Activation::LeakyFrom { low, .. } => value.max(low),
        Activation::HardSwish => value * value.mul_add(1.0 / 6.0, 0.5).clamp(0.0, 1.0),
        Activation::Relu => value.max(0.0),
        _ => value,
    };
    let same = |v: &[f32]| v.iter().all(|x| *x == v[0]);
    match e.affine {
        None => quantized(x * (1.0 / s), 1.0, zero, signed),
        Some(a) if same(a.scale) && same(a.shift) => {
            quantized(x * (a.scale[0] / s) + a.shift[0] / s, 1.0, zero, signed)
        }
        Some(a) => quantized(x * a.scale[col] + a.shift[col], s, zero, signed),
    }
}

/// What [`bent`] is tried with: factors and addends for each of `n` columns.
pub(crate) fn bends(n: usize) -> Vec<(Activation, Option<[Vec<f32>; 2]>)> {
    vec![
        (Activation::LeakyRelu(0.1), None),
        (Activation::LeakyFrom { slope: 0.2, low: -0.05 }, None),
        (Activation::HardSwish, Some([vec![1.5; n], vec![-0.25; n]])),
        (Activation::Relu, Some([vec![-0.75; n], vec![0.5; n]])),
        (Activation::Relu, Some([random(n, 7), random(n, 8)])),
    ]
}

/// Two threads, each taking the next task.
pub(crate) struct Two;

impl Pool for Two {
    fn threads(&self) -> usize {
        2
    }

    fn run(&self, tasks: usize, f: &(dyn Fn(usize) + Sync)) {
        let next = AtomicUsize::new(0);
        let work = || {
            loop {
                let task = next.fetch_add(1, Ordering::Relaxed);
                if task >= tasks {
                    break;
                }
                f(task);
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(work);
            work();
        });
    }
}

/// Equal within the rounding of a sum of `k` products of values below one.
pub(crate) fn close(found: &[f32], wanted: &[f64], k: usize) {
    assert_eq!(found.len(), wanted.len());
    let tolerance = 4e-7 * (4.0 + k as f64);
    for (i, (&f, &w)) in found.iter().zip(wanted).enumerate() {
        assert!((f64::from(f) - w).abs() <= tolerance, "element {i}: {f} is not {w}, K = {k}");
    }
}

/// The epilogue of the sum at `row`, `col`.
pub(crate) fn finished(e: &Epilogue, sum: f64, row: usize, col: usize) -> f64 {
    let mut x = sum + e.bias.map_or(0.0, |b| f64::from(b[col]));
    let residual = e.residual.map(|r| (f64::from(r.data[row * r.row_stride + col]), r.after_activation));
    if let Some((r, false)) = residual {
        x += r;
    }
    x = activated(e.act, x);
    if let Some((r, true)) = residual {
        x += r;
    }
    e.affine.map_or(x, |a| x * f64::from(a.scale[col]) + f64::from(a.shift[col]))
}

fn activated(act: Activation, x: f64) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    match act {
        Activation::None => x,
        Activation::Relu => x.max(0.0),
        Activation::Clip { lo, hi } => x.max(lo.into()).min(hi.into()),
        Activation::LeakyRelu(a) => {
            if x < 0.0 {
                x * f64::from(a)
            } else {
                x
            }
        }
        Activation::LeakyFrom { slope, low } => activated(Activation::LeakyRelu(slope), x).max(low.into()),
        Activation::HardSwish => x * (x / 6.0 + 0.5).clamp(0.0, 1.0),
        Activation::HardSigmoid { alpha, beta } => (f64::from(alpha) * x + f64::from(beta)).clamp(0.0, 1.0),
        Activation::Sigmoid => sigmoid(x),
        Activation::Silu => x * sigmoid(x),
        Activation::Tanh => x.tanh(),
        Activation::GeluErf => x * 0.5 * (1.0 + erf(x / 2f64.sqrt())),
        Activation::GeluTanh => {
            let t = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            0.5 * x * (1.0 + t.tanh())
        }
    }
}

/// The Maclaurin series, enough for the small arguments of the tests.
fn erf(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

/// What quantization and dequantization leave of values, by their definitions.
pub fn on_grid(grid: crate::quantizer::Grid, x: &[f32]) -> Vec<f32> {
    let whole = |x: f32| int(quantized(x, grid.scale, grid.zero, grid.signed), grid.signed);
    x.iter().map(|&x| (whole(x) - grid.zero) as f32 * grid.scale).collect()
}

/// Runs `f` with and without what a CPU has beside its tier for integer products.
pub(crate) fn both(f: impl Fn()) {
    #[cfg(target_arch = "x86_64")]
    crate::amx::both(&f);
    #[cfg(not(target_arch = "x86_64"))]
    f();
}
