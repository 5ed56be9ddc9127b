//! What calibration knows about a layer's input.

use crate::factor::{self, Inverse, Order};
use crate::gram::Gram;
use crate::patches::{Extract, floats};
use crate::quant::grid;
use crate::range::Histogram;
use crate::rounding::swept;
use ir::{Error, Result, Tensor};
use ndarray::{Array2, s};
use std::sync::{Arc, Mutex, OnceLock};

/// Share of the mean diagonal added before factoring.
const DAMPING: f64 = 0.05;
/// What is tried where there are samples to decide by.
const DAMPINGS: [f64; 4] = [0.05, 0.3, 1.0, 3.0];
/// Values of one input that enter its histogram.
const SEEN: usize = 1 << 14;
/// Rows of a weight that decide.
const ROWS: usize = 256;
/// Widest block of columns that are correlated with each other.
const WIDEST: usize = 2304;
/// Narrowest block where memory is short.
const NARROWEST: usize = 32;
/// Numbers in one Gram matrix; wider layers get narrower blocks.
const ENTRIES: usize = 8 << 20;

/// Columns of the blocks of a Gram matrix.
fn block(width: usize, widest: usize) -> usize {
    width.min(widest).min(ENTRIES / width.max(1))
}

/// Inverse factors per group, once they were asked for.
type Kept = Mutex<Option<Arc<Vec<Vec<Inverse>>>>>;

/// Statistics of the vectors one weight matrix is multiplied with.
#[derive(Debug)]
pub struct Stats {
    /// One per group of rows.
    pub grams: Vec<Gram>,
    pub range: Histogram,
    /// Least and largest of each column, of layers without groups.
    columns: [Vec<f32>; 2],
    activity: Kept,
    natural: Kept,
    centered: OnceLock<Box<Stats>>,
    /// The Gram matrices are covariances already.
    is_centered: bool,
    /// Share of the mean diagonal added before factoring.
    damping: f64,
    /// Of samples that these do not hold: errors are judged by them.
    unseen: Option<Vec<Gram>>,
}

/// What statistics need of one input tensor.
pub struct Seen {
    /// Vectors of each group of rows.
    groups: Vec<Array2<f32>>,
    /// Least and largest of each column, of layers without groups.
    columns: [Vec<f32>; 2],
    /// Values evenly spread, and the ends of all.
    some: Vec<f32>,
    ends: [f32; 2],
}

impl Seen {
    pub fn of(input: &Tensor, extract: &Extract, width: usize, phase: usize) -> Result<Seen> {
        let groups = extract.vectors(input, width, phase)?;
        if !groups.iter().all(finite) {
            return Err(Error::data("the layer's input holds values that are not finite"));
        }
        let mut columns: [Vec<f32>; 2] = Default::default();
        if let [vectors] = &groups[..] {
            let [low, high] = &mut columns;
            low.resize(width, 0.0);
            high.resize(width, 0.0);
            for row in vectors.rows() {
                low.iter_mut().zip(row).for_each(|(l, &x)| *l = if x < *l { x } else { *l });
                high.iter_mut().zip(row).for_each(|(h, &x)| *h = if x > *h { x } else { *h });
            }
        }
        let data = floats(input)?;
        let step = data.len().div_ceil(SEEN).max(1);
        let some = data.iter().copied().step_by(step).collect();
        Ok(Seen { groups, columns, some, ends: extremes(&data) })
    }
}

impl Stats {
    /// Empty statistics for `groups` matrices of `width` columns; `runs` is the width of uncorrelated column blocks
    /// (grouped transposed convolution), or the full width.
    pub fn new(groups: usize, width: usize, runs: usize) -> Stats {
        Stats::within(groups, width, runs, WIDEST)
    }

    /// As [`Stats::new`] with correlations in blocks of at most `widest` columns.
    pub fn within(groups: usize, width: usize, runs: usize, widest: usize) -> Stats {
        let gram = if runs < width {
            Gram::with_blocks(width, runs)
        } else {
            Gram::new(width, block(width, widest))
        };
        Stats::of(vec![gram; groups.max(1)])
    }

    /// The widest blocks with which statistics of all these (groups, width, runs) hold at most so many numbers.
    pub fn widest(of: &[[usize; 3]], numbers: u64) -> usize {
        let one = |&[groups, width, runs]: &[usize; 3], widest: usize| {
            let block = if runs < width { runs } else { block(width, widest) };
            (groups.max(1) as u64).saturating_mul(width as u64).saturating_mul(block as u64)
        };
        let all = |widest: usize| of.iter().map(|s| one(s, widest)).fold(0, u64::saturating_add);
        let mut widest = WIDEST;
        while widest > NARROWEST && all(widest) > numbers {
            widest /= 2;
        }
        widest
    }

    pub fn of(grams: Vec<Gram>) -> Stats {
        Stats {
            grams,
            range: Histogram::default(),
            columns: Default::default(),
            activity: Kept::default(),
            natural: Kept::default(),
            centered: OnceLock::new(),
            is_centered: false,
            damping: DAMPING,
            unseen: None,
        }
    }

    /// With statistics of samples that were not fitted, by which errors are measured from now on.
    pub fn judged_by(mut self, mut unseen: Stats) -> Stats {
        unseen.settle();
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
        let [low, high] = &self.columns;
        let least = |c: &[f32]| c.iter().fold(0f32, |m, &x| m.min(x));
        let most = |c: &[f32]| c.iter().fold(0f32, |m, &x| m.max(x));
        let runs = low.chunks(run.max(1)).zip(high.chunks(run.max(1))).map(|(l, h)| [least(l), most(h)]);
        (!low.is_empty()).then(|| runs.collect())
    }

