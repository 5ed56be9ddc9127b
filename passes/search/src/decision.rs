//! The decision of the search, ready to be stored: it is the report.

use crate::clock::Latency;
use crate::histogram::Histogram;
use crate::knapsack::Solution;
use crate::metric::{Measured, Metric};
use crate::table::Row;
use ir::Graph;
use lossy::{Layer, candidate::tensor_bytes, layer::subgraph};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How the search ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// The goal is met on data the search did not use.
    Met,
    /// No selection met the goal; the decision is the closest one.
    NotReached,
    /// The goal is met only by leaving everything as it is.
    NothingGained,
    /// Speed was the goal, and measured beside the original the selection is not faster.
    NotFaster,
    /// There was no data: errors are those of the weights alone.
    Unchecked,
    /// The data are too few to promise the drop; the note says how many it takes.
    Unsupported,
}

/// The alternative one step cheaper.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunnerUp {
    pub recipe: String,
    pub bytes: u64,
    /// Distortion it would add to the prediction.
    pub extra_error: f64,
    /// Nanoseconds of the layer with it, where speed was the goal.
    #[serde(default)]
    pub ns: Option<f64>,
}

/// How many channels of a layer are left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channels {
    /// Kept and original number of output channels.
    pub outputs: [usize; 2],
    /// Kept and original number of input channels.
    pub inputs: [usize; 2],
}

/// What happened to one layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerDecision {
    pub layer: String,
    pub weight: String,
    pub op: String,
    pub shape: Vec<usize>,
    pub method: String,
    pub recipe: String,
    /// Set when the layer lost channels.
    pub channels: Option<Channels>,
    pub bytes_before: u64,
    /// Of what is stored once for several layers, its part.
    pub bytes_after: u64,
    /// Layers that use what is stored once for this one too; 0 where it is stored alone.
    #[serde(default)]
    pub sharing: usize,
    /// Predicted distortion of the model output from this layer.
    pub error: f64,
    /// Its share of the predicted distortion.
    pub share: f64,
    /// Output distortion per unit of layer error.
    pub gain: f64,
    /// Layer error relative to the power of the layer's output.
    pub relative_error: f64,
    /// Input vectors seen in calibration.
    pub vectors: u64,
    pub runner_up: Option<RunnerUp>,
    /// Every undominated candidate as (recipe, bytes, predicted distortion).
    pub candidates: Vec<(String, u64, f64)>,
    /// Nanoseconds of the layer in the original and as chosen, and with every candidate beside the chosen neighbours, where
    /// that was measured.
    #[serde(default)]
    pub ns_before: Option<f64>,
    #[serde(default)]
    pub ns_after: Option<f64>,
    #[serde(default)]
    pub candidates_ns: Vec<Option<f64>>,
    /// Methods that offered nothing, with the reason.
    pub refusals: Vec<(String, String)>,
    /// The argument of `--layer` that fixes this choice.
    pub pin: String,
    /// How its weights lie, before and after.
    #[serde(default)]
    pub weights: Option<Histogram>,
}

impl Decision {
    /// Predicted and measured relative output error of the selection before repair, on the samples that chose.
    pub fn prediction(&self) -> Option<(f64, f64)> {
        let measured = self.repair.map(|r| r.before).or(self.selection.map(|m| m.distortion))?;
        // A judge tells no error.
        (measured > 0.0).then_some((self.predicted, measured))
    }
}

impl LayerDecision {
    /// The recipe, with the channels that are left.
    pub fn summary(&self) -> String {
        let left = |what: &str, [now, of]: [usize; 2]| {
            if now < of { format!(", {now} of {of} {what}") } else { String::new() }
        };
        match self.channels {
            Some(c) => format!("{}{}{}", self.recipe, left("outputs", c.outputs), left("inputs", c.inputs)),
            None => self.recipe.clone(),
        }
    }
}

/// One evaluation of the true metric during the search.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// Budget of predicted distortion.
    pub budget: f64,
    pub bytes: u64,
    pub predicted: f64,
    pub measured: Measured,
    pub passed: bool,
}

/// What repair did: the squared output error relative to the output's power, on samples that it was not fitted to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Repair {
    pub before: f64,
    pub after: f64,
    /// Whether scales and biases were tuned on the outputs after it.
    pub tuned: bool,
}

