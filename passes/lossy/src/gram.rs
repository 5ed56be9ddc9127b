//! Gram matrices of layer inputs: streamed once, they give the exact output error of any weight change.
//!
//! For inputs x and a weight change Δ (rows × dim), `E‖Δx‖² = tr(Δ·H·Δᵀ)` with `H = E[x xᵀ]`. Memory does not grow
//! with the number of samples. Columns far apart may be kept in separate diagonal blocks to bound it for wide layers.

use crate::product;
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use ndarray::{Array1, Array2, ArrayView2, s};
use rayon::prelude::*;
use std::ops::Range;

/// Rows multiplied at once.
const PUSH_ROWS: usize = 512;

/// Rows wait while their numbers are at most this part of those of the sums.
const WAITING: usize = 4;

/// A variance of this share of the second moment is what single precision may be off by.
const CONSTANT: f64 = 1e-6;

/// One diagonal block of `Σ x xᵀ`, in single precision: products of [`PUSH_ROWS`] rows are added a few hundred times, so
/// the relative error stays near 1e-6, far below the damping, at half the memory.
#[derive(Debug, Clone)]
struct Block {
    start: usize,
    sum: Array2<f32>,
}

/// Second moments of a stream of vectors.
#[derive(Debug, Clone)]
pub struct Gram {
    dim: usize,
    count: u64,
    blocks: Vec<Block>,
    first: Array1<f64>,
    /// Rows that wait to be multiplied with others; see [`Gram::gather`].
    waiting: Vec<f32>,
}

impl Gram {
    /// An empty statistic of `dim`-vectors; correlations are kept within blocks of at most `block` columns.
    pub fn new(dim: usize, block: usize) -> Gram {
        let count = dim.div_ceil(block.max(1)).max(1);
        // Four consecutive columns, of which a pattern keeps two, lie in one block.
        let width = dim.div_ceil(count).next_multiple_of(4).max(1);
        Gram::with_blocks(dim, width)
    }

    /// As [`Gram::new`] with exactly `width` columns in each block but the last.
    pub fn with_blocks(dim: usize, width: usize) -> Gram {
        let blocks = (0..dim)
            .step_by(width.max(1))
            .map(|start| {
                let n = width.max(1).min(dim - start);
                Block { start, sum: Array2::zeros((n, n)) }
            })
            .collect();
        Gram { dim, count: 0, blocks, first: Array1::zeros(dim), waiting: Vec::new() }
    }

    /// The statistic of white inputs: H is the identity, so errors are plain squared weight errors.
    pub fn identity(dim: usize) -> Gram {
        let mut g = Gram::with_blocks(dim, 1);
        g.count = 1;
        g.blocks.iter_mut().for_each(|b| b.sum.fill(1.0));
        g
    }

    pub fn dim(&self) -> usize {
        self.dim
    }
    /// Vectors seen.
    pub fn count(&self) -> u64 {
        self.count + (self.waiting.len() / self.dim.max(1)) as u64
    }

    /// Adds the rows of `x` (samples × dim).
    pub fn push(&mut self, x: ArrayView2<f32>) {
        if x.ncols() != self.dim {
            return;
        }
        for rows in x.axis_chunks_iter(ndarray::Axis(0), PUSH_ROWS) {
            for b in &mut self.blocks {
                add_product(&mut b.sum, b.start, rows, rows, true);
            }
            for row in rows.rows() {
                self.first.zip_mut_with(&row, |s, &v| *s += f64::from(v));
            }
        }
        self.count += x.nrows() as u64;
    }

    /// Adds the rows of `x` some time before [`Gram::settle`] ends: sums of few rows cost as much as those of many, so few
    /// wait for others, while they are few beside the sums themselves.
    pub fn gather(&mut self, x: ArrayView2<f32>) {
        let most = PUSH_ROWS.min(self.dim / WAITING);
        let rows = self.waiting.len() / self.dim.max(1);
        if x.ncols() != self.dim || rows + x.nrows() > most {
            self.settle();
        }
        match x.as_slice() {
            Some(all) if x.ncols() == self.dim && x.nrows() <= most => self.waiting.extend_from_slice(all),
            _ => self.push(x),
        }
    }

