//! Where the time of a run goes, against what this machine can do.

use codegen::Program;
use ir::{Result, Value};
use kernels::{Activations, Epilogue, PackedB, PackedI8, Pool, Results, Serial, Strides, Tier, Weights};
use kernels::{gemm_f32, gemm_i8};
use std::time::Instant;

/// Runs that are timed.
const RUNS: usize = 15;

/// One step of a compiled program.
#[derive(Debug, Clone)]
pub struct Step {
    pub name: String,
    pub kind: String,
    /// Median nanoseconds.
    pub ns: f64,
    /// Share of the sum of all steps.
    pub share: f64,
    /// Floating-point operations.
    pub flops: f64,
    /// Bytes read and written.
    pub bytes: f64,
    /// Fraction of the machine's roof for this mix of operations and bytes.
    pub roof: Option<f64>,
}

/// Steps in order, and the measured roofs they are compared with.
#[derive(Debug, Clone)]
pub struct Profile {
    pub steps: Vec<Step>,
    pub peak_gflops: f64,
    /// Of 8-bit products, a multiplication and an addition counted as two.
    pub peak_int8_gops: f64,
    pub peak_gbytes: f64,
}

/// Times every step.
pub fn profile(program: &Program, inputs: &[Value], pool: &dyn Pool) -> Result<Profile> {
    let info = program.steps();
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); info.len()];
    for _ in 0..RUNS {
        let run = program.run_timed(inputs, pool, true)?;
        times.iter_mut().zip(run.nanoseconds).for_each(|(t, ns)| t.push(ns));
    }
    let medians: Vec<f64> = times.iter_mut().map(|t| median(t)).collect();
    let total: f64 = medians.iter().sum();
    let threads = pool.threads() as f64;
    let (flops, integer, bytes) = (measure_flops() * threads, measure_int8() * threads, measure_bytes());
    let steps = info
        .into_iter()
        .zip(medians)
        .map(|(s, ns)| {
            let rate = if s.kind.starts_with("integer") { integer } else { flops };
            let least = (s.flops / rate).max(s.bytes / bytes) * 1e9;
            let roof = (s.kind != "reference" && ns > 0.0).then(|| least / ns);
            let kind = format!("{} ({})", s.kind, s.op);
            Step { name: s.name, kind, ns, share: ns / total.max(1.0), flops: s.flops, bytes: s.bytes, roof }
        })
        .collect();
    Ok(Profile { steps, peak_gflops: flops / 1e9, peak_int8_gops: integer / 1e9, peak_gbytes: bytes / 1e9 })
}

fn median(v: &mut [f64]) -> f64 {
    v.sort_by(f64::total_cmp);
    v.get(v.len() / 2).copied().unwrap_or(0.0)
}

/// Operations per second of one thread on a product that stays in cache.
fn measure_flops() -> f64 {
    let n = 256;
    let (a, b) = (vec![1f32; n * n], vec![1f32; n * n]);
    let mut c = vec![0f32; n * n];
    let Ok(packed) = PackedB::from_kn(Tier::best(), &b, n, n) else { return f64::NAN };
    2.0 * (n * n * n) as f64
        / best_of(20, || {
            let done = gemm_f32(&Serial, n, &a, n, &packed, &mut c, n, 1.0, &Epilogue::default());
            debug_assert!(done.is_ok());
        })
}

/// As [`measure_flops`], of bytes.
fn measure_int8() -> f64 {
    let n = 256;
    let (a, b) = (vec![1u8; n * n], vec![1u8; n * n]);
    let mut c = vec![0f32; n * n];
    let weights = Weights { data: &b, signed: true, zero: &[], scale: &[] };
    let Ok(packed) = PackedI8::from_strided(Tier::best(), &weights, Strides::kn(n), n, n) else {
        return f64::NAN;
    };
    let x = Activations { data: &a, signed: false, zero: 0, scale: 1.0 };
    2.0 * (n * n * n) as f64
        / best_of(20, || {
            let done = gemm_i8(&Serial, n, &x, &packed, &mut Results::F32(&mut c), &Epilogue::default());
            debug_assert!(done.is_ok());
        })
}

/// Seconds of the fastest of some runs.
fn best_of(runs: usize, mut f: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..runs {
        let t = Instant::now();
        f();
        best = best.min(t.elapsed().as_secs_f64());
    }
    best
}

/// Bytes per second read and written by a copy that leaves the inner caches.
fn measure_bytes() -> f64 {
    let n = 4 << 20;
    let (a, mut b) = (vec![1u8; n], vec![0u8; n]);
    2.0 * n as f64
        / best_of(10, || {
            b.copy_from_slice(std::hint::black_box(&a));
            std::hint::black_box(&mut b);
        })
}
