//! The search without data.

use crate::goal::{Goal, Options, Progress};
use crate::knapsack::{Item, Solution};
use crate::shares::Shares;
use crate::table::{self, Pass, Row};
use crate::{Decision, Outcome, Size, Status, apply, chosen, sensitivity, smallest, summary};
use ir::{Error, Graph, Result};

/// Relative weight error allowed per layer when there is no data to measure with.
const BLIND: f64 = 1.5e-4;

/// Without data: weights alone decide, every layer within the same relative error, or the least error in the size.
pub fn blind(
    original: &Graph,
    graph: &Graph,
    options: &Options,
    size: Size,
    progress: &dyn Progress,
) -> Result<Outcome> {
    let layers = lossy::layers(graph);
    let none = vec![None; layers.len()];
    let mut rows = table::build(graph, layers, none, Pass::all(&options.methods), options, progress)?;
    sensitivity::assume_gains(&mut rows);
    let items: Vec<Vec<Item>> = rows.iter().map(Row::items).collect();
    let shares = Shares::of(&rows);
    let (solution, gap) = match options.goal {
        Goal::Fastest(_) | Goal::TargetLatency(_) => {
            return Err(Error::data(
                "a goal of speed needs data: there is nothing to time and nothing to judge by",
            ));
        }
        Goal::MaxDrop(_) => {
            let within: Vec<Vec<Item>> = items
                .iter()
                .map(|r| {
                    r.iter()
                        .map(|i| Item { error: if i.error <= BLIND { i.error } else { f64::INFINITY }, ..*i })
                        .collect()
                })
                .collect();
            (shares.least_weight(&within, f64::MAX, None), 0.0)
        }
        Goal::TargetSparsity(_) => {
            return Err(Error::data("a target of sparsity needs data to tell layers apart"));
        }
        Goal::TargetBytes(bytes) => {
            let fixed = size(graph)?.saturating_sub(rows.iter().map(|r| r.bytes).sum());
            let s = shares.least_error(&items, bytes.saturating_sub(fixed));
            let gap = s.as_ref().map_or(0.0, |s| s.gap(s.error));
            (s, gap)
        }
    };
    let note = "no data: only weight errors were looked at, and the quality was not measured".to_string();
    let Some(s) = solution else {
        let choice = items.iter().map(|r| smallest(r)).collect();
        let s = Solution { choice, weight: 0, error: 0.0, bound: 0.0 };
        let decision = Decision { notes: vec![note], ..summary(original, &rows, &s, Status::NotReached) };
        return Ok(Outcome { graph: original.clone(), decision });
    };
    let out = apply::compressed(graph, &chosen(&rows, &s), options.shelf.as_ref())?;
    let status = if size(&out)? >= size(original)? { Status::NothingGained } else { Status::Unchecked };
    let decision = Decision { gap, notes: vec![note], ..summary(original, &rows, &s, status) };
    Ok(Outcome { graph: out, decision })
}