    /// Adds the rows that wait.
    pub fn settle(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        if let Ok(x) = ArrayView2::from_shape((waiting.len() / self.dim.max(1), self.dim), &waiting) {
            self.push(x);
        }
    }

    /// Adds what another stream of the same vectors gave.
    pub fn merge(&mut self, other: &Gram) {
        if self.sizes() != other.sizes() {
            return;
        }
        self.blocks.iter_mut().zip(&other.blocks).for_each(|(a, b)| a.sum += &b.sum);
        self.first += &other.first;
        self.count += other.count;
    }

    fn scale(&self) -> f64 {
        1.0 / (self.count.max(1) as f64)
    }

    /// E\[x\].
    pub fn mean(&self) -> Array1<f64> {
        &self.first * self.scale()
    }

    /// E\[x_j²\] for each column.
    pub fn diagonal(&self) -> Vec<f64> {
        let all = self.blocks.iter().flat_map(|b| b.sum.diag().to_vec());
        all.map(|v| f64::from(v) * self.scale()).collect()
    }

    /// Widths of the blocks of H.
    pub fn sizes(&self) -> Vec<usize> {
        self.blocks.iter().map(|b| b.sum.nrows()).collect()
    }

    /// The blocks of H times a number of vectors: (first column, matrix, what to multiply it by).
    pub fn sums(&self) -> impl Iterator<Item = (usize, &Array2<f32>, f64)> + '_ {
        self.blocks.iter().map(|b| (b.start, &b.sum, self.scale()))
    }

    /// The blocks of H as (first column, matrix).
    pub fn blocks(&self) -> impl Iterator<Item = (usize, Array2<f64>)> + '_ {
        self.blocks.iter().map(|b| (b.start, b.sum.mapv(|v| f64::from(v) * self.scale())))
    }

    /// Shrinks covariances towards zero by the share that so few samples cannot support; mean and variances stay.
    pub fn shrink(&mut self) {
        let n = self.count.max(1) as f64;
        self.edit(|i, j, dim, v, common| {
            let keep = 1.0 - dim / (dim + 10.0 * n);
            if i == j { v } else { keep * (v - common) + common }
        });
    }

    /// The covariance instead of the second moment: what is left of an error once its mean is corrected in the bias.
    /// The mean itself is kept. Columns that single precision does not tell from constant ones become so.
    pub fn center(&mut self) {
        self.edit(|i, j, _, v, common| match v - common {
            left if i == j && left <= CONSTANT * v => 0.0,
            left => left,
        });
        for b in &mut self.blocks {
            let still: Vec<usize> = (0..b.sum.nrows()).filter(|&i| b.sum[[i, i]] == 0.0).collect();
            for i in still {
                b.sum.row_mut(i).fill(0.0);
                b.sum.column_mut(i).fill(0.0);
            }
        }
    }

    /// Second moments about `mean` instead of zero: what is left of an error once a bias has taken what `mean` tells of it.
    pub fn about(&mut self, mean: &Array1<f64>) {
        let (own, n) = (self.mean(), self.count as f64);
        for b in &mut self.blocks {
            for ((i, j), v) in b.sum.indexed_iter_mut() {
                let (i, j) = (b.start + i, b.start + j);
                let moved = mean[i] * own[j] + mean[j] * own[i] - mean[i] * mean[j];
                *v = (f64::from(*v) - n * moved) as f32;
            }
        }
    }

    /// Replaces each sum by a function of its row, column, the block's width, the sum and the share of the means in it.
    fn edit(&mut self, f: impl Fn(usize, usize, f64, f64, f64) -> f64) {
        let (mean, n) = (self.mean(), self.count as f64);
        for b in &mut self.blocks {
            let dim = b.sum.nrows() as f64;
            for ((i, j), v) in b.sum.indexed_iter_mut() {
                let common = n * mean[b.start + i] * mean[b.start + j];
                *v = f(i, j, dim, f64::from(*v), common) as f32;
            }
        }
    }

    /// A copy with [`Gram::center`] applied.
    pub fn centered(&self) -> Gram {
        let mut g = self.clone();
        g.center();
        g
    }

    /// `E‖Δx‖²` for Δ of rows × dim; zero when the widths differ.
    pub fn error(&self, delta: ArrayView2<f32>) -> f64 {
        if delta.ncols() != self.dim {
            return 0.0;
        }
        self.blocks.iter().map(|b| b.error(delta)).sum::<f64>().max(0.0) * self.scale()
    }

    /// `M·H` for M of rows × dim.
    pub fn apply(&self, m: ArrayView2<f32>) -> Array2<f32> {
        let mut out = Array2::zeros(m.raw_dim());
        for b in &self.blocks {
            let (n, part) = (b.sum.nrows(), m.slice(s![.., b.start..b.start + b.sum.nrows()]));
            product::add(&mut out, b.start, self.scale() as f32, part, &b.sum, (0..n, 0..n));
        }
        out
    }

    /// E\[x_i·x_j\]; zero for columns of different blocks.
    pub fn moment(&self, i: usize, j: usize) -> f64 {
        let block = self.blocks.iter().find(|b| b.holds(i) && b.holds(j));
        block.map_or(0.0, |b| f64::from(b.sum[[i - b.start, j - b.start]]) * self.scale())
    }

    /// Columns in runs of at most `width` that do not cross blocks.
    pub fn panels(&self, width: usize) -> Vec<Range<usize>> {
        let cut = |b: &Block| {
            let (start, end) = (b.start, b.start + b.sum.nrows());
            (start..end).step_by(width.max(1)).map(move |at| at..(at + width.max(1)).min(end))
        };
        self.blocks.iter().flat_map(cut).collect()
    }

    /// The part of H + λI, λ as a share of a block's mean diagonal, that one of [`Gram::panels`] shares with itself.
    pub fn corner(&self, damping: f64, panel: Range<usize>) -> Array2<f32> {
        let Some(b) = self.blocks.iter().find(|b| b.holds(panel.start)) else { return Array2::zeros((0, 0)) };
        let at = panel.start - b.start..panel.end - b.start;
        let mut h = b.sum.slice(s![at.clone(), at]).mapv(|v| v * self.scale() as f32);
        let lambda = b.lambda(damping) * self.scale() as f32;
        h.diag_mut().mapv_inplace(|v| v + lambda);
        h
    }

    /// `m·(H + λI)` for a matrix that is zero but for `m` in every `step`-th column from `at` on.
    pub fn apply_strided(&self, damping: f64, m: ArrayView2<f32>, at: usize, step: usize) -> Array2<f32> {
        let mut out = Array2::zeros((m.nrows(), self.dim));
        let scale = self.scale() as f32;
        for b in &self.blocks {
            let n = b.sum.nrows();
            let here: Vec<usize> = (0..m.ncols()).filter(|c| b.holds(at + c * step)).collect();
            let (Some(&first), Some(&last)) = (here.first(), here.last()) else { continue };
            let m = m.slice(s![.., first..=last]);
            let from = at + first * step - b.start;
            let h =
                b.sum.slice(s![from..;step, ..]).slice(s![..m.ncols(), ..]).as_standard_layout().into_owned();
            product::add(&mut out, b.start, scale, m, &h, (0..h.nrows(), 0..n));
            let mut own = out.slice_mut(s![.., at + first * step..;step]);
            own.slice_mut(s![.., ..m.ncols()]).scaled_add(scale * b.lambda(damping), &m);
        }
        out
    }

    /// Adds `factor·m·(H + λI)` to `out` (rows × dim), where `m` holds the columns from `at` on of a matrix that is zero
    /// elsewhere; columns in `but` get nothing.
    pub fn add_product(
        &self,
        damping: f64,
        factor: f32,
        m: ArrayView2<f32>,
        at: usize,
        but: Option<&Range<usize>>,
        out: &mut Array2<f32>,
    ) {
        let scale = factor * self.scale() as f32;
        for b in &self.blocks {
            let (first, last) = (at.max(b.start), (at + m.ncols()).min(b.start + b.sum.nrows()));
            if first >= last {
                continue;
            }
            let part = m.slice(s![.., first - at..last - at]);
            for cols in b.without(but) {
                let (at, of) = (first - b.start..last - b.start, cols.start - b.start..cols.end - b.start);
                product::add(out, cols.start, scale, part, &b.sum, (at, of));
            }
            if but.is_none() {
                out.slice_mut(s![.., first..last]).scaled_add(scale * b.lambda(damping), &part);
            }
        }
    }

    /// As [`Gram::add_product`] without `but`, for a matrix of few numbers other than zero in the columns `but`.
    pub fn add_rows(
        &self,
        factor: f32,
        m: ArrayView2<f32>,
        at: usize,
        but: &Range<usize>,
        out: &mut Array2<f32>,
    ) {
        let scale = factor * self.scale() as f32;
        let Some(b) = self.blocks.iter().find(|b| b.holds(at)) else { return };
        for ((r, i), &v) in m.indexed_iter().filter(|(_, v)| **v != 0.0) {
            for cols in b.without(Some(but)) {
                let h = b.sum.slice(s![at + i - b.start, cols.start - b.start..cols.end - b.start]);
                out.slice_mut(s![r, cols]).scaled_add(scale * v, &h);
            }
        }
    }
}

