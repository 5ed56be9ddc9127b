//! How much each layer's error shows in the model's output: one perturbed run per layer.
//!
//! With e the layer error of a candidate (from the Gram matrix) and d the output distortion it causes when only this
//! layer changes, the gain d/e prices every other candidate of the layer; distortions of different layers add up.

use crate::apply::dense;
use crate::goal::{Progress, Samples, check, late};
use crate::metric::Reference;
use crate::pairs::Moves;
use crate::shelf::Shelf;
use crate::table::Row;
use ir::{Evaluate, Graph, Result, Value};
use rayon::prelude::*;

/// Relative layer error of the probe: large against float rounding, small enough to stay linear.
const PROBE: f64 = 3e-3;
/// Numbers of all moves together, and of one sample of one of them.
const MOVES: usize = 1 << 22;
const MOVE: usize = 1 << 12;
/// Share of the time after which no more layers are probed.
const PROBED: f64 = 0.55;

/// What `one` gives for each sample, in order; side by side where the engine allows it.
pub fn each<T: Send>(
    which: &[usize],
    evaluate: &dyn Evaluate,
    one: impl Fn(usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    if evaluate.side_by_side() {
        which.par_iter().map(|&i| one(i)).collect()
    } else {
        which.iter().map(|&i| one(i)).collect()
    }
}

/// Model outputs on some samples.
pub fn outputs(
    graph: &Graph,
    samples: &dyn Samples,
    which: &[usize],
    evaluate: &dyn Evaluate,
    progress: &dyn Progress,
) -> Result<Vec<Vec<Value>>> {
    each(which, evaluate, |i| {
        check(progress)?;
        Ok(evaluate.run(graph, &samples.feeds(i)?, &[])?.outputs)
    })
}

/// Sets every row's gain from a run of the model with only that layer changed: to the candidate that `columns` choose, else
/// to one of a usual error. Gives the moves of the output where columns were given.
pub fn measure_gains(
    graph: &Graph,
    rows: &mut [Row],
    columns: Option<&[usize]>,
    shelf: &dyn Shelf,
    reference: &Reference,
    samples: &dyn Samples,
    which: &[usize],
    evaluate: &dyn Evaluate,
    progress: &dyn Progress,
) -> Result<Moves> {
    progress.stage("sensitivity", rows.len());
    let width = (MOVES / (rows.len() * which.len()).max(1)).clamp(1, MOVE);
    let mut moves: Moves = vec![None; rows.len()];
    // Large layers first: time may end before all are probed.
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(rows[i].bytes));
    let mut skipped = Vec::new();
    for i in order {
        let row = &mut rows[i];
        let chosen = columns.and_then(|c| c.get(i)?.checked_sub(1));
        let chosen = chosen.filter(|&c| row.candidates[c].head.error > 0.0);
        if columns.is_none() && late(progress, PROBED) {
            skipped.push(i);
        } else if let Some(probe) = chosen.or_else(|| probe(row)) {
            let c = &row.candidates[probe];
            let changed = dense(graph, &[(&row.layer, c)], shelf)?;
            let found = outputs(&changed, samples, which, evaluate, progress);
            evaluate.forget();
            let found = found?;
            let d = reference.distance(&found);
            moves[i] = chosen.map(|_| reference.change(&found, width));
            row.gain = if c.head.error > 0.0 { d / c.head.error } else { 0.0 };
        }
        progress.step();
    }
    if !skipped.is_empty() {
        progress.cut("layers probed", rows.len() - skipped.len(), rows.len());
        assume_usual(rows, &skipped);
    }
    floor_gains(rows);
    Ok(moves)
}

/// The candidate whose relative error is nearest to the probe's.
fn probe(row: &Row) -> Option<usize> {
    let off = |e: f64| ((e / row.power.max(1e-300)).max(1e-300).ln() - PROBE.ln()).abs();
    (0..row.candidates.len())
        .filter(|&i| row.candidates[i].head.error > 0.0)
        .min_by(|&a, &b| off(row.candidates[a].head.error).total_cmp(&off(row.candidates[b].head.error)))
}

/// A layer whose change did not show on these samples may show on others: no relative gain below a thousandth of the
/// median.
fn floor_gains(rows: &mut [Row]) {
    let mut relative: Vec<f64> = rows.iter().filter(|r| r.gain > 0.0).map(|r| r.gain * r.power).collect();
    relative.sort_by(f64::total_cmp);
    let Some(&median) = relative.get(relative.len() / 2) else { return };
    for r in rows {
        if r.power > 0.0 {
            r.gain = r.gain.max(1e-3 * median / r.power);
        }
    }
}

/// Layers that were not probed show as much as the median of the others, relative to their power; where none was probed,
/// as much as they have.
fn assume_usual(rows: &mut [Row], skipped: &[usize]) {
    let mut relative: Vec<f64> =
        (0..rows.len()).filter(|i| !skipped.contains(i)).map(|i| rows[i].gain * rows[i].power).collect();
    relative.retain(|&g| g > 0.0);
    relative.sort_by(f64::total_cmp);
    let usual = relative.get(relative.len() / 2).copied().unwrap_or(1.0);
    for &i in skipped {
        rows[i].gain = if rows[i].power > 0.0 { usual / rows[i].power } else { 0.0 };
    }
}

/// Without data: errors relative to each layer's own size, all layers alike.
pub fn assume_gains(rows: &mut [Row]) {
    for r in rows {
        r.gain = if r.power > 0.0 { 1.0 / r.power } else { 0.0 };
    }
}
