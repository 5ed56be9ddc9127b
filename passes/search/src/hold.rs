//! The last test of a selection, on samples that chose nothing.
//!
//! Selections are tested from the safest up, and the first that fails ends the test: the last that passed is taken. In a
//! fixed sequence of that kind every step may spend the whole probability of error, since only the first selection that
//! loses too much can be let through wrongly (Angelopoulos et al. 2021, "Learn then Test", section 3.2). Where even the
//! safest fails, smaller budgets are tried; their looks, and those of a search with fewer channels and of repair, share the
//! other half of the 5 %. So do sequences that go on behind a failure while what passed uses little of the drop: where single
//! samples lose much at once, larger budgets may well pass.

use crate::confidence::{self, Level};
use crate::goal::late;
use crate::knapsack::Solution;
use crate::metric::{Measured, Metric, Reference};
use crate::{OVER, Search};
use ir::Result;

/// Budgets tested in turn, as parts of the one that the selection samples allow.
const RISING: [f64; 8] = [0.45, 0.55, 0.65, 0.73, 0.8, 0.86, 0.92, 1.0];
/// Sequences begun behind a failure, and the share of the drop which, once used, is enough.
const CHANCES: usize = 2;
const ENOUGH: f64 = 0.6;
/// Most smaller budgets tried where the first fails, each smaller by a factor that falls by a step.
const RETREATS: u8 = 16;
const RETREAT: f64 = 0.94;
const RETREAT_STEP: f64 = 0.01;
/// Part of the allowed drop that a bound which missed it is aimed at, and the smallest factor of one step.
const AIM: f64 = 0.8;
const LONGEST: f64 = 0.25;
/// Held-back samples so few that one more look makes bounds much wider: each step must be enough. A bound falls with the
/// root of the error, and the smallest factor of one step is this.
const FEW: usize = 16;
const FARTHEST: f64 = 1e-4;
/// Losses that are counted contradict an expected rate when so many or more have a smaller probability.
const SURPRISE: f64 = 0.2;

/// A selection with what the held-back samples say of it, and whether they confirm the drop.
pub struct Held {
    pub solution: Solution,
    pub measured: Measured,
    pub met: bool,
}

impl Search<'_> {
    /// The boldest selection within `budget` that the held-back samples confirm to lose at most `drop`; where none is, the
    /// last that was tried. `passed` tells whether the selection samples allowed any.
    pub(crate) fn confirm(&mut self, budget: f64, passed: bool, drop: f64) -> Result<Option<Held>> {
        let mut held = self.split.held_back.clone();
        let reference = self.reference(&mut held)?;
        self.split.held_back = held;
        let mut level = self.looks.spend();
        if !passed {
            return self.look(budget, &reference, drop, level).map(|h| h.map(unmet));
        }
        // A judge's word has no spread, so there is nothing to approach from below.
        let rising = if self.options.judge.is_some() { &RISING[RISING.len() - 1..] } else { &RISING[..] };
        let (mut best, mut chances): (Option<Held>, _) = (None, CHANCES);
        for (i, part) in rising.iter().enumerate() {
            if best.is_some() && late(self.progress, OVER) {
                self.progress.cut("budgets tested on held-back samples", i, rising.len());
                break;
            }
            let found = self.look(budget * part, &reference, drop, level)?;
            let Some(found) = found else { continue };
            match &best {
                _ if found.met => best = Some(found),
                None => return self.retreat(found, budget * part, &reference, drop),
                Some(b) if chances > 0 && b.measured.used(drop) < ENOUGH => {
                    chances -= 1;
                    level = self.looks.spend();
                }
                Some(_) => break,
            }
        }
        Ok(best)
    }

    /// Smaller budgets until one is confirmed.
    fn retreat(
        &mut self,
        mut closest: Held,
        mut budget: f64,
        reference: &Reference,
        drop: f64,
    ) -> Result<Option<Held>> {
        for i in 0..RETREATS {
            if late(self.progress, OVER) {
                self.progress.cut("smaller budgets tried on held-back samples", i.into(), RETREATS.into());
                break;
            }
            let level = self.looks.spend();
            let few = self.split.held_back.len() < FEW && self.options.judge.is_none();
            let mut bound = closest.measured.bound;
            if few {
                let held = &self.split.held_back;
                bound = bound.max(self.measure_on(&closest.solution, reference, held, level)?.bound);
            }
            // A bound far above the drop asks for a long step: every look makes the bounds of later ones wider.
            let step = AIM * drop / bound.max(f64::MIN_POSITIVE);
            let longest = RETREAT - RETREAT_STEP * f64::from(i);
            let step =
                if few { (step * step).clamp(FARTHEST, longest) } else { step.clamp(LONGEST, longest) };
            // Below what this selection loses, so that the next is another one.
            budget = f64::min(budget * step, closest.solution.error * (1.0 - 1e-6));
            let Some(found) = self.look(budget, reference, drop, level)? else { break };
            closest = found;
            if closest.met {
                break;
            }
        }
        Ok(Some(closest))
    }

    /// The selection within `budget` on the held-back samples. Where they are too few to count, the losses of all that did
    /// not calibrate must not contradict what margins promise under their errors.
    fn look(&mut self, budget: f64, reference: &Reference, drop: f64, level: Level) -> Result<Option<Held>> {
        let Some(solution) = self.least(budget) else { return Ok(None) };
        let seen = self.measure(&solution)?;
        let mut measured = match &self.options.judge {
            Some(_) => seen,
            None => self.measure_on(&solution, reference, &self.split.held_back, level)?,
        };
        let met = confirmed(self.selection.metric, &mut measured, &seen, drop, level);
        Ok(Some(Held { solution, measured, met }))
    }
}

