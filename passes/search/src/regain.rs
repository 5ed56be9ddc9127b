//! Gains at the point where the search arrived, and what errors do there together.
//!
//! Gains of a usual error say little of much larger or smaller ones, and errors that meet add up to more or less than their
//! sum. So each chosen candidate is measured alone once, and all of them together.

use crate::allocate::Allocation;
use crate::knapsack::Solution;
use crate::pairs::{Moves, Pairs};
use crate::table::Row;
use crate::{PROBES, Search, sensitivity};
use ir::{Result, Tensor};
use lossy::Replaces;
use rayon::prelude::*;
use std::sync::Arc;

/// Most that errors together may differ from what gains and pairs say.
const TOGETHER: f64 = 30.0;

/// The least share of a joint error that is the layers'.
const LEFT: f64 = 0.1;

/// Candidates of errors further from the chosen one's than this factor are taken to have nothing in common with it.
const ALIKE: f64 = 32.0;

impl Search<'_> {
    /// Gains at the candidates of a selection and the products of the moves they make, times what all do together beyond
    /// that; returns the selection's error under them.
    pub(crate) fn regain(&mut self, s: &Solution) -> Result<f64> {
        let joint = self.measure(s)?.distortion;
        // What the graph differs by before any layer changes is no layer's.
        let joint = (joint - self.fixed).max(LEFT * joint);
        let mut probes = self.split.probes(self.originals.effort.samples(PROBES, self.rows.len()));
        let probe = self.originals.reference_of(self.graph, &mut probes, None)?;
        let moves = sensitivity::measure_gains(
            self.graph,
            &mut self.rows,
            Some(&s.choice),
            self.options.shelf.as_ref(),
            &probe,
            self.samples,
            &probes,
            self.evaluate,
            self.progress,
        )?;
        self.items = self.rows.iter().map(Row::items).collect();
        self.pairs = self.paired(s, &moves)?;
        let together = joint / self.solution(s.choice.clone()).error.max(f64::MIN_POSITIVE);
        if together.is_finite() && together > 0.0 {
            let factor = together.clamp(1.0 / TOGETHER, TOGETHER);
            self.rows.iter_mut().for_each(|r| r.gain *= factor);
        }
        self.items = self.rows.iter().map(Row::items).collect();
        Ok(self.solution(s.choice.clone()).error.max(1e-9))
    }

    /// The pairs at a selection whose layers move the output so, where the search can use them.
    fn paired(&self, s: &Solution, moves: &Moves) -> Result<Option<Arc<Pairs>>> {
        let used = self.options.interactions
            && self.costs.is_none()
            && self.options.allocation == Allocation::Dynamic
            && self.rows.len() > 1;
        if !used {
            return Ok(None);
        }
        let rows: Vec<(&Row, usize)> = self.rows.iter().zip(s.choice.iter().copied()).collect();
        let along = rows.par_iter().map(|&(r, c)| self.along(r, c)).collect::<Result<_>>()?;
        Ok(Some(Arc::new(Pairs::of(moves, along, s.choice.clone()))))
    }

    /// The cosine between the weight errors of each column of a row and of the chosen one.
    fn along(&self, row: &Row, column: usize) -> Result<Vec<f64>> {
        let mut along = vec![0.0; row.candidates.len() + 1];
        along[column] = 1.0;
        let shelf = self.options.shelf.as_ref();
        let Some(chosen) = row.candidate(column).filter(|o| o.head.replaces == Replaces::Weight) else {
            return Ok(along);
        };
        let w = row.layer.tensor.to_f32s()?;
        let error =
            |t: Tensor| -> Result<Vec<f32>> { Ok(t.to_f32s()?.iter().zip(&w).map(|(a, b)| a - b).collect()) };
        let of = |o: &crate::shelf::Offer| error(o.get(shelf)?.decode()?);
        let own = of(chosen)?;
        for (i, o) in row.candidates.iter().enumerate().filter(|(i, _)| i + 1 != column) {
            let ratio = o.head.error / chosen.head.error;
            if o.head.replaces == Replaces::Weight && (1.0 / ALIKE..=ALIKE).contains(&ratio) {
                along[i + 1] = cosine(&own, &of(o)?);
            }
        }
        Ok(along)
    }
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (&a, &b) in a.iter().zip(b) {
        let (a, b) = (f64::from(a), f64::from(b));
        (ab, aa, bb) = (ab + a * b, aa + a * a, bb + b * b);
    }
    let norms = f64::sqrt(aa * bb);
    if norms > 0.0 { (ab / norms).clamp(-1.0, 1.0) } else { 0.0 }
}