/// The whole decision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    pub status: Status,
    pub metric: Option<Metric>,
    /// Measured on the samples that chose.
    pub selection: Option<Measured>,
    /// Measured on samples the search did not use.
    pub held_back: Option<Measured>,
    /// Numbers of samples: calibration, selection, held back.
    pub samples: [usize; 3],
    /// Predicted relative output distortion: the sum over layers and `together`.
    pub predicted: f64,
    /// What errors of layers are predicted to do together beyond their sum; negative where they cancel.
    #[serde(default)]
    pub together: f64,
    /// Bytes of all layers before and after.
    pub bytes_before: u64,
    pub bytes_after: u64,
    /// No selection within the same budget is smaller (or better) by more than this share.
    pub gap: f64,
    /// Measured when speed was the goal.
    pub latency: Option<Latency>,
    pub trials: Vec<Trial>,
    /// What the knapsack offers around the choice: bytes of all layers and predicted distortion.
    pub front: Vec<(u64, f64)>,
    pub layers: Vec<LayerDecision>,
    pub notes: Vec<String>,
    /// Set when layers were repaired.
    pub repair: Option<Repair>,
}

/// One line per layer for a solved knapsack.
pub fn layers(original: &Graph, rows: &[Row], solution: &Solution) -> Vec<LayerDecision> {
    let own = |(r, &c): (&Row, &usize)| {
        c.checked_sub(1).and_then(|i| Some(r.distortion(i, r.candidates.get(i)?))).unwrap_or(0.0)
    };
    let total = rows.iter().zip(&solution.choice).map(own).sum::<f64>().max(f64::MIN_POSITIVE);
    let mut users: BTreeMap<u64, u64> = BTreeMap::new();
    let common = |r: &Row, c: usize| r.candidate(c).and_then(|o| o.head.common);
    for common in rows.iter().zip(&solution.choice).filter_map(|(r, &c)| common(r, c)) {
        *users.entry(common.id).or_default() += 1;
    }
    let mut first = users.clone();
    let one = |(r, &c): (&Row, &usize)| {
        let alone = layer(original, r, c, total);
        let Some((head, common)) = r.candidate(c).and_then(|o| Some((&o.head, o.head.common?))) else {
            return alone;
        };
        // Those that use it pay alike, the first one what is left.
        let n = users.get(&common.id).copied().unwrap_or(1);
        let rest = first.remove(&common.id).map_or(0, |n| common.bytes % n);
        let bytes_after = head.own_bytes() + common.bytes / n + rest;
        LayerDecision { bytes_after, sharing: n as usize, ..alone }
    };
    rows.iter().zip(&solution.choice).map(one).collect()
}

fn layer(original: &Graph, row: &Row, column: usize, total: f64) -> LayerDecision {
    let l = &row.layer;
    let whole = subgraph(original, &l.path).and_then(|g| g.constant(l.value)).unwrap_or(&l.tensor);
    let before = if l.stored.is_empty() { tensor_bytes(whole) } else { l.bytes() };
    let chosen = row.candidate(column).map(|o| &o.head);
    let bytes = chosen.map_or(row.bytes, |c| c.bytes);
    let own = chosen.map_or(0.0, |c| c.error);
    let error =
        column.checked_sub(1).and_then(|i| Some(row.distortion(i, row.candidates.get(i)?))).unwrap_or(0.0);
    let cheaper = row.candidates.iter().map(|o| &o.head).filter(|c| c.bytes < bytes).max_by_key(|c| c.bytes);
    let recipe = chosen.map_or("keep", |c| &c.recipe);
    LayerDecision {
        layer: l.name.clone(),
        weight: l.weight.clone(),
        op: l.op.clone(),
        shape: whole.shape().to_vec(),
        method: chosen.map_or("keep", |c| c.method).to_string(),
        recipe: recipe.to_string(),
        channels: channels(l, whole.shape()),
        bytes_before: before,
        bytes_after: bytes,
        sharing: 0,
        error,
        share: error / total,
        gain: row.gain,
        relative_error: if row.power > 0.0 { own / row.power } else { 0.0 },
        vectors: row.vectors,
        runner_up: cheaper.map(|c| RunnerUp {
            recipe: c.recipe.clone(),
            bytes: c.bytes,
            extra_error: c.error * row.gain - error,
            ns: None,
        }),
        candidates: row
            .candidates
            .iter()
            .map(|o| &o.head)
            .map(|c| (c.recipe.clone(), c.bytes, c.error * row.gain))
            .collect(),
        ns_before: None,
        ns_after: None,
        candidates_ns: Vec::new(),
        refusals: row.refusals.clone(),
        pin: format!("^{}$={recipe}", regex::escape(&l.name)),
        weights: None,
    }
}

/// Channels of a layer against those of its weight in the original.
fn channels(l: &Layer, whole: &[usize]) -> Option<Channels> {
    let now = l.tensor.shape();
    let (rows, cols) = if l.view.transposed { (1, 0) } else { (0, 1) };
    let pair = |axis: usize| Some([*now.get(axis)?, *whole.get(axis)?]);
    (now != whole).then_some(())?;
    Some(Channels { outputs: pair(rows)?, inputs: pair(cols)? })
}