/// Columns of a sum that are computed together, and the least that are worth it.
const STRIP: usize = 128;
const NARROW: usize = 32;
/// Rows and columns copied together; a part of a strip.
const TILE: usize = 16;

/// Adds `aᵀ·b` over the columns from `start` on, as many as `sum` has. Strips of rows go to any thread, so the sum does not
/// depend on how many there are; where it is `symmetric`, what lies left of the diagonal is copied.
pub(crate) fn add_product(
    sum: &mut Array2<f32>,
    start: usize,
    a: ArrayView2<f32>,
    b: ArrayView2<f32>,
    symmetric: bool,
) {
    let n = sum.nrows();
    if n < NARROW {
        let columns = |m: ArrayView2<f32>| {
            m.slice(s![.., start..start + n]).reversed_axes().as_standard_layout().into_owned()
        };
        let x = columns(a);
        let y = if symmetric { None } else { Some(columns(b)) };
        for i in 0..n {
            for j in if symmetric { 0..i + 1 } else { 0..n } {
                sum[[i, j]] += x.row(i).dot(&y.as_ref().unwrap_or(&x).row(j));
                if symmetric {
                    sum[[j, i]] = sum[[i, j]];
                }
            }
        }
        return;
    }
    let (a, b) = (a.as_standard_layout(), b.as_standard_layout());
    let (Some(x), Some(y), Some(whole)) = (a.as_slice(), b.as_slice(), sum.as_slice_mut()) else { return };
    let x = MatRef::from_row_major_slice(x, a.nrows(), a.ncols()).subcols(start, n);
    let y = MatRef::from_row_major_slice(y, b.nrows(), b.ncols()).subcols(start, n);
    whole.par_chunks_mut(STRIP * n).enumerate().for_each(|(i, strip)| {
        let (first, rows) = (i * STRIP, strip.len() / n);
        let from = if symmetric { first } else { 0 };
        let strip = MatMut::from_row_major_slice_mut(strip, rows, n).subcols_mut(from, n - from);
        let (x, y) = (x.subcols(first, rows), y.subcols(from, n - from));
        matmul(strip, Accum::Add, x.transpose(), y, 1.0, Par::Seq);
    });
    if symmetric {
        for first in (STRIP..n).step_by(STRIP) {
            let (above, strip) = whole.split_at_mut(first * n);
            let rows = STRIP.min(n - first);
            // Tiles, as a column at a time would fetch a line of memory for each number.
            for (left, top) in
                (0..first).step_by(TILE).flat_map(|l| (0..rows).step_by(TILE).map(move |t| (l, t)))
            {
                for i in top..(top + TILE).min(rows) {
                    for j in left..left + TILE {
                        strip[i * n + j] = above[j * n + first + i];
                    }
                }
            }
        }
    }
}

