//! The table of the search: layers × candidates, each with stored bytes and layer error.

use crate::goal::{Options, Override, Progress, check};
use crate::knapsack::{Item, undominated};
use crate::shelf::Offer;
use ir::{Error, Graph, Result};
use lossy::layer::subgraph;
use lossy::{Candidate, Context, Layer, Method, Scope, Stats};
use rayon::prelude::*;
use std::sync::Arc;

/// One layer with everything it may become. Column 0 of the knapsack is "keep"; candidate i is column i + 1.
pub struct Row {
    pub layer: Layer,
    pub candidates: Vec<Offer>,
    /// Method and reason, for methods that offer nothing here.
    pub refusals: Vec<(String, String)>,
    /// Output distortion per unit of layer error.
    pub gain: f64,
    /// E‖Wx‖²: the power of the layer's output, in the unit of the errors.
    pub power: f64,
    /// "Keep" is not allowed here: the user chose a method.
    pub forced: bool,
    /// Input vectors that calibrated this layer; 0 without data.
    pub vectors: u64,
}

impl Row {
    /// The row's columns for the knapsack: keep, then candidates.
    pub fn items(&self) -> Vec<Item> {
        let keep = if self.forced { f64::INFINITY } else { 0.0 };
        std::iter::once(Item { bytes: self.layer.bytes(), error: keep })
            .chain(
                self.candidates.iter().map(|o| Item { bytes: o.head.bytes, error: o.head.error * self.gain }),
            )
            .collect()
    }

    /// The candidate of a column, `None` for keep.
    pub fn candidate(&self, column: usize) -> Option<&Offer> {
        self.candidates.get(column.checked_sub(1)?)
    }
}

/// Prices every candidate of every layer; statistics are dropped as soon as their layers are done.
pub fn build(
    graph: &Graph,
    layers: Vec<Layer>,
    stats: Vec<Option<Arc<Stats>>>,
    methods: &[&'static dyn Method],
    options: &Options,
    progress: &dyn Progress,
) -> Result<Vec<Row>> {
    progress.stage("candidates", layers.len());
    layers
        .into_iter()
        .zip(stats)
        .collect::<Vec<_>>()
        .into_par_iter()
        .map(|(layer, stats)| {
            check(progress)?;
            let row = row(graph, layer, stats.as_deref(), methods, options);
            progress.step();
            row
        })
        .collect()
}

fn row(
    graph: &Graph,
    layer: Layer,
    stats: Option<&Stats>,
    methods: &[&'static dyn Method],
    options: &Options,
) -> Result<Row> {
    let wanted = options.overrides.iter().rev().find(|o| o.fixes(&layer));
    let keep = wanted.is_some_and(|o| o.recipe == "keep");
    let one: Vec<&'static dyn Method>;
    let methods = match wanted {
        Some(o) => {
            one = lossy::methods::find(o.method()).into_iter().collect();
            &one[..]
        }
        None => methods,
    };
    let body = subgraph(graph, &layer.path).ok_or_else(|| Error::internal("a layer without its graph"))?;
    let matrix = layer.view.matrix(&layer.tensor)?;
    let mut row = Row {
        candidates: Vec::new(),
        refusals: Vec::new(),
        gain: 1.0,
        power: 0.0,
        forced: wanted.is_some() && !keep,
        vectors: stats.map_or(0, Stats::count),
        layer,
    };
    if matrix.iter().any(|x| !x.is_finite()) {
        row.refusals.push(("all".into(), "the weight holds values that are not finite".into()));
        row.forced = false;
        return Ok(row);
    }
    let measure = match (stats, row.layer.bias) {
        (Some(s), Some(_)) => Some(s.centered()),
        (s, _) => s,
    };
    let cx = Context { graph: body, layer: &row.layer, matrix: &matrix, stats, measure };
    row.power = match stats {
        Some(s) => s.error(&matrix),
        None => matrix.iter().map(|&x| f64::from(x).powi(2)).sum(),
    };
    let (mut found, mut refusals) = (Vec::new(), Vec::new());
    for m in methods.iter().filter(|m| !keep && m.scope() == Scope::Layer) {
        match m.applies(&row.layer, stats.is_some()) {
            Err(r) => refusals.push((m.name().to_string(), r.0)),
            Ok(()) => {
                let smaller =
                    |c: &Candidate| c.error.is_finite() && (wanted.is_some() || c.bytes < row.layer.bytes());
                let offers = m.candidates(&cx)?.into_iter().filter(smaller);
                found.extend(offers.map(|c| Offer::put(c, options.shelf.as_ref())));
            }
        }
    }
    row.candidates = sift(found, wanted);
    row.refusals = refusals;
    row.forced &= !row.candidates.is_empty();
    Ok(row)
}

/// Drops candidates that another beats in bytes and error.
fn sift(mut found: Vec<Offer>, wanted: Option<&Override>) -> Vec<Offer> {
    if let Some(o) = wanted.filter(|o| o.recipe.contains(' ')) {
        found.retain(|c| c.head.recipe == o.recipe);
    }
    let items: Vec<Item> = found.iter().map(|o| Item { bytes: o.head.bytes, error: o.head.error }).collect();
    let kept = undominated(&items);
    let mut slots: Vec<Option<Offer>> = found.into_iter().map(Some).collect();
    kept.into_iter().filter_map(|i| slots[i].take()).collect()
}
