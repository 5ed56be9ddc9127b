//! Selections of other kinds behind the one that was confirmed.
//!
//! What is predicted of a selection is off by tens of percent, and not by the same for all kinds: errors of one method may
//! cancel where those of another add up, and products that few samples measured mislead. So the best of each kind that is a
//! little smaller than what was confirmed is measured, the most promising one is made smaller still, and held-back samples
//! decide, from the safest up, at a level of their own.

use crate::allocate::Allocation;
use crate::goal::{Goal, late};
use crate::hold::Held;
use crate::knapsack::{self, Item, Solution};
use crate::{Decision, MARGIN, Outcome, SEARCHED, Search, Size, Status};
use ir::Result;
use std::collections::BTreeSet;

/// Bytes of the first of a kind, and of each one after it, as a part of those before.
const LESS: f64 = 0.985;
const STEP: f64 = 0.97;
/// The error of what a kind has no use for.
const BEYOND: f64 = 1e30;
/// How often the best of all kinds is looked for.
const ROUNDS: usize = 3;
/// Kinds measured each time, and most selections of one kind.
const KINDS: usize = 4;
const STEPS: usize = 5;

/// How a selection comes about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// By the sum of errors alone.
    Sums,
    /// By that of errors as they were first priced.
    Earlier,
    /// One recipe for all layers.
    Uniform,
    /// One method, and layers that stay.
    Only(&'static str),
}

impl Search<'_> {
    /// What the search ended with, or a smaller selection of another kind that held-back samples confirm as well.
    pub(crate) fn rivalled(&mut self, mut found: Outcome, size: Size) -> Result<Outcome> {
        let Goal::MaxDrop(drop) = self.options.goal else { return Ok(found) };
        for _ in 0..ROUNDS {
            let Some(Held { solution, measured, .. }) = self.rival(&found.decision, drop)? else { break };
            let gap = solution.gap(solution.weight as f64);
            let mut rival = self.conclude(solution, Some(measured), gap, true, size)?;
            if rival.decision.status != Status::Met || size(&rival.graph)? >= size(&found.graph)? {
                break;
            }
            let old = found.decision;
            for (l, old) in rival.decision.layers.iter_mut().zip(old.layers) {
                l.refusals = old.refusals;
            }
            rival.decision.trials = old.trials;
            found = rival;
        }
        Ok(found)
    }

    /// A smaller selection of another kind.
    fn rival(&mut self, best: &Decision, drop: f64) -> Result<Option<Held>> {
        let o = self.options;
        let plain = o.rivals && o.allocation == Allocation::Dynamic && o.judge.is_none();
        if best.status != Status::Met || !plain || self.rows.len() < 2 || late(self.progress, SEARCHED) {
            return Ok(None);
        }
        let room = (best.bytes_after as f64 * LESS) as u64;
        let mut firsts: Vec<(Kind, Solution)> = Vec::new();
        for kind in self.kinds() {
            let s = self.of_kind(kind, room).filter(|s| !self.seen.contains_key(&s.choice));
            if let Some(s) = s.filter(|s| firsts.iter().all(|f| f.1.choice != s.choice)) {
                firsts.push((kind, s));
            }
        }
        firsts.sort_by(|a, b| a.1.error.total_cmp(&b.1.error));
        let mut promising: Option<(f64, Kind, Solution)> = None;
        for (kind, s) in firsts.into_iter().take(KINDS) {
            let lost = self.lost(&s, drop)?;
            if lost <= 1.0 && promising.as_ref().is_none_or(|p| lost < p.0) {
                promising = Some((lost, kind, s));
            }
        }
        let Some((_, kind, first)) = promising else { return Ok(None) };
        let mut rivals = vec![first];
        while rivals.len() < STEPS && !late(self.progress, SEARCHED) {
            let room = (rivals[rivals.len() - 1].weight as f64 * STEP) as u64;
            let Some(s) = self.of_kind(kind, room) else { break };
            if self.lost(&s, drop)? > 1.0 {
                break;
            }
            rivals.push(s);
        }
        let mut held = self.split.held_back.clone();
        let reference = self.reference(&mut held)?;
        self.split.held_back = held;
        let level = self.looks.spend();
        let mut confirmed = None;
        for s in rivals {
            let bound = knapsack::bound_of_weight(&self.items, s.error).min(s.weight as f64);
            let found = self.examine(Solution { bound, ..s }, &reference, drop, level)?;
            if !found.met {
                break;
            }
            confirmed = Some(found);
        }
        Ok(confirmed)
    }

    /// The share of the drop that a selection loses on the samples that select.
    fn lost(&mut self, s: &Solution, drop: f64) -> Result<f64> {
        let m = self.measure(s)?;
        let allowed = if m.bounds(drop) { drop } else { drop * MARGIN };
        Ok(if m.expected_within(allowed) { m.used(allowed).min(1.0) } else { f64::INFINITY })
    }

    fn kinds(&self) -> BTreeSet<Kind> {
        let methods = self.rows.iter().flat_map(|r| r.candidates.iter().map(|o| Kind::Only(o.head.method)));
        methods.chain([Kind::Sums, Kind::Earlier, Kind::Uniform]).collect()
    }

    /// The selection of a kind with the least error within so many bytes.
    fn of_kind(&self, kind: Kind, bytes: u64) -> Option<Solution> {
        let found = match kind {
            Kind::Sums => self.shares.least_error(&self.items, bytes)?,
            Kind::Earlier => {
                let as_many = |(a, b): (&Vec<Item>, &Vec<Item>)| a.len() == b.len();
                let same = self.earlier.len() == self.items.len()
                    && self.earlier.iter().zip(&self.items).all(as_many);
                same.then(|| self.shares.least_error(&self.earlier, bytes))??
            }
            Kind::Only(method) => {
                let s = self.shares.least_error(&self.only(method), bytes)?;
                let chosen = self.rows.iter().zip(&s.choice).filter_map(|(r, &c)| r.candidate(c));
                chosen.into_iter().all(|o| o.head.method == method).then_some(s)?
            }
            Kind::Uniform => {
                let fit = self.uniform().into_iter().filter(|s| s.weight <= bytes);
                fit.min_by(|a, b| a.error.total_cmp(&b.error).then(a.weight.cmp(&b.weight)))?
            }
        };
        // What overrides do not allow has no end of an error.
        Some(self.solution(found.choice)).filter(|s| s.weight <= bytes && s.error.is_finite())
    }

    /// The items, those of other methods beyond any budget.
    fn only(&self, method: &str) -> Vec<Vec<Item>> {
        let of = |(row, items): (&crate::table::Row, &Vec<Item>)| {
            let other = |c: usize| row.candidate(c).is_some_and(|o| o.head.method != method);
            let masked = |(c, &i): (usize, &Item)| if other(c) { Item { error: BEYOND, ..i } } else { i };
            items.iter().enumerate().map(masked).collect()
        };
        self.rows.iter().zip(&self.items).map(of).collect()
    }
}
