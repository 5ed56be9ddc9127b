//! Learned roundings: descent on a layer's output error from a compensated start (the aim of AdaRound, Nagel et al., arXiv
//! 2004.10568; the moves of CDQuant, Nair & Suggala, arXiv 2406.17542).
//!
//! With δ = w − ŵ and g = δ·H, moving ŵⱼ by t changes the error by `t²·Hⱼⱼ − 2t·gⱼ`, so the best stored value of one weight,
//! all others fixed, is the one nearest to `ŵⱼ + gⱼ/Hⱼⱼ`. The best change of a scale whose codes are q is `q·g / q·H·qᵀ`. Both
//! are repeated in turn; a move that does not lower the error is not made, so the error never rises.

use crate::gptq::{PANEL, Policy, Rounded};
use crate::gram::Gram;
use crate::quant::{Grid, stored_scale};
use crate::stats::Stats;
use ndarray::{Array1, Array2, ArrayView2, ArrayViewMut2, Axis, s};
use rayon::prelude::*;

/// Rows per task: fixed, so results do not depend on the number of threads.
const ROWS: usize = 64;
/// Rounds at most, and the share of the error that is worth another one.
const ROUNDS: usize = 3;
const WORTH: f64 = 1e-2;
/// Above one move in this many weights the others learn of them by one product of matrices.
const SPARSE: usize = 16;

/// Moves codes, the levels being what they are; zeros stay zeros where `masked`.
pub fn codes<P: Policy + ?Sized>(
    w: &Array2<f32>,
    stats: &Stats,
    policy: &P,
    start: &Rounded,
    masked: bool,
) -> Rounded {
    let mut end = start.clone();
    let tasks = tasks(w, stats, &mut end);
    tasks.into_par_iter().for_each(|mut t| {
        let mut error = t.begin();
        for _ in 0..ROUNDS {
            let gained = t.round(policy, t.first, masked);
            error -= gained;
            if gained <= WORTH * error {
                break;
            }
        }
    });
    end
}

/// Moves codes and scales in turn; zeros stay zeros where `masked`.
pub fn codes_and_scales(
    w: &Array2<f32>,
    stats: &Stats,
    grid: &Grid,
    start: &Rounded,
    masked: bool,
) -> (Rounded, Grid) {
    let (mut end, mut best) = (start.clone(), grid.clone());
    let per = group_rows(w, stats);
    let scales: Vec<ArrayViewMut2<f32>> =
        best.scales.axis_chunks_iter_mut(Axis(0), per).flat_map(|g| chunks(g)).collect();
    let tasks: Vec<_> = tasks(w, stats, &mut end).into_iter().zip(scales).collect();
    tasks.into_par_iter().for_each(|(mut t, mut scales)| {
        let mut own = Grid { scales: scales.to_owned(), ..grid.clone() };
        let mut error = t.begin();
        for _ in 0..ROUNDS {
            let gained = t.rescale(&mut own) + t.round(&own, 0, masked);
            error -= gained;
            if gained <= WORTH * error {
                break;
            }
        }
        scales.assign(&own.scales);
    });
    (end, best)
}

/// Rows that share one Gram matrix.
fn group_rows(w: &Array2<f32>, stats: &Stats) -> usize {
    (w.nrows() / stats.grams.len().max(1)).max(1)
}

fn chunks<T>(mut rest: ArrayViewMut2<T>) -> Vec<ArrayViewMut2<T>> {
    let mut all = Vec::new();
    while rest.nrows() > 0 {
        let at = ROWS.min(rest.nrows());
        let (head, tail) = rest.split_at(Axis(0), at);
        all.push(head);
        rest = tail;
    }
    all
}

/// Some rows of one group, and what they work with.
struct Task<'a> {
    first: usize,
    w: ArrayView2<'a, f32>,
    gram: &'a Gram,
    damping: f64,
    codes: ArrayViewMut2<'a, u8>,
    values: ArrayViewMut2<'a, f32>,
    /// (w − ŵ)·H
    slope: Array2<f32>,
}

fn tasks<'a>(w: &'a Array2<f32>, stats: &'a Stats, end: &'a mut Rounded) -> Vec<Task<'a>> {
    let per = group_rows(w, stats);
    let codes = end.codes.axis_chunks_iter_mut(Axis(0), per);
    let values = end.values.axis_chunks_iter_mut(Axis(0), per);
    let mut all = Vec::new();
    for (i, ((codes, values), gram)) in codes.zip(values).zip(&stats.grams).enumerate() {
        let mut first = i * per;
        for (codes, values) in chunks(codes).into_iter().zip(chunks(values)) {
            let w = w.slice(s![first..first + codes.nrows(), ..]);
            let (n, damping) = (codes.nrows(), stats.damping());
            all.push(Task { first, w, gram, damping, codes, values, slope: Array2::zeros((0, 0)) });
            first += n;
        }
    }
    all
}

