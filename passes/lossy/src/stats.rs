//! What calibration knows about a layer's input.

use crate::factor::{self, Inverse, Order};
use crate::gram::Gram;
use crate::patches::Extract;
use crate::range::Histogram;
use ir::{Error, Result, Tensor};
use ndarray::{Array2, s};
use std::sync::OnceLock;

/// Share of the mean diagonal added before factoring.
const DAMPING: f64 = 0.05;
/// Widest block of columns that are correlated with each other.
const WIDEST: usize = 2304;
/// Numbers in one Gram matrix; wider layers get narrower blocks.
const ENTRIES: usize = 8 << 20;

/// Statistics of the vectors one weight matrix is multiplied with.
#[derive(Debug)]
pub struct Stats {
    /// One per group of rows.
    pub grams: Vec<Gram>,
    pub range: Histogram,
    activity: OnceLock<Vec<Vec<Inverse>>>,
    natural: OnceLock<Vec<Vec<Inverse>>>,
    centered: OnceLock<Box<Stats>>,
    /// The Gram matrices are covariances already.
    is_centered: bool,
    /// Share of the mean diagonal added before factoring.
    damping: f64,
}

impl Stats {
    /// Empty statistics for `groups` matrices of `width` columns; `runs` is the width of uncorrelated column blocks
    /// (grouped transposed convolution), or the full width.
    pub fn new(groups: usize, width: usize, runs: usize) -> Stats {
        let gram = if runs < width {
            Gram::with_blocks(width, runs)
        } else {
            Gram::new(width, WIDEST.min(ENTRIES / width.max(1)))
        };
        Stats::of(vec![gram; groups.max(1)])
    }

    pub fn of(grams: Vec<Gram>) -> Stats {
        Stats {
            grams,
            range: Histogram::default(),
            activity: OnceLock::new(),
            natural: OnceLock::new(),
            centered: OnceLock::new(),
            is_centered: false,
            damping: DAMPING,
        }
    }

    /// The same statistics with another damping.
    pub fn damped(&self, damping: f64) -> Stats {
        let (is_centered, range) = (self.is_centered, self.range.clone());
        Stats { is_centered, range, damping, ..Stats::of(self.grams.clone()) }
    }

    /// Adds the vectors of one input tensor.
    pub fn push(&mut self, input: &Tensor, extract: &Extract, width: usize, phase: usize) -> Result<()> {
        let groups = extract.vectors(input, width, phase)?;
        if groups.iter().any(|g| g.iter().any(|x| !x.is_finite())) {
            return Err(Error::data("the layer's input holds values that are not finite"));
        }
        for (g, v) in self.grams.iter_mut().zip(&groups) {
            g.push(v.view());
        }
        let data = input.to_f32s()?;
        let step = data.len().div_ceil(1 << 16).max(1);
        self.range.push(data.iter().copied().step_by(step));
        // Sampling may miss the extremes, which decide saturation.
        let (lo, hi) =
            data.iter().filter(|x| x.is_finite()).fold((0f32, 0f32), |(a, b), &x| (a.min(x), b.max(x)));
        self.range.push([lo, hi].into_iter());
        Ok(())
    }

    /// Ends calibration: forgets correlations that the samples cannot support.
    pub fn finish(&mut self) {
        self.grams.iter_mut().for_each(Gram::shrink);
    }

    /// Vectors seen.
    pub fn count(&self) -> u64 {
        self.grams.first().map_or(0, Gram::count)
    }

    /// The same statistics of inputs whose mean is taken away.
    pub fn centered(&self) -> &Stats {
        if self.is_centered {
            return self;
        }
        self.centered.get_or_init(|| {
            let mut s = Stats::of(self.grams.clone());
            s.range = self.range.clone();
            s.damping = self.damping;
            s.center();
            Box::new(s)
        })
    }

    /// Keeps covariances only: enough when every layer that reads this input has a bias to correct.
    pub fn center(&mut self) {
        self.grams.iter_mut().for_each(Gram::center);
        self.is_centered = true;
    }

    /// Inverse factors per group, computed once.
    pub fn factors(&self, order: Order) -> &[Vec<Inverse>] {
        let cell = match order {
            Order::Activity => &self.activity,
            Order::Natural => &self.natural,
        };
        cell.get_or_init(|| self.grams.iter().map(|g| factor::inverse(g, self.damping, order)).collect())
    }

    /// `E‖Δx‖²` over all groups of rows.
    pub fn error(&self, delta: &Array2<f32>) -> f64 {
        let per = delta.nrows() / self.grams.len().max(1);
        self.grams.iter().enumerate().map(|(i, g)| g.error(delta.slice(s![i * per..(i + 1) * per, ..]))).sum()
    }

    /// `M·H`, each group of rows with its own H.
    pub fn apply(&self, m: &Array2<f32>) -> Array2<f32> {
        let per = m.nrows() / self.grams.len().max(1);
        let mut out = Array2::zeros(m.raw_dim());
        for (i, g) in self.grams.iter().enumerate() {
            let rows = s![i * per..(i + 1) * per, ..];
            out.slice_mut(rows).assign(&g.apply(m.slice(rows)));
        }
        out
    }

    /// `Δ·E[x]` of each row: the mean of the output error.
    pub fn shift(&self, delta: &Array2<f32>) -> Vec<f32> {
        let per = delta.nrows() / self.grams.len().max(1);
        let means: Vec<_> = self.grams.iter().map(Gram::mean).collect();
        let row = |r: usize| {
            let m = &means[(r / per.max(1)).min(means.len() - 1)];
            delta.row(r).iter().zip(m).map(|(&d, &m)| f64::from(d) * m).sum::<f64>() as f32
        };
        (0..delta.nrows()).map(row).collect()
    }

    /// E\[x_j²\] for the columns of the group that `row` of `rows` belongs to.
    pub fn diagonals(&self) -> Vec<Vec<f64>> {
        self.grams.iter().map(Gram::diagonal).collect()
    }
}
