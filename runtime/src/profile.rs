//! Where the time of a run goes, against what this machine can do.

use crate::roof::{Roof, Roofs};
use codegen::Program;
use ir::{Result, Value};
use kernels::Pool;

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
    /// Bytes read and written, constants as they are stored included.
    pub bytes: f64,
    /// The limit of the machine that this mix of operations and bytes meets first, and the fraction of it that the step
    /// reaches. `None` for what the reference semantics run.
    pub roof: Option<(Roof, f64)>,
}

impl Step {
    /// Nanoseconds above the least the machine allows; all of them where no limit is known.
    pub fn lost_ns(&self) -> f64 {
        self.ns * (1.0 - self.roof.map_or(0.0, |(_, reached)| reached.min(1.0)))
    }
}

/// Steps in order, and the measured roofs they are compared with.
#[derive(Debug, Clone)]
pub struct Profile {
    pub steps: Vec<Step>,
    pub roofs: Roofs,
}

impl Profile {
    /// The `n` steps that lose most time to what the machine allows, worst first.
    pub fn farthest(&self, n: usize) -> Vec<&Step> {
        let mut steps: Vec<&Step> = self.steps.iter().collect();
        steps.sort_by(|a, b| b.lost_ns().total_cmp(&a.lost_ns()));
        steps.truncate(n);
        steps
    }
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
    let roofs = Roofs::measure(pool);
    let constants: f64 = info.iter().map(|s| s.constant_bytes).sum();
    let footprint = constants + program.arena_bytes() as f64;
    let steps = info
        .into_iter()
        .zip(medians)
        .map(|(s, ns)| {
            let integers = s.kind.starts_with("integer");
            let (roof, least) = roofs.least(integers, s.flops, s.bytes, s.constant_bytes, footprint);
            let roof = (s.is_sized() && ns > 0.0).then(|| (roof, least * 1e9 / ns));
            let kind = format!("{} ({})", s.kind, s.op);
            let bytes = s.bytes + s.constant_bytes;
            Step { name: s.name, kind, ns, share: ns / total.max(1.0), flops: s.flops, bytes, roof }
        })
        .collect();
    Ok(Profile { steps, roofs })
}

fn median(v: &mut [f64]) -> f64 {
    v.sort_by(f64::total_cmp);
    v.get(v.len() / 2).copied().unwrap_or(0.0)
}