impl Task<'_> {
    /// Finds the slope; returns the error.
    fn begin(&mut self) -> f64 {
        let delta = &self.w - &self.values;
        self.slope = Array2::zeros(delta.raw_dim());
        self.gram.add_product(self.damping, 1.0, delta.view(), 0, None, &mut self.slope);
        dot(delta.iter(), self.slope.iter())
    }

    /// One turn of all codes; returns what the error has lost.
    fn round<P: Policy + ?Sized>(&mut self, policy: &P, first: usize, masked: bool) -> f64 {
        let mut gained = 0.0;
        for panel in self.gram.panels(PANEL) {
            let h = self.gram.corner(self.damping, panel.clone());
            let (start, width) = (panel.start, panel.len());
            let mut moved = Array2::<f32>::zeros((self.w.nrows(), width));
            let mut count = 0;
            if policy.together() {
                for i in 0..width {
                    let (won, steps) = self.turn_column(policy, first, start + i, h[[i, i]]);
                    gained += won;
                    count += steps.iter().filter(|s| **s != 0.0).count();
                    moved.column_mut(i).assign(&steps);
                    let mut slope = self.slope.slice_mut(s![.., panel.clone()]);
                    for (mut slope, &step) in slope.rows_mut().into_iter().zip(&steps) {
                        if step != 0.0 {
                            slope.scaled_add(-step, &h.row(i));
                        }
                    }
                }
            } else {
                for r in 0..self.w.nrows() {
                    let mut slope = self.slope.slice_mut(s![r, panel.clone()]);
                    for i in 0..width {
                        let (d, value) = (h[[i, i]], self.values[[r, start + i]]);
                        if d <= 0.0 || (masked && value == 0.0) {
                            continue;
                        }
                        let (code, new) = policy.round(first + r, start + i, value + slope[i] / d);
                        let step = new - value;
                        let gain = step * (2.0 * slope[i] - step * d);
                        // The share is above the rounding of sums of floats; a gain that is no number is none.
                        let pays = gain > 1e-5 * step * step * d;
                        if step == 0.0 || !pays || (masked && new == 0.0) {
                            continue;
                        }
                        gained += f64::from(gain);
                        (self.codes[[r, start + i]], self.values[[r, start + i]]) = (code, new);
                        moved[[r, i]] += step;
                        count += 1;
                        slope.scaled_add(-step, &h.row(i));
                    }
                }
            }
            if count * SPARSE > moved.len() {
                self.gram.add_product(self.damping, -1.0, moved.view(), start, Some(&panel), &mut self.slope);
            } else if count > 0 {
                self.gram.add_rows(-1.0, moved.view(), start, &panel, &mut self.slope);
            }
        }
        gained
    }

    /// One turn of a column whose codes depend on each other, of all or none; `d` is the bend of the error. What the error
    /// has lost, and the steps.
    fn turn_column<P: Policy + ?Sized>(
        &mut self,
        policy: &P,
        first: usize,
        col: usize,
        d: f32,
    ) -> (f64, Array1<f32>) {
        let rows = self.w.nrows();
        let none = (0.0, Array1::zeros(rows));
        if d <= 0.0 {
            return none;
        }
        let slope = self.slope.column(col);
        let x: Vec<f32> = self.values.column(col).iter().zip(slope).map(|(v, s)| v + s / d).collect();
        let mut out = vec![(0, 0.0); rows];
        policy.column(first, col, &x, &mut out);
        let steps: Array1<f32> = out.iter().zip(self.values.column(col)).map(|(o, v)| o.1 - v).collect();
        let gain: f64 = steps.iter().zip(slope).map(|(&t, &s)| f64::from(t * (2.0 * s - t * d))).sum();
        let moved: f64 = steps.iter().map(|&t| f64::from(t * t * d)).sum();
        // As for a single code.
        if gain.is_nan() || gain <= 1e-5 * moved {
            return none;
        }
        for (r, &(code, value)) in out.iter().enumerate() {
            (self.codes[[r, col]], self.values[[r, col]]) = (code, value);
        }
        (gain, steps)
    }

    /// One turn of all scales; returns what the error has lost.
    fn rescale(&mut self, grid: &mut Grid) -> f64 {
        let (mut gained, n) = (0.0, self.w.ncols());
        let offset = grid.offset() as f32;
        for b in 0..grid.scales.ncols() {
            let (start, end) = (b * grid.block, ((b + 1) * grid.block).min(n));
            let mut q = self.codes.slice(s![.., start..end]).mapv(|c| f32::from(c) - offset);
            if !grid.columns.is_empty() {
                q.columns_mut().into_iter().enumerate().for_each(|(i, mut c)| c *= grid.column(start + i));
            }
            let mut hq = Array2::<f32>::zeros(self.w.raw_dim());
            self.gram.add_product(self.damping, 1.0, q.view(), start, None, &mut hq);
            for r in 0..q.nrows() {
                let old = grid.scales[[r, b]];
                let own = q.row(r);
                let slope = dot(own.iter(), self.slope.slice(s![r, start..end]).iter());
                let bend = dot(own.iter(), hq.slice(s![r, start..end]).iter());
                let new = stored_scale((f64::from(old) + slope / bend) as f32, grid.half);
                let step = f64::from(new) - f64::from(old);
                let gain = step * (2.0 * slope - step * bend);
                if !(new > 0.5 * old && new < 2.0 * old && gain > 1e-5 * step * step * bend) {
                    continue;
                }
                gained += gain;
                grid.scales[[r, b]] = new;
                self.slope.row_mut(r).scaled_add(-(step as f32), &hq.row(r));
                // In the order of the fragment's products.
                for c in start..end {
                    self.values[[r, c]] = (f32::from(self.codes[[r, c]]) - offset) * new * grid.column(c);
                }
            }
        }
        gained
    }
}

