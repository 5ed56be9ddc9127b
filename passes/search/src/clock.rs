//! What tells the search how long graphs take on this machine. The search itself has no clock: whoever runs it brings one.

use ir::{Feeds, Graph};
use serde::{Deserialize, Serialize};

/// A layer in one of its forms, by itself: standard normal inputs of its types are enough to time it.
pub struct Piece {
    pub graph: Graph,
    /// Name of the layer's operator.
    pub op: String,
    /// The form: a candidate's recipe, and whether bytes or floats go in and come out.
    pub form: String,
}

/// Times graphs.
pub trait Clock: Send + Sync {
    /// Nanoseconds of one undisturbed run of each piece, `None` for one that does not run. The same piece always gets the same
    /// answer in one run of the search.
    fn pieces(&self, pieces: &[Piece]) -> Vec<Option<f64>>;
    /// Whole models on the same inputs, measured now and in turns; `None` when one does not run.
    fn race(&self, graphs: &[&Graph], inputs: &Feeds) -> Option<Vec<Spread>>;
    /// Threads that a run takes.
    fn threads(&self) -> usize;
}

/// Times of single runs, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    pub median_ms: f64,
    pub p10_ms: f64,
    pub p90_ms: f64,
    /// Runs that were timed.
    pub runs: usize,
}

impl Spread {
    /// Of times in milliseconds; `None` where there are none.
    pub fn of(mut ms: Vec<f64>) -> Option<Spread> {
        ms.sort_by(f64::total_cmp);
        let at = |p: f64| ms.get((ms.len().saturating_sub(1) as f64 * p).round() as usize).copied();
        Some(Spread { median_ms: at(0.5)?, p10_ms: at(0.1)?, p90_ms: at(0.9)?, runs: ms.len() })
    }
}

/// The original beside the compressed model, measured in turns in this run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    pub threads: usize,
    pub original: Spread,
    pub compressed: Spread,
    /// What the sum of the layers' times had promised.
    pub predicted_ms: f64,
}

impl Latency {
    /// True when the compressed model is not slower.
    pub fn gains(&self) -> bool {
        self.compressed.median_ms <= self.original.median_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads() {
        assert_eq!(Spread::of(Vec::new()), None);
        let s = Spread::of((0..=10).rev().map(f64::from).collect()).unwrap();
        assert_eq!((s.p10_ms, s.median_ms, s.p90_ms, s.runs), (1.0, 5.0, 9.0, 11));
    }
}
