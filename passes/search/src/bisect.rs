//! Bisection of a distortion budget on the true metric.

/// Most evaluations of the true metric.
pub const TRIALS: usize = 12;
/// The bracket is narrow enough when its ends differ by less than this factor.
const NARROW: f64 = 1.12;
/// Step of the bracketing phase.
const STEP: f64 = 6.0;

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
}

impl Bisection {
    /// Starts at `start`; budgets stay within `floor..=ceiling`.
    pub fn new(start: f64, floor: f64, ceiling: f64) -> Bisection {
        let start = start.clamp(floor, ceiling.max(floor));
        Bisection { start, passed: None, failed: None, floor, ceiling, left: TRIALS }
    }

    /// The next budget worth trying, `None` when done.
    pub fn next(&self) -> Option<f64> {
        if self.left == 0 {
            return None;
        }
        match (self.passed, self.failed) {
            (None, None) => Some(self.start),
            (Some(p), None) => (p < self.ceiling).then(|| (p * STEP).min(self.ceiling)),
            (None, Some(f)) => (f > self.floor).then(|| (f / STEP).max(self.floor)),
            (Some(p), Some(f)) => (f / p > NARROW).then(|| (p * f).sqrt()),
        }
    }

    pub fn record(&mut self, budget: f64, passed: bool) {
        self.left = self.left.saturating_sub(1);
        if passed {
            self.passed = Some(self.passed.map_or(budget, |p| p.max(budget)));
        } else {
            self.failed = Some(self.failed.map_or(budget, |f| f.min(budget)));
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
                b.record(x, x <= edge);
            }
            let p = b.passed.unwrap();
            assert!(p <= edge && p > edge / 1.4, "{edge} {p}");
        }
    }

    #[test]
    fn ends_when_everything_or_nothing_passes() {
        for pass in [true, false] {
            let mut b = Bisection::new(1e-2, 1e-7, 10.0);
            while let Some(x) = b.next() {
                b.record(x, pass);
            }
            assert_eq!(b.passed.is_some(), pass);
            assert_eq!(if pass { b.passed } else { b.failed }, Some(if pass { 10.0 } else { 1e-7 }));
        }
    }
}
