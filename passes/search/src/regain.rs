//! Gains at the point where the search arrived.
//!
//! Gains of a usual error say little of much larger or smaller ones, and errors that meet add up to more or less than their
//! sum. So each chosen candidate is measured alone once, and all of them together.

use crate::knapsack::Solution;
use crate::table::Row;
use crate::{PROBES, Search, sensitivity};
use ir::Result;

/// Most that errors together may differ from their sum.
const TOGETHER: f64 = 30.0;

/// The least share of a joint error that is the layers'.
const LEFT: f64 = 0.1;

impl Search<'_> {
    /// Gains at the candidates of a selection, times what its errors do together beyond their sum; returns its error
    /// under them.
    pub(crate) fn regain(&mut self, s: &Solution) -> Result<f64> {
        let joint = self.measure(s)?.distortion;
        // What the graph differs by before any layer changes is no layer's.
        let joint = (joint - self.fixed).max(LEFT * joint);
        let mut probes = self.split.probes(PROBES);
        let probe = self.originals.reference_of(self.graph, &mut probes, None)?;
        sensitivity::measure_gains(
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
        let sum = |rows: &[Row]| {
            let one = |(r, &c): (&Row, &usize)| r.candidate(c).map_or(0.0, |o| o.head.error * r.gain);
            rows.iter().zip(&s.choice).map(one).sum::<f64>()
        };
        let together = joint / sum(&self.rows).max(f64::MIN_POSITIVE);
        if together.is_finite() && together > 0.0 {
            let factor = together.clamp(1.0 / TOGETHER, TOGETHER);
            self.rows.iter_mut().for_each(|r| r.gain *= factor);
        }
        self.items = self.rows.iter().map(Row::items).collect();
        Ok(sum(&self.rows).max(1e-9))
    }
}
