//! Bisection of a distortion budget on the true metric.

/// Most evaluations of the true metric.
pub const TRIALS: usize = 12;
/// Evaluations that are left for a second bisection.
const AGAIN: usize = 4;
/// Evaluations that a first look with few candidates takes.
pub const COARSE: usize = 4;
/// Brackets that end a first and a second bisection.
const WIDE: f64 = 1.3;
const NARROW: f64 = 1.12;
/// Steps of their bracketing phases.
const STEP: f64 = 6.0;
const NEAR: f64 = 1.35;
/// The least part of a bracket that an evaluation cuts off.
const MIDDLE: f64 = 0.3;
/// Share of the allowed loss that a step aims at while all passed.
const AIM: f64 = 0.9;
/// Step of the first look, and the bracket that ends it.
const FAR: f64 = 24.0;
const ROUGH: f64 = 6.0;
/// Evaluations that remain after it in any case.
const LAST: usize = 4;

/// The budgets tried next, from what passed and failed so far.
#[derive(Debug, Clone, PartialEq)]
pub struct Bisection {
    start: f64,
    /// Largest budget that passed.
    pub passed: Option<f64>,
    /// Smallest budget that failed.
    pub failed: Option<f64>,
    floor: f64,
    ceiling: f64,
    left: usize,
    /// Shares of the allowed loss that the two lose, where that is known.
    lost: [f64; 2],
    /// The bracket is narrow enough when its ends differ by less than this factor.
    narrow: f64,
    /// Factor between budgets of the bracketing phase.
    step: f64,
}

impl Bisection {
    /// Starts at `start`; budgets stay within `floor..=ceiling`.
    pub fn new(start: f64, floor: f64, ceiling: f64) -> Bisection {
        let start = start.clamp(floor, ceiling.max(floor));
        let (left, narrow, step) = (TRIALS - AGAIN, WIDE, STEP);
        Bisection { start, passed: None, failed: None, lost: [0.0; 2], floor, ceiling, left, narrow, step }
    }

    /// As [`Bisection::new`] where `start` is nearly right: few budgets, close to each other.
    pub fn near(start: f64, floor: f64, ceiling: f64) -> Bisection {
        Bisection { left: AGAIN, narrow: NARROW, step: NEAR, ..Bisection::new(start, floor, ceiling) }
    }

    /// As [`Bisection::new`], to know the order of magnitude.
    pub fn coarse(start: f64, floor: f64, ceiling: f64) -> Bisection {
        Bisection { left: COARSE, narrow: ROUGH, step: FAR, ..Bisection::new(start, floor, ceiling) }
    }

    /// With fewer evaluations left, as so many led to its start.
    pub fn after(self, evaluations: usize) -> Bisection {
        Bisection { left: self.left.saturating_sub(evaluations).max(self.left.min(LAST)), ..self }
    }

    /// The next budget worth trying, `None` when done.
    pub fn next(&self) -> Option<f64> {
        if self.left == 0 {
            return None;
        }
        match (self.passed, self.failed) {
            (None, None) => Some(self.start),
            (Some(p), None) => {
                // Squared errors follow budgets; what is lost of them grows no faster.
                let far = (AIM / self.lost[0]).clamp(self.step, self.step.max(STEP));
                let far = if far.is_finite() { far } else { self.step };
                (p < self.ceiling).then(|| (p * far).min(self.ceiling))
            }
            (None, Some(f)) => (f > self.floor).then(|| (f / self.step).max(self.floor)),
            (Some(p), Some(f)) => (f / p > self.narrow).then(|| p * (f / p).powf(self.between())),
        }
    }

    /// Where between what passed and what failed the allowed loss lies, by their losses; on the scale of logarithms.
    fn between(&self) -> f64 {
        let [low, high] = self.lost.map(f64::ln);
        let at = -low / (high - low);
        if at.is_finite() { at.clamp(MIDDLE, 1.0 - MIDDLE) } else { 0.5 }
    }

    /// Records what is known of a budget without an evaluation.
    pub fn known(&mut self, budget: f64, passed: bool, lost: f64) {
        self.left += 1;
        self.record(budget, passed, lost);
    }

    /// Records what a budget gave; `lost` is the share of the allowed loss.
    pub fn record(&mut self, budget: f64, passed: bool, lost: f64) {
        self.left = self.left.saturating_sub(1);
        if passed && self.passed.is_none_or(|p| budget > p) {
            (self.passed, self.lost[0]) = (Some(budget), lost);
        }
        if !passed && self.failed.is_none_or(|f| budget < f) {
            (self.failed, self.lost[1]) = (Some(budget), lost);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_edge_from_either_side() {
        for edge in [3e-5, 2e-3, 0.7] {
            let mut b = Bisection::new(1e-2, 1e-7, 10.0);
            while let Some(x) = b.next() {
                b.record(x, x <= edge, (x / edge).sqrt());
            }
            let p = b.passed.unwrap();
            assert!(p <= edge && p > edge / 1.6, "{edge} {p}");
            let mut b = Bisection::near(p, 1e-7, 10.0);
            while let Some(x) = b.next() {
                b.record(x, x <= edge, (x / edge).sqrt());
            }
            let p = b.passed.unwrap();
            assert!(p <= edge && p > edge / 1.2, "{edge} {p}");
        }
    }

    /// However losses grow with budgets, the second bisection ends with most of what is allowed used.
    #[test]
    fn a_start_far_below_the_edge_is_left_in_long_steps() {
        for (power, off) in [(0.5, 0.4), (1.0, 0.1), (1.0, 0.33), (0.8, 0.3)] {
            let mut b = Bisection::near(off * 2e-3, 1e-7, 10.0);
            while let Some(x) = b.next() {
                b.record(x, x <= 2e-3, (x / 2e-3).powf(power));
            }
            let used = b.passed.unwrap() / 2e-3;
            assert!(used > 0.75 && used <= 1.0, "{power} {off}: {used}");
        }
    }

    #[test]
    fn a_coarse_look_brackets_the_edge() {
        for edge in [3e-5, 2e-3, 0.7] {
            let mut b = Bisection::coarse(1e-2, 1e-7, 10.0);
            while let Some(x) = b.next() {
                b.record(x, x <= edge, (x / edge).sqrt());
            }
            assert!(b.passed.unwrap() <= edge && b.failed.unwrap() > edge && b.failed.unwrap() < 30.0 * edge);
            let mut fine = Bisection::new((b.passed.unwrap() * b.failed.unwrap()).sqrt(), 1e-7, 10.0);
            fine = fine.after(COARSE);
            while let Some(x) = fine.next() {
                fine.record(x, x <= edge, f64::NAN);
            }
            assert!(fine.passed.unwrap() <= edge && fine.passed.unwrap() > edge / 2.6);
        }
    }

    #[test]
    fn ends_when_everything_or_nothing_passes() {
        for pass in [true, false] {
            let mut b = Bisection::new(1e-2, 1e-7, 10.0);
            while let Some(x) = b.next() {
                b.record(x, pass, 0.0);
            }
            assert_eq!(b.passed.is_some(), pass);
            assert_eq!(if pass { b.passed } else { b.failed }, Some(if pass { 10.0 } else { 1e-7 }));
        }
    }
}