    /// Adds the vectors of one input tensor.
    pub fn push(&mut self, input: &Tensor, extract: &Extract, width: usize, phase: usize) -> Result<()> {
        self.take(&Seen::of(input, extract, width, phase)?);
        self.settle();
        Ok(())
    }

    /// Adds what was seen of one input, some of it not before [`Stats::finish`].
    pub fn take(&mut self, seen: &Seen) {
        for (g, v) in self.grams.iter_mut().zip(&seen.groups) {
            g.gather(v.view());
        }
        for (own, seen) in self.columns.iter_mut().zip(&seen.columns) {
            own.resize(seen.len(), 0.0);
        }
        let [low, high] = &mut self.columns;
        low.iter_mut().zip(&seen.columns[0]).for_each(|(l, &x)| *l = if x < *l { x } else { *l });
        high.iter_mut().zip(&seen.columns[1]).for_each(|(h, &x)| *h = if x > *h { x } else { *h });
        self.range.push(seen.some.iter().copied());
        // Sampling may miss the extremes, which decide saturation.
        self.range.push(seen.ends.into_iter());
    }

    /// Ends calibration: forgets correlations that the samples cannot support.
    pub fn finish(&mut self) {
        self.settle();
        self.grams.iter_mut().for_each(Gram::shrink);
    }

    /// Adds what waits to be added.
    fn settle(&mut self) {
        self.grams.iter_mut().for_each(Gram::settle);
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
    pub fn factors(&self, order: Order) -> Arc<Vec<Vec<Inverse>>> {
        let cell = match order {
            Order::Activity => &self.activity,
            Order::Natural => &self.natural,
        };
        let mut kept = cell.lock().unwrap_or_else(|e| e.into_inner());
        let all = || self.grams.iter().map(|g| factor::inverse(g, self.damping, order)).collect();
        Arc::clone(kept.get_or_insert_with(|| Arc::new(all())))
    }

    /// Lets go of inverse factors until they are asked for again.
    pub fn forget(&self) {
        for cell in [&self.activity, &self.natural] {
            *cell.lock().unwrap_or_else(|e| e.into_inner()) = None;
        }
        self.centered.get().into_iter().for_each(|s| s.forget());
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

/// Whether all entries are numbers, asked of all bits at once: no exponent is full.
fn finite(m: &Array2<f32>) -> bool {
    const FULL: u32 = 0x7f80_0000;
    let top = |v: &[f32]| v.iter().fold(0, |m, x| (x.to_bits() & 0x7fff_ffff).max(m));
    m.as_slice().map_or_else(|| m.iter().all(|x| x.is_finite()), |v| top(v) < FULL)
}

/// Least and largest of the finite values and zero.
fn extremes(data: &[f32]) -> [f32; 2] {
    const LANES: usize = 16;
    let (mut low, mut high) = ([0f32; LANES], [0f32; LANES]);
    let (chunks, rest) = data.as_chunks::<LANES>();
    for c in chunks {
        for i in 0..LANES {
            low[i] = if c[i] < low[i] { c[i] } else { low[i] };
            high[i] = if c[i] > high[i] { c[i] } else { high[i] };
        }
    }
    let seen = low.iter().chain(&high).chain(rest);
    let ends = |[l, h]: [f32; 2], &x: &f32| [l.min(x), h.max(x)];
    let all = seen.fold([0f32; 2], ends);
    if all.iter().all(|x| x.is_finite()) {
        return all;
    }
    data.iter().filter(|x| x.is_finite()).fold([0f32; 2], ends)
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
    fn sums_keep_to_the_memory() {
        let sizes = [[1, 9216, 9216], [1, 4608, 4608], [16, 9, 9], [1, 64, 16]];
        let numbers = |widest: usize| -> usize {
            let of = |&[groups, width, runs]: &[usize; 3]| Stats::within(groups, width, runs, widest).grams;
            let squares = |g: &Gram| g.sizes().into_iter().map(|n| n * n).sum::<usize>();
            sizes.iter().flat_map(of).map(|g| squares(&g)).sum()
        };
        assert_eq!(Stats::widest(&sizes, u64::MAX), WIDEST);
        for most in [1usize << 20, 2 << 20, 8 << 20] {
            let widest = Stats::widest(&sizes, most as u64);
            // Blocks of equal width may be a little wider than asked.
            assert!(numbers(widest) <= most + most / 16 && numbers(2 * widest) > most, "{widest}");
        }
        assert!(Stats::widest(&sizes, 0) <= NARROWEST);
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
    fn extremes_are_of_finite_values() {
        let mut data: Vec<f32> = (0..50).map(|i| i as f32 - 20.0).collect();
        assert_eq!(extremes(&data), [-20.0, 29.0]);
        (data[3], data[40], data[49]) = (f32::NAN, f32::NEG_INFINITY, f32::INFINITY);
        assert_eq!(extremes(&data), [-20.0, 28.0]);
        let of = |x: f32| finite(&Array2::from_elem((3, 5), x));
        assert!(of(f32::MAX) && of(-0.0) && !of(f32::NAN) && !of(f32::NEG_INFINITY));
        assert_eq!(extremes(&[2.0; 3]), [0.0, 2.0]);
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
