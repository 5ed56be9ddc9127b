//! The end of a search: the selection repaired, and a smaller one where repair makes room for it.

use crate::confidence::{Level, WHOLE};
use crate::decision::Repair;
use crate::goal::{Goal, Repairs, late};
use crate::hold::confirmed;
use crate::knapsack::Solution;
use crate::metric::{Measured, Reference};
use crate::pairs::Pairs;
use crate::repair::{Bench, SAMPLES};
use crate::shelf::Offer;
use crate::table::Row;
use crate::{Decision, MARGIN, Outcome, Search, Size, Status, Trial, apply, histogram};
use ir::Result;
use lossy::Layer;
use std::sync::Arc;

/// Selections that are repaired after the first, at most.
const TRIES: usize = 3;
/// Factor of the next budget where nothing failed yet, and the least that is worth another repair.
const STEP: f64 = 1.6;
const LEAST: f64 = 1.15;
/// Part of the drop that the bound of the next selection is aimed at.
const AIM: f64 = 0.92;
/// Factor of a budget beyond which gains are measured again, how often at most, and the factor within which what they
/// predict is near enough to what is measured.
const FAR: f64 = 2.0;
const AGAIN: usize = 3;
const NEAR: f64 = 1.4;

/// Relative squared output error below which layers carry too little on to the next for repair to show.
pub(crate) const LEAST_ERROR: f64 = 1e-4;
/// The same at a given size, where nothing else is left that could take errors away.
const LEAST_AT_A_SIZE: f64 = 1e-6;

/// Share of the time after which no selection is repaired any more.
const LATE: f64 = 0.6;

/// A selection with its layers repaired.
struct Attempt {
    solution: Solution,
    repaired: Vec<Option<Offer>>,
    /// Relative squared output error without repair, and what there is with it: on the samples that select, or on held-back
    /// ones where the goal is no promise.
    before: f64,
    found: Measured,
    tuned: bool,
    /// Those that predicted the error without repair, and the pairs.
    gains: Vec<f64>,
    pairs: Option<Arc<Pairs>>,
}

/// How many times the error of what gave `m` fits in the drop: bounds grow with the error from the least that they can be.
fn room(m: &Measured, drop: f64) -> f64 {
    let over = |bound: f64| bound - if m.bounds(drop) { m.finest } else { 0.0 };
    let step = over(AIM * drop) / over(m.bound).max(f64::MIN_POSITIVE);
    if step.is_finite() && over(m.bound) > 0.0 { step.max(1.0) } else { 1.0 }
}