impl Block {
    fn holds(&self, col: usize) -> bool {
        (self.start..self.start + self.sum.nrows()).contains(&col)
    }

    /// Its columns without some of them.
    fn without(&self, but: Option<&Range<usize>>) -> Vec<Range<usize>> {
        let (start, end) = (self.start, self.start + self.sum.nrows());
        let [from, to] = but.map_or([end, end], |b| [b.start, b.end].map(|c| c.clamp(start, end)));
        [start..from, to..end].into_iter().filter(|r| !r.is_empty()).collect()
    }

    /// `share` of the mean of the diagonal of the sum; of one where all inputs are zero.
    fn lambda(&self, share: f64) -> f32 {
        let n = self.sum.nrows().max(1);
        let mean = self.sum.diag().iter().map(|&v| f64::from(v)).sum::<f64>() / n as f64;
        (share * if mean > 0.0 { mean } else { 1.0 }) as f32
    }

    fn error(&self, delta: ArrayView2<f32>) -> f64 {
        let n = self.sum.nrows();
        let d = delta.slice(s![.., self.start..self.start + n]);
        if n == 1 {
            return f64::from(self.sum[[0, 0]]) * d.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>();
        }
        let sum = |a: ArrayView2<f32>, b: ArrayView2<f32>| {
            let rows = a.rows().into_iter().zip(b.rows());
            rows.map(|(a, b)| a.iter().zip(b).map(|(&p, &v)| f64::from(p) * f64::from(v)).sum::<f64>())
                .sum::<f64>()
        };
        let mut total = 0.0;
        for rows in d.axis_chunks_iter(ndarray::Axis(0), PUSH_ROWS) {
            // What lies right of the diagonal counts twice: H is symmetric.
            for first in (0..n).step_by(STRIP) {
                let end = (first + STRIP).min(n);
                let mut moved = Array2::<f32>::zeros((rows.nrows(), n - first));
                let own = rows.slice(s![.., first..end]);
                product::add(&mut moved, 0, 1.0, own, &self.sum, (first..end, first..n));
                let (here, right) = moved.view().split_at(ndarray::Axis(1), end - first);
                total += sum(here, own) + 2.0 * sum(right, rows.slice(s![.., end..]));
            }
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::matrix;

    #[test]
    fn fours_lie_in_one_block() {
        for (dim, block) in [(5000, 1677), (2308, 2304), (7, 64), (12, 5)] {
            assert!(Gram::new(dim, block).blocks.iter().all(|b| b.start.is_multiple_of(4)), "{dim} {block}");
        }
    }

    #[test]
    fn error_equals_the_mean_output_error() {
        let (x, d) = (matrix(200, 7, 1), matrix(5, 7, 2));
        let mut g = Gram::new(7, 64);
        g.push(x.slice(s![..90, ..]));
        g.push(x.slice(s![90.., ..]));
        let y = x.dot(&d.t());
        let direct = y.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / 200.0;
        assert!((g.error(d.view()) / direct - 1.0).abs() < 1e-4);
    }

    #[test]
    fn rows_that_wait_are_summed_in_the_end() {
        let x = matrix(300, 60, 1);
        let (mut at_once, mut later) = (Gram::new(60, 64), Gram::new(60, 64));
        at_once.push(x.view());
        for (from, to) in [(0, 3), (3, 10), (10, 200), (200, 201), (201, 216), (216, 300)] {
            later.gather(x.slice(s![from..to, ..]));
        }
        later.settle();
        assert_eq!((later.count(), later.waiting.len()), (300, 0));
        let d = matrix(5, 60, 2);
        assert!((at_once.error(d.view()) / later.error(d.view()) - 1.0).abs() < 1e-5);
        assert!((at_once.mean() - later.mean()).iter().all(|d| d.abs() < 1e-9));
    }

    #[test]
    fn wide_errors_are_those_of_the_definition() {
        let (x, d) = (matrix(400, 300, 1), matrix(7, 300, 2));
        let mut g = Gram::new(300, 512);
        g.push(x.view());
        let direct = x.dot(&d.t()).iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / 400.0;
        assert!((g.error(d.view()) / direct - 1.0).abs() < 1e-4);
    }

    #[test]
    fn wide_sums_are_those_of_the_definition() {
        let (x, d) = (matrix(70, 300, 1), matrix(70, 300, 2));
        for (start, n) in [(0, 300), (7, 290), (100, 20)] {
            let part = |m: &Array2<f32>| m.slice(s![.., start..start + n]).to_owned();
            let (mut gram, mut cross) = (Array2::zeros((n, n)), Array2::zeros((n, n)));
            for _ in 0..2 {
                add_product(&mut gram, start, x.view(), x.view(), true);
                add_product(&mut cross, start, d.view(), x.view(), false);
            }
            let near = |a: &Array2<f32>, b: Array2<f32>| (a - b * 2.0).iter().all(|e| e.abs() < 1e-3);
            assert!(near(&gram, part(&x).t().dot(&part(&x))));
            assert!(near(&cross, part(&d).t().dot(&part(&x))));
        }
    }

    #[test]
    fn centering_removes_what_a_bias_can_repair() {
        let x = matrix(300, 4, 3).mapv(|v| v + 5.0);
        let d = matrix(2, 4, 4);
        let mut g = Gram::new(4, 64);
        g.push(x.view());
        let y = x.dot(&d.t());
        let m = y.mean_axis(ndarray::Axis(0)).unwrap();
        let direct = (&y - &m).iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / 300.0;
        assert!((g.centered().error(d.view()) / direct - 1.0).abs() < 1e-2);
        assert!(g.error(d.view()) > g.centered().error(d.view()));
    }

    /// What rounding left of them told the survivors of pruning to grow without bound.
    #[test]
    fn one_sample_and_constant_columns_have_no_covariance() {
        let mut g = Gram::new(8, 64);
        g.push(matrix(1, 8, 5).view());
        assert!(g.centered().blocks().all(|(_, h)| h.iter().all(|&v| v == 0.0)));
        let mut x = matrix(300, 8, 6);
        x.column_mut(3).fill(0.7);
        let mut g = Gram::new(8, 64);
        g.push(x.view());
        let h = g.centered().blocks().next().unwrap().1;
        assert!((0..8).all(|i| h[[3, i]] == 0.0 && h[[i, 3]] == 0.0 && (i == 3 || h[[i, i]] > 0.0)));
    }

    #[test]
    fn shrinking_keeps_the_covariance_positive() {
        let x = matrix(10, 40, 3).mapv(|v| v + 3.0);
        let mut g = Gram::new(40, 64);
        g.push(x.view());
        g.shrink();
        for seed in 0..20 {
            assert!(g.centered().error(matrix(1, 40, 100 + seed).view()) > 0.0);
        }
    }

    #[test]
    fn blocks_bound_memory_and_stay_exact_on_separable_changes() {
        let x = matrix(100, 10, 5);
        let (mut full, mut split) = (Gram::new(10, 16), Gram::new(10, 5));
        full.push(x.view());
        split.push(x.view());
        let mut d = Array2::<f32>::zeros((3, 10));
        d.slice_mut(s![.., ..5]).assign(&matrix(3, 5, 6));
        assert!((full.error(d.view()) / split.error(d.view()) - 1.0).abs() < 1e-5);
    }
}
