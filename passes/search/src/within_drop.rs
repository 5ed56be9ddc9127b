//! Fewest bytes within a drop of quality: the distortion budget is bisected on the samples that select; held-back ones
//! confirm what that gives.

use crate::bisect::{self, Bisection};
use crate::goal::late;
use crate::hold::Held;
use crate::{AGAIN, MARGIN, OVER, Outcome, SEARCHED, Search, Size, Trial, largest};
use ir::Result;

impl Search<'_> {
    pub(crate) fn within_drop(&mut self, drop: f64, size: Size) -> Result<Outcome> {
        let b = match self.settled.take() {
            Some(b) => b,
            None => self.settle(drop)?,
        };
        let found = self.confirm(b.passed.unwrap_or(1e-9), b.passed.is_some(), drop)?;
        let Some(Held { solution: s, measured: m, met }) = found else { return self.unreachable() };
        let gap = if self.costs.is_some() { f64::NAN } else { s.gap(s.weight as f64) };
        self.conclude(s, Some(m), gap, met, size)
    }

    /// Bytes of the layers that the samples which select allow within a drop; held-back ones are not asked. `None` where
    /// nothing passes.
    pub(crate) fn promises(&mut self, drop: f64) -> Result<Option<u64>> {
        let b = self.settle(drop)?;
        let s = b.passed.and_then(|p| self.least(p));
        self.settled = Some(b);
        Ok(s.map(|s| self.bytes(&s)))
    }

    /// The budgets that pass and fail on the samples that select, with gains measured again at the first that passed.
    fn settle(&mut self, drop: f64) -> Result<Bisection> {
        self.progress.stage("search", bisect::TRIALS);
        let first = Bisection::new(self.start, 1e-9, self.ceiling());
        let b = self.tried(first.after(self.trials.len()), drop)?;
        let again = b.passed.filter(|_| self.options.again && !late(self.progress, AGAIN));
        let Some(s) = again.and_then(|p| self.least(p)) else { return Ok(b) };
        let before = (self.gains(), std::mem::take(&mut self.items), self.pairs.clone());
        let start = self.regain(&s)?;
        let again = self.tried(Bisection::near(start, 1e-9, self.ceiling()), drop)?;
        if again.passed.is_some() {
            self.earlier = before.1;
            return Ok(again);
        }
        self.rows.iter_mut().zip(before.0).for_each(|(r, g)| r.gain = g);
        (self.items, self.pairs) = (before.1, before.2);
        Ok(b)
    }

    pub(crate) fn gains(&self) -> Vec<f64> {
        self.rows.iter().map(|r| r.gain).collect()
    }

    pub(crate) fn ceiling(&self) -> f64 {
        let more = self.pairs.as_ref().map_or(0.0, |p| p.most(&self.items));
        (self.items.iter().map(|r| largest(r)).sum::<f64>() + more).max(1e-12)
    }

    /// Runs a bisection of the distortion budget on the selection samples.
    pub(crate) fn tried(&mut self, mut b: Bisection, drop: f64) -> Result<Bisection> {
        while let Some(budget) = b.next() {
            if late(self.progress, if b.passed.is_some() { SEARCHED } else { OVER }) {
                self.progress.cut("selections tried", self.trials.len(), bisect::TRIALS);
                break;
            }
            let Some(s) = self.least(budget) else {
                // Overrides lose more than this: only larger budgets have selections.
                b.record(budget, true, 0.0);
                continue;
            };
            let known = self.seen.contains_key(&s.choice);
            let m = self.measure(&s)?;
            let share = if m.bounds(drop) { 1.0 } else { MARGIN };
            let (passed, lost) = (m.expected_within(drop * share), m.used(drop * share));
            if known {
                b.known(budget, passed, lost);
                continue;
            }
            let bytes = self.bytes(&s);
            let predicted = self.fixed + s.error;
            self.trials.push(Trial { budget, bytes, predicted, measured: m, passed });
            self.progress.step();
            b.record(budget, passed, lost);
        }
        Ok(b)
    }
}