impl Search<'_> {
    /// The last selection repaired, or a smaller one that repair brings within the budget; `None` when it brings nothing.
    pub(crate) fn polished(&mut self, base: &Outcome, size: Size) -> Result<Option<Outcome>> {
        let reached = self.options.repairs == Repairs::Paying
            && repairable(self.options.goal)
            && self.options.judge.is_none()
            && !late(self.progress, LATE)
            && matches!(base.decision.status, Status::Met | Status::NotReached);
        let Some(last) = self.last.clone().filter(|_| reached) else { return Ok(None) };
        let least = if self.options.goal.drop().is_some() { LEAST_ERROR } else { LEAST_AT_A_SIZE };
        if self.measure(&last)?.distortion < least {
            return Ok(None);
        }
        let Some(first) = self.attempt(last)? else { return Ok(None) };
        if first.found.distortion >= first.before {
            return Ok(None);
        }
        let drop = match self.options.goal {
            Goal::MaxDrop(drop) => drop,
            Goal::Fastest(_) | Goal::TargetLatency(_) | Goal::TargetSparsity(_) => return Ok(None),
            Goal::TargetBytes(bytes) => {
                let found = self.outcome(&first, first.found, base.decision.trials.clone(), size)?;
                return Ok((size(&found.graph)? <= bytes).then_some(found));
            }
        };
        let mut held = self.split.held_back.clone();
        let reference = self.reference(&mut held)?;
        self.split.held_back = held;
        // What repair takes off the error is spent on fewer bytes.
        let mut step = first.before / first.found.distortion.max(f64::MIN_POSITIVE);
        step = step.max(room(&first.found, drop));
        let (mut attempt, mut budget) = (first, 0.0);
        let (mut best, mut failed): (Option<(Attempt, Measured)>, Option<f64>) = (None, None);
        let effort = self.originals.effort;
        let runs = self.rows.len() * effort.samples(SAMPLES, self.rows.len());
        let tries = effort.repairs(TRIES + 1, runs) - 1;
        for round in 0..=tries {
            budget = if round == 0 { attempt.solution.error } else { budget };
            let m = attempt.found;
            let share = if m.bounds(drop) { 1.0 } else { MARGIN };
            let level = self.looks.spend();
            let (held, confirmed) = self.confirmed(&attempt, &reference, drop, level)?;
            let met = m.expected_within(drop * share) && confirmed;
            let low = match (met, &best) {
                (true, _) => budget,
                (false, Some(b)) => b.0.solution.error,
                (false, None) => break,
            };
            if met {
                best = Some((attempt, held));
            } else {
                failed = Some(budget);
            }
            budget = failed.map_or(low * step, |f| (low * f).sqrt());
            step = room(&m, drop).clamp(1.0, STEP);
            if round == tries || budget < low * LEAST {
                break;
            }
            let Some(mut next) = self.least(budget) else { break };
            if failed.is_none() && budget > FAR * low && self.options.again {
                // Gains say little of errors so much larger; under the new ones errors are as measured.
                let from = best.as_ref().map_or(low, |b| (b.0.before - self.fixed).max(f64::MIN_POSITIVE));
                budget *= from / low;
                let mut tried: Vec<(f64, Solution)> = Vec::new();
                for _ in 0..AGAIN {
                    if late(self.progress, LATE) {
                        break;
                    }
                    self.regain(&next)?;
                    let Some(found) = self.least(budget) else { break };
                    let measured = self.measure(&found)?.distortion - self.fixed;
                    tried.push((measured, found.clone()));
                    if (1.0 / NEAR..NEAR).contains(&(measured / found.error)) {
                        break;
                    }
                    next = found;
                }
                // The smallest that loses about what it should.
                let over = |m: f64| if m <= NEAR * budget { 0.0 } else { m };
                let rank = |a: &(f64, Solution), b: &(f64, Solution)| {
                    over(a.0).total_cmp(&over(b.0)).then(a.1.weight.cmp(&b.1.weight))
                };
                let Some((_, found)) = tried.into_iter().min_by(rank) else { break };
                next = found;
            }
            if best.as_ref().is_some_and(|b| next.weight >= b.0.solution.weight) || late(self.progress, LATE)
            {
                break;
            }
            let Some(next) = self.attempt(next)? else { break };
            attempt = next;
        }
        let trials = || base.decision.trials.clone();
        best.map(|(a, held)| self.outcome(&a, held, trials(), size)).transpose()
    }

    /// The selection that the overrides leave, repaired as an earlier run did.
    pub(crate) fn again(&mut self, size: Size) -> Result<Outcome> {
        let found = self.least(f64::MAX).map(|s| self.attempt(s)).transpose()?;
        let Some(attempt) = found.flatten() else { return self.unreachable() };
        let mut held = self.split.held_back.clone();
        let reference = self.reference(&mut held)?;
        self.split.held_back = held;
        let (held, met) = match self.options.goal.drop() {
            Some(drop) => self.confirmed(&attempt, &reference, drop, Level::look(1))?,
            None => (attempt.found, true),
        };
        let mut outcome = self.outcome(&attempt, held, Vec::new(), size)?;
        if !met {
            outcome.decision.status = Status::NotReached;
        }
        Ok(outcome)
    }

    /// What held-back samples say of an attempt, and whether they confirm the drop.
    fn confirmed(&self, a: &Attempt, r: &Reference, drop: f64, level: Level) -> Result<(Measured, bool)> {
        let mut held = self.checked(a, r, level)?;
        // An attempt at a drop was measured on these samples.
        let seen = match self.options.goal.drop() {
            Some(_) => a.found,
            None => self.selected(a, level)?,
        };
        let met = confirmed(self.selection.metric, &mut held, &seen, drop, level);
        Ok((held, met))
    }

    fn attempt(&mut self, solution: Solution) -> Result<Option<Attempt>> {
        // A size is no promise of quality, so that held-back samples may judge and the others be fitted.
        let shared = self.options.goal.drop().is_none();
        let mut which = if shared { &self.split.held_back } else { &self.split.selection }.clone();
        let held = shared.then(|| self.reference(&mut which)).transpose()?;
        let level = if shared { WHOLE } else { Level::look(1) };
        let before = match &held {
            Some(held) => self.measure_on(&solution, held, &which, level)?,
            None => self.measure(&solution)?,
        };
        let bench = Bench {
            graph: self.graph,
            samples: self.samples,
            calibration: &self.split.calibration,
            selection: &self.split.selection,
            effort: self.originals.effort,
            options: self.options,
            evaluate: self.evaluate,
            progress: self.progress,
        };
        let measure = |chosen: &[(&Layer, &Offer)]| {
            let reference = held.as_ref().unwrap_or(&self.selection);
            self.measure_chosen(chosen, reference, &which, level)
        };
        // A drop is checked on held-back samples later; without that step it must not grow.
        let better = |a: &Measured, b: &Measured| a.distortion < b.distortion && !(shared && a.drop > b.drop);
        let chosen = self.chosen(&solution);
        let (mut repaired, mut found) = (chosen.iter().map(|_| None).collect::<Vec<_>>(), before);
        let fits: &[bool] = if shared { &[true, false] } else { &[false] };
        for &both in fits {
            let Some(new) = bench.repair(&chosen, both)? else { return Ok(None) };
            let after = measure(&self.with(&solution, &new))?;
            if better(&after, &found) {
                (repaired, found) = (new, after);
                break;
            }
        }
        let chosen = self.with(&solution, &repaired);
        // Steps along gradients take twice the time of the search and gain nothing where a drop is the goal.
        let tune = shared && self.options.tune && self.options.repairs != (Repairs::Again { tuned: false });
        let turned = if tune { bench.tune(&chosen, found.distortion)? } else { None };
        let mut is_tuned = false;
        if let Some(tuned) = turned {
            let with: Vec<(&Layer, &Offer)> =
                chosen.iter().zip(&tuned).map(|(&(l, o), t)| (l, t.as_ref().unwrap_or(o))).collect();
            let after = measure(&with)?;
            if better(&after, &found) {
                (found, is_tuned) = (after, true);
                repaired = tuned.into_iter().zip(repaired).map(|(t, r)| t.or(r)).collect();
            }
        }
        let (before, gains, pairs) = (before.distortion, self.gains(), self.pairs.clone());
        Ok(Some(Attempt { solution, repaired, before, found, tuned: is_tuned, gains, pairs }))
    }

    /// The layers of a selection, each with its repaired offer where there is one.
    fn with<'s>(&'s self, s: &Solution, repaired: &'s [Option<Offer>]) -> Vec<(&'s Layer, &'s Offer)> {
        let better = |((l, o), r): ((_, _), &'s Option<Offer>)| (l, r.as_ref().unwrap_or(o));
        self.chosen(s).into_iter().zip(repaired).map(better).collect()
    }

    fn selected(&self, a: &Attempt, level: Level) -> Result<Measured> {
        let chosen = self.with(&a.solution, &a.repaired);
        self.measure_chosen(&chosen, &self.selection, &self.split.selection, level)
    }

    fn checked(&self, a: &Attempt, reference: &Reference, level: Level) -> Result<Measured> {
        self.measure_chosen(&self.with(&a.solution, &a.repaired), reference, &self.split.held_back, level)
    }

    fn outcome(&mut self, a: &Attempt, held: Measured, trials: Vec<Trial>, size: Size) -> Result<Outcome> {
        let graph =
            apply::compressed(self.graph, &self.with(&a.solution, &a.repaired), self.options.shelf.as_ref())?;
        let gained = size(&graph)? < size(self.originals.graph)?;
        let status = if gained { Status::Met } else { Status::NothingGained };
        self.rows.iter_mut().zip(&a.gains).for_each(|(r, &g)| r.gain = g);
        self.items = self.rows.iter().map(Row::items).collect();
        self.pairs.clone_from(&a.pairs);
        let selection = match self.options.goal.drop() {
            Some(_) => a.found,
            None => self.selected(a, Level::look(1))?,
        };
        let minimised = match self.options.goal {
            Goal::TargetBytes(_) => a.solution.error,
            _ => a.solution.weight as f64,
        };
        let mut decision = Decision {
            metric: Some(self.selection.metric),
            selection: Some(selection),
            held_back: Some(held),
            samples: self.samples_used(),
            gap: a.solution.gap(minimised),
            trials,
            notes: self.doubts(Some(held)),
            repair: Some(Repair { before: a.before, after: a.found.distortion, tuned: a.tuned }),
            front: self.predicted_front(),
            ..self.summary(&a.solution, status)
        };
        let all = histogram::histograms(&self.rows, &a.solution, self.options.shelf.as_ref())?;
        decision.layers.iter_mut().zip(all).for_each(|(l, h)| l.weights = h);
        Ok(Outcome { graph, decision })
    }
}

/// Goals of bytes: times would have to be measured again, and a sparsity is shared by what was measured.
pub fn repairable(goal: Goal) -> bool {
    matches!(goal, Goal::MaxDrop(_) | Goal::TargetBytes(_))
}
