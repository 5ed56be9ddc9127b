//! How the weights of each layer lie, before and after, for reports.

use crate::knapsack::Solution;
use crate::shelf::Shelf;
use crate::table::Row;
use ir::Result;
use lossy::Replaces;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Bars of a histogram.
const BARS: usize = 32;
/// Weights of one layer that are counted, evenly spread.
const COUNTED: usize = 1 << 16;

/// Counts of weights between `low` and `high`, in bars of equal width.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    pub low: f32,
    pub high: f32,
    pub before: Vec<u32>,
    /// Absent where factors or other operators took the weight's place.
    pub after: Option<Vec<u32>>,
}

/// The weights of every row, before and as chosen.
pub fn histograms(rows: &[Row], s: &Solution, shelf: &dyn Shelf) -> Result<Vec<Option<Histogram>>> {
    let of = |(row, &column): (&Row, &usize)| -> Result<Option<Histogram>> {
        let before = some(row.layer.tensor.to_f32s()?);
        let after = match row.candidate(column) {
            Some(o) if o.head.replaces == Replaces::Weight => Some(some(o.get(shelf)?.decode()?.to_f32s()?)),
            Some(_) => None,
            None => Some(before.clone()),
        };
        row.layer.tensor.release();
        let seen = || before.iter().chain(after.iter().flatten()).filter(|x| x.is_finite());
        let (low, high) = seen().fold((f32::MAX, f32::MIN), |(a, b), &x| (a.min(x), b.max(x)));
        if high <= low {
            return Ok(None);
        }
        let count = |values: &[f32]| {
            let mut bars = vec![0u32; BARS];
            for x in values.iter().filter(|x| x.is_finite()) {
                let at = f64::from(x - low) / f64::from(high - low) * BARS as f64;
                bars[(at as usize).min(BARS - 1)] += 1;
            }
            bars
        };
        Ok(Some(Histogram { low, high, before: count(&before), after: after.as_deref().map(count) }))
    };
    rows.par_iter().zip(&s.choice).map(of).collect()
}

fn some(values: Vec<f32>) -> Vec<f32> {
    let step = values.len().div_ceil(COUNTED).max(1);
    values.into_iter().step_by(step).collect()
}