fn dot<'a>(a: impl Iterator<Item = &'a f32>, b: impl Iterator<Item = &'a f32>) -> f64 {
    a.zip(b).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::factor::{Order, inverse};
    use crate::gptq::{compensate, nearest};
    use crate::quant::grid;
    use crate::testing::{correlated, matrix};
    use proptest::prelude::*;

    fn stats(cols: usize, seed: u64) -> Stats {
        let x = correlated(5 * cols, cols, seed);
        let mut g = Gram::new(cols, 50);
        g.push(x.view());
        Stats::of(vec![g])
    }

    /// The error under the damped Gram matrix, by its definition.
    fn damped(w: &Array2<f32>, stats: &Stats, v: &Array2<f32>) -> f64 {
        let delta = w - v;
        let mut hd = Array2::zeros(w.raw_dim());
        stats.grams[0].add_product(stats.damping(), 1.0, delta.view(), 0, None, &mut hd);
        dot(delta.iter(), hd.iter())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn the_error_never_rises_and_codes_decode_to_values(
            rows in 1usize..80, cols in 2usize..120, bits in 2u32..6, block in 1usize..130, seed in 0u64..9,
        ) {
            let (w, stats) = (matrix(rows, cols, seed), stats(cols, seed));
            let mut grid = grid(w.view(), bits, block, None, block < 64);
            if seed % 2 == 0 {
                grid.columns = (0..cols).map(|c| 0.7 + (c % 5) as f32 / 4.0).collect();
            }
            for start in [
                nearest(w.view(), &grid),
                compensate(w.view(), &inverse(&stats.grams[0], stats.damping(), Order::Activity), &grid),
            ] {
                let before = damped(&w, &stats, &start.values);
                let moved = codes(&w, &stats, &grid, &start, false);
                let (both, scaled) = codes_and_scales(&w, &stats, &grid, &start, false);
                for (r, g) in [(&moved, &grid), (&both, &scaled)] {
                    prop_assert!(damped(&w, &stats, &r.values) <= before * (1.0 + 1e-5));
                    for ((i, j), c) in r.codes.indexed_iter() {
                        let q = f32::from(*c) - g.offset() as f32;
                        prop_assert!(q >= g.low() && q <= g.high());
                        prop_assert_eq!(q * g.scales[[i, j / g.block]] * g.column(j), r.values[[i, j]]);
                    }
                }
            }
        }
    }

    #[test]
    fn one_move_less_is_never_better() {
        let (w, stats) = (matrix(3, 12, 1), stats(12, 2));
        let grid = grid(w.view(), 3, 12, None, false);
        let end = codes(&w, &stats, &grid, &nearest(w.view(), &grid), false);
        let best = damped(&w, &stats, &end.values);
        for ((i, j), &v) in end.values.indexed_iter() {
            for step in [-1.0, 1.0] {
                let mut other = end.values.clone();
                other[[i, j]] = grid.round(i, j, v + step * grid.scales[[i, 0]]).1;
                assert!(damped(&w, &stats, &other) >= best * (1.0 - WORTH));
            }
        }
    }

    #[test]
    fn compensated_roundings_lose_less_after_descent() {
        let (w, stats) = (matrix(70, 150, 2), stats(150, 1));
        for bits in [2, 3, 4] {
            let grid = grid(w.view(), bits, 150, None, false);
            let start =
                compensate(w.view(), &inverse(&stats.grams[0], stats.damping(), Order::Activity), &grid);
            let (before, after) = (
                damped(&w, &stats, &start.values),
                damped(&w, &stats, &codes_and_scales(&w, &stats, &grid, &start, false).0.values),
            );
            assert!(after < 0.95 * before, "{bits} bits: {after} of {before}");
        }
    }

    #[test]
    fn a_mask_is_kept() {
        let (w, stats) = (matrix(9, 40, 3), stats(40, 4));
        let half = w.mapv(|x| if x.abs() < 0.6 { 0.0 } else { x });
        let grid = grid(w.view(), 4, 40, None, false);
        let start = nearest(half.view(), &grid);
        let end = codes(&w, &stats, &grid, &start, true);
        assert!(start.values.iter().zip(&end.values).all(|(a, b)| (*a == 0.0) == (*b == 0.0)));
        assert!(damped(&w, &stats, &end.values) < damped(&w, &stats, &start.values));
    }
}
