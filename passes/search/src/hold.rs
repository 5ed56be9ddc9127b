//! The last test of a selection, on samples that chose nothing.
//!
//! Selections are tested from the safest up, and the first that fails ends the test: the last that passed is taken. In a
//! fixed sequence of that kind every step may spend the whole probability of error, since only the first selection that
//! loses too much can be let through wrongly (Angelopoulos et al. 2021, "Learn then Test", section 3.2). Where even the
//! safest fails, smaller budgets are tried; their looks, and those of a search with fewer channels and of repair, share the
//! other half of the 5 %. So do sequences that go on behind a failure while what passed uses little of the drop: where single
//! samples lose much at once, larger budgets may well pass.

use crate::confidence::{self, Level, Looks};
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

/// What a test of one budget gave; with what passed the share of the drop that it uses.
enum Tested<T> {
    Passed(T, f64),
    Failed(T),
    Nothing,
    /// There is no time for more.
    Late,
}

/// How a sequence of tests ended: with the last that passed, or with the first, which failed at this part.
enum Climbed<T> {
    Passed(T),
    Failed(T, f64),
    Nothing,
}

/// Tests parts in turn, told whether one has passed. Behind a failure another sequence begins, at a level of its own, as long
/// as what passed uses little.
fn climb<T>(
    parts: &[f64],
    mut level: Level,
    looks: &mut Looks,
    mut test: impl FnMut(usize, f64, Level, bool) -> Result<Tested<T>>,
) -> Result<Climbed<T>> {
    let (mut best, mut chances): (Option<(T, f64)>, _) = (None, CHANCES);
    for (i, &part) in parts.iter().enumerate() {
        match (test(i, part, level, best.is_some())?, &best) {
            (Tested::Passed(found, used), _) => best = Some((found, used)),
            (Tested::Nothing, _) => {}
            (Tested::Failed(found), None) => return Ok(Climbed::Failed(found, part)),
            (Tested::Failed(_), Some((_, used))) if chances > 0 && *used < ENOUGH => {
                chances -= 1;
                level = looks.spend();
            }
            (Tested::Failed(_) | Tested::Late, _) => break,
        }
    }
    Ok(best.map_or(Climbed::Nothing, |b| Climbed::Passed(b.0)))
}

impl Search<'_> {
    /// The boldest selection within `budget` that the held-back samples confirm to lose at most `drop`; where none is, the
    /// last that was tried. `passed` tells whether the selection samples allowed any.
    pub(crate) fn confirm(&mut self, budget: f64, passed: bool, drop: f64) -> Result<Option<Held>> {
        let mut held = self.split.held_back.clone();
        let reference = self.reference(&mut held)?;
        self.split.held_back = held;
        let level = self.looks.spend();
        if !passed {
            return self.look(budget, &reference, drop, level).map(|h| h.map(unmet));
        }
        // A judge's word has no spread, so there is nothing to approach from below.
        let rising = if self.options.judge.is_some() { &RISING[RISING.len() - 1..] } else { &RISING[..] };
        let mut looks = self.looks;
        let found = climb(rising, level, &mut looks, |i, part, level, passed| {
            if passed && late(self.progress, OVER) {
                self.progress.cut("budgets tested on held-back samples", i, rising.len());
                return Ok(Tested::Late);
            }
            let found = self.look(budget * part, &reference, drop, level)?;
            Ok(found.map_or(Tested::Nothing, |h| {
                let used = h.measured.used(drop);
                if h.met { Tested::Passed(h, used) } else { Tested::Failed(h) }
            }))
        })?;
        self.looks = looks;
        match found {
            Climbed::Passed(best) => Ok(Some(best)),
            Climbed::Failed(first, part) => self.retreat(first, budget * part, &reference, drop),
            Climbed::Nothing => Ok(None),
        }
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
        self.examine(solution, reference, drop, level).map(Some)
    }

    /// A selection on the held-back samples, as [`Search::look`].
    pub(crate) fn examine(
        &mut self,
        solution: Solution,
        reference: &Reference,
        drop: f64,
        level: Level,
    ) -> Result<Held> {
        let seen = self.measure(&solution)?;
        let mut measured = match &self.options.judge {
            Some(_) => seen,
            None => self.measure_on(&solution, reference, &self.split.held_back, level)?,
        };
        let met = confirmed(self.selection.metric, &mut measured, &seen, drop, level);
        Ok(Held { solution, measured, met })
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

    /// Where little is used a failure ends one sequence, and the next has a level of its own.
    #[test]
    fn a_failure_ends_what_began_at_its_level() {
        let run = |passes: &[bool], used: f64| {
            let (mut looks, mut levels) = (Looks::default(), Vec::new());
            let level = looks.spend();
            let parts: Vec<f64> = (0..passes.len()).map(|i| i as f64).collect();
            let end = climb(&parts, level, &mut looks, |i, part, level, _| {
                levels.push((level.z * 100.0) as u32);
                Ok(if passes[i] { Tested::Passed(part, used) } else { Tested::Failed(part) })
            });
            let end = match end.unwrap() {
                Climbed::Passed(part) => Some(part),
                Climbed::Failed(part, at) => (part != at).then_some(part),
                Climbed::Nothing => Some(-1.0),
            };
            (end, levels)
        };
        assert_eq!(run(&[true, true, false, true], 0.9), (Some(1.0), vec![195, 195, 195]));
        assert_eq!(run(&[true, false, true, true], 0.3), (Some(3.0), vec![195, 195, 224, 224]));
        let (end, levels) = run(&[true, false, false, false, true], 0.3);
        assert!(end == Some(0.0) && levels.len() == 4 && levels[3] > levels[2], "{levels:?}");
        assert_eq!(run(&[false, true], 0.1), (None, vec![195]));
        assert_eq!(run(&[], 0.1).0, Some(-1.0));
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