fn unmet(h: Held) -> Held {
    Held { met: false, ..h }
}

/// Whether held-back samples that gave `m` confirm the drop, the selection samples having given `seen`; the bound of `m`
/// becomes the larger of both.
pub fn confirmed(metric: Metric, m: &mut Measured, seen: &Measured, drop: f64, level: Level) -> bool {
    m.bound = m.bound.max(seen.bound);
    if !metric.counts() {
        return m.expected_within(drop);
    }
    let counted = if m.countable(level) <= drop {
        m.counted(level) <= drop
    } else {
        let (lost, all) = (m.lost + seen.lost, m.samples + seen.samples);
        confidence::at_least(lost, m.bound.min(drop) * all as f64) >= SURPRISE
    };
    counted && m.expected_within(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(lost: f64, samples: usize, bound: f64) -> Measured {
        let (value, base, gained, finest, distortion) = (1.0 - lost / samples as f64, 1.0, 0.0, 0.001, 0.0);
        Measured {
            value,
            base,
            drop: bound / 2.0,
            bound,
            finest,
            lost,
            gained,
            samples,
            distortion,
            decided_by: None,
        }
    }

    #[test]
    fn counted_losses_must_not_contradict_the_margins() {
        let of = |held: f64, seen: f64| {
            let (mut m, s) = (measured(held, 32, 0.009), measured(seen, 48, 0.009));
            confirmed(Metric::Agreement, &mut m, &s, 0.01, Level::look(1))
        };
        assert!(of(0.0, 0.0) && of(0.0, 1.0) && of(1.0, 0.0));
        assert!(!of(1.0, 1.0) && !of(0.0, 3.0));
    }

    #[test]
    fn a_few_samples_that_agree_promise_no_less_than_the_others_lose() {
        let (mut m, mut seen) = (measured(0.0, 4, 0.004), measured(0.0, 4, 0.009));
        assert!(confirmed(Metric::Overlap, &mut m, &seen, 0.01, Level::look(1)) && m.bound == 0.009);
        seen.bound = 0.011;
        assert!(!confirmed(Metric::Overlap, &mut m, &seen, 0.01, Level::look(1)));
    }

    #[test]
    fn many_samples_are_counted() {
        let of = |lost: f64| {
            let (mut m, s) = (measured(lost, 2000, 0.004), measured(0.0, 3000, 0.004));
            confirmed(Metric::Top1, &mut m, &s, 0.01, Level::look(1))
        };
        assert!(of(6.0) && !of(18.0));
    }
}
