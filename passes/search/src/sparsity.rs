//! Layer-adaptive pruning (Xu et al., ICCV 2023): the share of zeros of every layer under one share for all.
//!
//! The distortion of the output that each share causes in one layer alone is measured, not predicted: at such errors a layer
//! is not linear any more. Distortions of several layers add up well enough for a knapsack over kept weights.

use crate::allocate::{Allocation, solution};
use crate::confidence::WHOLE;
use crate::knapsack::{Item, Solution, greedy_error, least_error};
use crate::table::Row;
use crate::{Outcome, Search, Size, sensitivity};
use ir::{Error, Result};

/// Weights of one layer whose magnitudes stand for all.
const LOOKED: usize = 1 << 14;

impl Search<'_> {
    /// Least distortion with a share of zeros in the layers that can be pruned.
    pub(crate) fn within_sparsity(&mut self, share: f64, size: Size) -> Result<Outcome> {
        self.measure_candidates()?;
        let items: Vec<Vec<Item>> = self.rows.iter().map(kept).collect();
        let weights: u64 = items.iter().filter_map(|r| r.first()).map(|i| i.weight).sum();
        if weights == 0 {
            return Err(Error::data(
                "no layer can be pruned: a sparsity needs the method sparse and layers of products",
            ));
        }
        let room = (weights as f64 * (1.0 - share)).ceil() as u64;
        let found = match self.options.allocation {
            Allocation::Dynamic => least_error(&items, room),
            Allocation::Greedy => greedy_error(&items, room),
            Allocation::Uniform => {
                let wanted: Vec<f64> = vec![share; self.rows.len()];
                Some(solution(&items, self.nearest(&wanted, true)))
            }
            Allocation::Global => Some(self.by_magnitude(&items, room)),
        };
        let Some(s) = found else { return self.unreachable() };
        self.items = self.rows.iter().map(Row::items).collect();
        let gap = if self.options.allocation == Allocation::Dynamic { s.gap(s.error) } else { f64::NAN };
        let (zeros, s) = (1.0 - s.weight as f64 / weights as f64, solution(&self.items, s.choice));
        let mut held = self.split.held_back.clone();
        let reference = self.reference(&mut held)?;
        self.split.held_back = held;
        let m = self.measure_on(&s, &reference, &self.split.held_back, WHOLE)?;
        let mut outcome = self.conclude(s, Some(m), gap, true, size)?;
        outcome.decision.notes.push(format!(
            "{:.2} % of {weights} weights are zero; distortion of the output: {:.3e} predicted as a sum over layers, {:.3e} measured",
            zeros * 100.0,
            outcome.decision.predicted,
            m.distortion
        ));
        Ok(outcome)
    }

    /// The output distortion of every candidate of every layer, alone.
    fn measure_candidates(&mut self) -> Result<()> {
        let runs = self.rows.iter().map(|r| r.candidates.len()).sum();
        let mut which = self.split.probes(self.originals.effort.samples(crate::PROBES, runs));
        let probe = self.reference(&mut which)?;
        self.progress.stage("distortions", runs);
        for i in 0..self.rows.len() {
            let row = &self.rows[i];
            let mut all = Vec::new();
            for c in row.candidates.iter() {
                let shelf = self.options.shelf.as_ref();
                let changed = crate::apply::dense(self.graph, &[(&row.layer, c)], shelf)?;
                let found =
                    sensitivity::outputs(&changed, self.samples, &which, self.evaluate, self.progress);
                self.evaluate.forget();
                all.push(probe.distance(&found?));
                self.progress.step();
            }
            self.rows[i].measured = Some(all);
        }
        Ok(())
    }

    /// In every layer the candidate whose share of zeros is nearest to the `wanted` one, or the least that is enough.
    fn nearest(&self, wanted: &[f64], enough: bool) -> Vec<usize> {
        let of = |(r, &w): (&Row, &f64)| {
            let all = std::iter::once(Some(0.0)).chain(r.candidates.iter().map(|o| zeros(&o.head.recipe)));
            let shares: Vec<(usize, f64)> = all.enumerate().filter_map(|(i, s)| Some((i, s?))).collect();
            let far = |s: f64| if enough && s < w - 1e-9 { 2.0 + w - s } else { (s - w).abs() };
            shares.into_iter().min_by(|a, b| far(a.1).total_cmp(&far(b.1))).map_or(0, |(i, _)| i)
        };
        self.rows.iter().zip(wanted).map(of).collect()
    }

    /// The lowest threshold on all magnitudes that leaves at most `room` weights.
    fn by_magnitude(&self, items: &[Vec<Item>], room: u64) -> Solution {
        let magnitudes: Vec<Vec<f32>> = self
            .rows
            .iter()
            .map(|r| {
                let values = r.layer.tensor.to_f32s().unwrap_or_default();
                let step = values.len().div_ceil(LOOKED).max(1);
                let mut all: Vec<f32> = values.iter().step_by(step).map(|x| x.abs()).collect();
                all.sort_by(f32::total_cmp);
                all
            })
            .collect();
        let at = |threshold: f32| {
            let below = |m: &Vec<f32>| m.partition_point(|&x| x < threshold) as f64 / m.len().max(1) as f64;
            let wanted: Vec<f64> = magnitudes.iter().map(below).collect();
            solution(items, self.nearest(&wanted, false))
        };
        let (mut low, mut high) = (0.0, magnitudes.iter().flatten().fold(0f32, |a, &b| a.max(b)) * 1.01);
        for _ in 0..50 {
            let middle = 0.5 * (low + high);
            if at(middle).weight <= room { high = middle } else { low = middle }
        }
        at(high)
    }
}

/// The columns of a row by weights that stay and distortion; none counts where nothing is pruned.
fn kept(r: &Row) -> Vec<Item> {
    let weights = r.layer.tensor.len() as f64;
    let measured = r.measured.as_deref().unwrap_or(&[]);
    let one = |(i, share): (usize, f64)| Item {
        weight: (weights * (1.0 - share)).round() as u64,
        error: measured.get(i).copied().unwrap_or(0.0),
    };
    let shares: Vec<f64> = r.candidates.iter().map(|o| zeros(&o.head.recipe).unwrap_or(0.0)).collect();
    let whole = if shares.is_empty() { 0 } else { weights as u64 };
    std::iter::once(Item { weight: whole, error: 0.0 })
        .chain(shares.into_iter().enumerate().map(one))
        .collect()
}

/// The share of zeros in a recipe such as "sparse 70%".
fn zeros(recipe: &str) -> Option<f64> {
    let percent = recipe.strip_prefix("sparse ")?.strip_suffix('%')?;
    percent.parse::<f64>().ok().map(|p| p / 100.0)
}
