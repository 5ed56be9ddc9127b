//! What calibration knows about a layer's input.

use crate::factor::{self, Inverse, Order};
use crate::gram::Gram;
use crate::patches::Extract;
use crate::quant::grid;
use crate::range::Histogram;
use crate::rounding::swept;
use ir::{Error, Result, Tensor};
use ndarray::{Array2, s};
use std::sync::OnceLock;

/// Share of the mean diagonal added before factoring.
const DAMPING: f64 = 0.05;
/// What is tried where there are samples to decide by.
const DAMPINGS: [f64; 4] = [0.05, 0.3, 1.0, 3.0];
/// Rows of a weight that decide.
const ROWS: usize = 256;
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
    /// Least and largest of each column, of layers without groups.
    columns: Vec<[f32; 2]>,
    activity: OnceLock<Vec<Vec<Inverse>>>,
    natural: OnceLock<Vec<Vec<Inverse>>>,
    centered: OnceLock<Box<Stats>>,
    /// The Gram matrices are covariances already.
    is_centered: bool,
    /// Share of the mean diagonal added before factoring.
    damping: f64,
    /// Of samples that these do not hold: errors are judged by them.
    unseen: Option<Vec<Gram>>,
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
            columns: Vec::new(),
            activity: OnceLock::new(),
            natural: OnceLock::new(),
            centered: OnceLock::new(),
            is_centered: false,
            damping: DAMPING,
            unseen: None,
        }
    }

    /// With statistics of samples that were not fitted, by which errors are measured from now on.
    pub fn judged_by(mut self, unseen: Stats) -> Stats {
        if unseen.count() > 0 {
            self.unseen = Some(unseen.grams);
        }
        self
    }

    /// Takes the damping under which compensated rounding of `w` loses least on samples that were not fitted: few and
    /// similar samples support few directions.
    pub fn tune(&mut self, w: &Array2<f32>, centered: bool) {
        if self.unseen.is_none() {
            return;
        }
        let columns = w.ncols();
        let w = if self.grams.len() > 1 {
            w.to_owned()
        } else {
            let step = w.nrows().div_ceil(ROWS).max(1);
            w.slice(s![..;step, ..]).to_owned()
        };
        let loss = |damping: f64| {
            let stats = self.damped(damping);
            let stats = if centered { stats.centered() } else { &stats };
            let grid = grid(w.view(), 4, columns, None, false);
            stats.error(&(&w - &swept(&w, stats, Order::Activity, &grid).values))
        };
        let all = DAMPINGS.map(|d| (loss(d), d));
        let best = all.into_iter().min_by(|a, b| a.0.total_cmp(&b.0)).map_or(DAMPING, |b| b.1);
        *self = self.damped(best);
    }

    /// The same statistics with another damping.
    pub fn damped(&self, damping: f64) -> Stats {
        let (is_centered, range, columns) = (self.is_centered, self.range.clone(), self.columns.clone());
        let unseen = self.unseen.clone();
        Stats { is_centered, range, columns, damping, unseen, ..Stats::of(self.grams.clone()) }
    }

    /// Share of the mean diagonal that is added before solving.
    pub fn damping(&self) -> f64 {
        self.damping
    }

    /// Least and largest entries of each run of `run` columns, zero included; `None` where they were not seen.
    pub fn extremes(&self, run: usize) -> Option<Vec<[f32; 2]>> {
        let both = |a: [f32; 2], b: &[f32; 2]| [a[0].min(b[0]), a[1].max(b[1])];
        let runs = self.columns.chunks(run.max(1)).map(|c| c.iter().fold([0.0; 2], both));
        (!self.columns.is_empty()).then(|| runs.collect())
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
        if let [vectors] = &groups[..] {
            self.columns.resize(width, [0.0; 2]);
            for row in vectors.rows() {
                let seen = |c: &mut [f32; 2], x: f32| *c = [c[0].min(x), c[1].max(x)];
                self.columns.iter_mut().zip(row).for_each(|(c, &x)| seen(c, x));
            }
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
            s.unseen = self.unseen.clone();
            s.center();
            Box::new(s)
        })
    }

    /// Keeps covariances only: enough when every layer that reads this input has a bias to correct.
    pub fn center(&mut self) {
        for (unseen, own) in self.unseen.iter_mut().flatten().zip(&self.grams) {
            unseen.about(&own.mean());
        }
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

    /// `E‖Δx‖²` over all groups of rows, on samples that were not fitted where there are such.
    pub fn error(&self, delta: &Array2<f32>) -> f64 {
        let grams = self.unseen.as_ref().unwrap_or(&self.grams);
        let per = delta.nrows() / grams.len().max(1);
        grams.iter().enumerate().map(|(i, g)| g.error(delta.slice(s![i * per..(i + 1) * per, ..]))).sum()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{correlated, matrix};

    fn of(x: &Array2<f32>) -> Stats {
        let mut s = Stats::new(1, x.ncols(), x.ncols());
        s.grams[0].push(x.view());
        s
    }

    #[test]
    fn errors_are_those_on_samples_that_were_not_fitted() {
        let (x, other) = (correlated(60, 12, 1) + 2.0, correlated(90, 12, 2) + 1.0);
        let delta = matrix(5, 12, 3);
        let s = of(&x).judged_by(of(&other));
        let mean = |e: &Array2<f32>| e.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / 90.0;
        let y = other.dot(&delta.t());
        assert!((s.error(&delta) / mean(&y) - 1.0).abs() < 1e-4);
        // A bias takes the mean that the fitted samples tell.
        let shift = ndarray::Array1::from(s.shift(&delta));
        assert!((s.centered().error(&delta) / mean(&(y - shift)) - 1.0).abs() < 1e-3);
    }

    #[test]
    fn fewer_samples_are_damped_more() {
        let (w, judge) = (matrix(32, 48, 5), correlated(4000, 48, 2));
        let damping = |n: usize| {
            let mut s = of(&judge.slice(s![..n, ..]).to_owned())
                .judged_by(of(&judge.slice(s![2000.., ..]).to_owned()));
            s.tune(&w, false);
            s.damping
        };
        assert!(damping(12) > damping(2000), "{} {}", damping(12), damping(2000));
        assert_eq!(damping(2000), DAMPINGS[0]);
    }
}
