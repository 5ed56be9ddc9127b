//! The whole trade: fewest bytes at each of many error budgets, each measured.

use crate::goal::{Options, Progress, Samples, check};
use crate::metric::{Measured, Metric};
use crate::originals::Originals;
use crate::{Search, Size, decision, largest, on_threads};
use ir::{Evaluate, Graph, Result};
use serde::{Deserialize, Serialize};

/// Budgets of predicted distortion, from about lossless to about useless.
const LEAST: f64 = 1e-6;
const MOST: f64 = 0.3;
const POINTS: usize = 14;

/// One selection on the front.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Bytes of the file, about: what is outside of layers is taken from the original.
    pub bytes: u64,
    /// Predicted distortion of the output.
    pub predicted: f64,
    pub metric: Metric,
    /// On the samples that select.
    pub measured: Measured,
    /// The arguments of `--layer` that make this selection.
    pub pins: Vec<String>,
}

/// The front of bytes and quality, largest file first.
pub fn front(
    graph: &Graph,
    samples: &dyn Samples,
    options: &Options,
    evaluate: &dyn Evaluate,
    size: Size,
    progress: &dyn Progress,
) -> Result<Vec<Point>> {
    on_threads(options.threads, || {
        let originals = Originals::look(graph, samples, evaluate, progress)?;
        let mut search = Search::prepare(&originals, graph, options, evaluate, progress, None)?;
        let outside = size(graph)?.saturating_sub(search.rows.iter().map(|r| r.bytes).sum());
        let ceiling: f64 = search.items.iter().map(|r| largest(r)).sum::<f64>().clamp(LEAST, MOST);
        progress.stage("front", POINTS);
        let mut points: Vec<Point> = Vec::new();
        for i in 0..POINTS {
            check(progress)?;
            let budget = LEAST * (ceiling / LEAST).powf(i as f64 / (POINTS - 1) as f64);
            progress.step();
            let Some(s) = search.shares.least_weight(&search.items, budget, None) else { continue };
            let bytes = outside + s.weight;
            if points.last().is_some_and(|p| p.bytes <= bytes) {
                continue;
            }
            let measured = search.measure(&s)?;
            let pins = decision::layers(graph, &search.rows, &s).into_iter().map(|l| l.pin).collect();
            points.push(Point {
                bytes,
                predicted: search.fixed + s.error,
                metric: search.selection.metric,
                measured,
                pins,
            });
        }
        Ok(points)
    })
}
