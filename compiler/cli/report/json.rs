//! The report as JSON with stable keys.

use super::Facts;
use crate::exit::{Failure, Result};
use crate::files;
use search::{Decision, LayerDecision, Repair};
use serde::Deserialize;
use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;

/// Version of the keys.
const SCHEMA: u32 = 1;

pub fn value(f: &Facts, d: &Decision) -> Value {
    json!({
        "schema": SCHEMA,
        "tool": format!("compress {}", env!("CARGO_PKG_VERSION")),
        "goal": f.goal,
        "verdict": d.status,
        "input": {"path": f.model, "bytes": f.input_bytes, "blake3": f.input_hash, "nodes": f.nodes.0},
        "output": {"path": f.output, "bytes": f.output_bytes, "nodes_after_exact_rewrites": f.nodes.1,
                   "ratio": f.input_bytes as f64 / f.output_bytes.max(1) as f64},
        "metric": {"name": d.metric.map(|m| m.name()), "selection": d.selection, "held_back": d.held_back,
                   "samples": {"calibration": d.samples[0], "selection": d.samples[1], "held_back": d.samples[2]}},
        "predicted_distortion": d.predicted,
        "distortion": d.prediction().map(|(predicted, measured)| json!({
            "predicted": predicted, "measured": measured, "ratio": measured / predicted.max(f64::MIN_POSITIVE)})),
        "repair": d.repair,
        "optimality_gap": d.gap,
        "latency": d.latency,
        "layers": d.layers,
        "trials": d.trials,
        "front": d.front.iter().map(|(b, e)| json!({"bytes": b, "predicted_distortion": e})).collect::<Vec<_>>(),
        "exact_rules": f.rules.iter().map(|(n, k)| json!({"rule": n, "fired": k})).collect::<Vec<_>>(),
        "notes": d.notes,
        "repro": {"seed": f.seed, "robust": f.robust, "seconds": f.seconds},
    })
}

/// What other commands read of a report.
#[derive(Debug, Deserialize)]
pub struct Report {
    pub goal: String,
    pub layers: Vec<LayerDecision>,
    pub repro: Repro,
    pub repair: Option<Repair>,
}

#[derive(Debug, Deserialize)]
pub struct Repro {
    pub seed: u64,
    #[serde(default)]
    pub robust: Vec<String>,
}

/// Reads a report that an earlier run wrote.
pub fn read(path: &Path) -> Result<Report> {
    let bytes = files::read(path)?;
    serde_json::from_slice(&bytes)
        .map_err(|e| Failure::bad(format!("{}: not a .report.json that compress wrote: {e}", path.display())))
}

pub fn write(w: &mut impl Write, f: &Facts, d: &Decision) -> std::io::Result<()> {
    writeln!(w, "{:#}", value(f, d))
}
