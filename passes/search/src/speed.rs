//! The parts of the search that are about time: layers timed before it, whole models raced at its end.

use crate::clock::Latency;
use crate::confidence::WHOLE;
use crate::goal::Time;
use crate::knapsack::{Solution, least_error};
use crate::latency::Costs;
use crate::{Decision, Outcome, Search, Size, Status, apply, summary};
use ir::{Error, Graph, Result};

/// There is nothing to promise by.
fn untimed() -> Error {
    Error::unsupported(
        "a goal of speed needs a model that runs in compiled form; this one does not run on the first sample",
    )
}

/// Most selections tried for a time.
const TRIALS: usize = 5;

impl Search<'_> {
    /// Times every layer in every form, if there is a clock.
    pub(crate) fn time(&mut self) -> Result<()> {
        let Some(clock) = &self.options.clock else { return Ok(()) };
        // Compiled models of the search take memory that pieces may need.
        self.evaluate.forget();
        let (shelf, feeds) = (self.options.shelf.as_ref(), self.samples.feeds(0)?);
        let costs = Costs::measure(self.graph, &self.rows, &feeds, shelf, clock.as_ref(), self.progress)?;
        self.costs = Some(costs.ok_or_else(untimed)?);
        Ok(())
    }

    /// Bytes of all layers in a selection.
    pub(crate) fn bytes(&self, s: &Solution) -> u64 {
        self.shares.weight(&self.items, &s.choice)
    }

    /// The original beside the compressed model, when speed is the goal.
    pub(crate) fn race(&self, graph: &Graph, s: &Solution) -> Result<Option<Latency>> {
        let Some(clock) = &self.options.clock else { return Ok(None) };
        self.progress.stage("race", 1);
        let spreads = clock.race(&[self.originals.graph, graph], &self.samples.feeds(0)?);
        let Some([original, compressed]) = spreads.as_deref() else { return Err(untimed()) };
        let predicted_ms = self.costs.as_ref().map_or(f64::NAN, |c| c.total(&s.choice) / 1e6);
        let (original, compressed) = (*original, *compressed);
        Ok(Some(Latency { threads: clock.threads(), original, compressed, predicted_ms }))
    }

    /// Least error within a time of one run, checked on held-back samples for the report.
    pub(crate) fn within_time(&mut self, time: Time, size: Size) -> Result<Outcome> {
        self.progress.stage("search", TRIALS);
        let mut held = self.split.held_back.clone();
        let reference = self.reference(&mut held)?;
        self.split.held_back = held;
        let Some(costs) = self.costs.clone() else {
            // Without a clock the overrides have chosen.
            let Some(s) = least_error(&self.items, u64::MAX) else { return self.unreachable() };
            let m = self.measure_on(&s, &reference, &self.split.held_back, WHOLE)?;
            return self.conclude(s, Some(m), f64::NAN, true, size);
        };
        let whole = costs.total(&vec![0; self.items.len()]) / 1e6;
        let mut room = time.milliseconds(whole);
        let mut nearest = None;
        for _ in 0..TRIALS {
            let Some(s) = costs.least_error(&self.items, room * 1e6) else { break };
            let graph = apply::compressed(self.graph, &self.chosen(&s), self.options.shelf.as_ref())?;
            let Some(latency) = self.race(&graph, &s)? else { break };
            self.progress.step();
            let (target, found) =
                (time.milliseconds(latency.original.median_ms), latency.compressed.median_ms);
            if found <= target {
                let m = self.measure_on(&s, &reference, &self.split.held_back, WHOLE)?;
                let mut outcome = self.conclude(s, Some(m), f64::NAN, true, size)?;
                outcome.decision.latency = Some(latency);
                return Ok(outcome);
            }
            nearest = Some(latency);
            room = f64::min(room * target / found, room - 0.25 * (found - target));
        }
        if let (None, Some(s)) = (nearest, costs.least(&self.items, f64::MAX)) {
            let graph = apply::compressed(self.graph, &self.chosen(&s), self.options.shelf.as_ref())?;
            nearest = self.race(&graph, &s)?;
        }
        let mut outcome = self.unreachable()?;
        outcome.decision.latency = nearest;
        Ok(outcome)
    }

    /// What the report says of a selection, with times where there are some.
    pub(crate) fn summary(&self, s: &Solution, status: Status) -> Decision {
        let mut d = summary(self.originals.graph, &self.rows, s, status);
        d.together = self.pairs.as_ref().map_or(0.0, |p| p.together(&self.items, &s.choice));
        d.predicted = (d.predicted + d.together).max(0.0) + self.fixed;
        if let Some(costs) = &self.costs {
            costs.annotate(&self.rows, &s.choice, &mut d.layers);
        }
        d
    }
}
