//! Kernels in the norm of their data: second moments of a convolution's inputs, channels and taps taken apart.
//!
//! With H ≈ H_C ⊗ H_T and H_C = L_C·L_Cᵀ, H_T = L_T·L_Tᵀ, the output error of a change of a kernel is its plain square once
//! inputs are multiplied by L_C and taps by L_T; products of factors stay products of factors. What is exact is done at
//! the end, under H itself ([`left`]).

use crate::factor::lower;
use crate::gram::Gram;
use crate::product::dot;
use crate::spectrum::solve_right;
use crate::stats::Stats;
use faer::{Mat, Side, prelude::Solve};
use ndarray::{Array2, Array3, s};

/// Share of the mean diagonal added before factoring.
const DAMPING: f64 = 1e-2;

/// Whitening of inputs and of taps.
pub struct Modes {
    channels: Array2<f64>,
    taps: Array2<f64>,
}

impl Modes {
    /// Of `channels`·`taps` columns, taps innermost; without statistics nothing is changed.
    pub fn of(stats: Option<&Stats>, channels: usize, taps: usize) -> Modes {
        let gram = stats.and_then(|s| s.grams.first()).filter(|g| g.dim() == channels * taps);
        match gram {
            Some(gram) => Modes::rooted(moments(gram, channels, taps)),
            None => Modes { channels: Array2::eye(channels), taps: Array2::eye(taps) },
        }
    }

    /// Of several layers, each with the same weight in them.
    pub fn over(stats: &[&Stats], channels: usize, taps: usize) -> Modes {
        let grams = stats.iter().filter_map(|s| s.grams.first()).filter(|g| g.dim() == channels * taps);
        let parts = grams.map(|g| {
            let (c, t) = moments(g, channels, taps);
            let mean = c.diag().sum() / channels.max(1) as f64;
            if mean > 0.0 { (c / mean, t / (mean * channels as f64)) } else { (c, t) }
        });
        match parts.reduce(|a, b| (a.0 + b.0, a.1 + b.1)) {
            Some(sum) => Modes::rooted(sum),
            None => Modes::of(None, channels, taps),
        }
    }

    fn rooted((channels, mut taps): (Array2<f64>, Array2<f64>)) -> Modes {
        let mean = taps.diag().sum() / taps.nrows().max(1) as f64;
        taps.mapv_inplace(|v| v / if mean > 0.0 { mean } else { 1.0 });
        Modes { channels: root(channels), taps: root(taps) }
    }

    /// The kernel (outputs × inputs × taps) in whitened coordinates.
    pub fn whitened(&self, w: &Array3<f64>) -> Array3<f64> {
        let mut out = w.clone();
        for o in 0..w.dim().0 {
            let one = dot(self.channels.t(), w.slice(s![o, .., ..])).dot(&self.taps);
            out.slice_mut(s![o, .., ..]).assign(&one);
        }
        out
    }

    /// Factors over inputs and taps, one column a term, taken back to plain coordinates.
    pub fn unwhitened(&self, inp: &Array2<f64>, taps: &Array2<f64>) -> (Array2<f64>, Array2<f64>) {
        let back = |m: &Array2<f64>, l: &Array2<f64>| {
            solve_right(m, l).reversed_axes().as_standard_layout().into_owned()
        };
        (back(inp, &self.channels), back(taps, &self.taps))
    }
}

/// Lower halves of the second moments of channels, a mean over taps, and of taps, a sum over channels.
fn moments(gram: &Gram, channels: usize, taps: usize) -> (Array2<f64>, Array2<f64>) {
    let (mut c, mut t) = (Array2::zeros((channels, channels)), Array2::zeros((taps, taps)));
    for i in 0..channels {
        for k in 0..taps {
            for j in 0..=i {
                c[[i, j]] += gram.moment(i * taps + k, j * taps + k) / taps as f64;
            }
            for l in 0..=k {
                t[[k, l]] += gram.moment(i * taps + k, i * taps + l);
            }
        }
    }
    (c, t)
}

/// Lower factor of a symmetric matrix of which the lower half is given.
fn root(mut h: Array2<f64>) -> Array2<f64> {
    for i in 0..h.nrows() {
        for j in 0..i {
            h[[j, i]] = h[[i, j]];
        }
    }
    let l = lower(&h, DAMPING);
    Array2::from_shape_fn(h.raw_dim(), |(i, j)| if j <= i { l[(i, j)] } else { 0.0 })
}

/// X with X·A = B for a symmetric positive A, to which `damping` of its mean diagonal is added; `None` where numbers have
/// overflowed.
pub fn solve(b: &Array2<f64>, a: &Array2<f64>, damping: f64) -> Option<Array2<f64>> {
    if a.iter().chain(b).any(|v| !v.is_finite()) {
        return None;
    }
    let n = a.nrows();
    let mean = a.diag().sum() / n.max(1) as f64;
    let mut lambda = damping * if mean > 0.0 { mean } else { 1.0 };
    let right = Mat::from_fn(n, b.nrows(), |i, j| b[[j, i]]);
    for _ in 0..12 {
        let m = Mat::from_fn(n, n, |i, j| 0.5 * (a[[i, j]] + a[[j, i]]) + if i == j { lambda } else { 0.0 });
        if let Ok(l) = m.llt(Side::Lower) {
            let x = l.solve(&right);
            return Some(Array2::from_shape_fn(b.raw_dim(), |(i, j)| x[(j, i)]));
        }
        lambda = lambda.max(1e-12) * 10.0;
    }
    None
}

/// A that minimises the output error of A·F against W under the damped Gram matrix, and F·H·Fᵀ.
pub fn left(w: &Array2<f32>, f: &Array2<f32>, stats: Option<&Stats>) -> Option<(Array2<f64>, Array2<f64>)> {
    let hf = match stats.and_then(|s| Some((s, s.grams.first()?))) {
        Some((s, gram)) => {
            let mut hf = Array2::zeros(f.raw_dim());
            gram.add_product(s.damping(), 1.0, f.view(), 0, None, &mut hf);
            hf
        }
        None => f.clone(),
    };
    let double = |m: Array2<f32>| m.mapv(f64::from);
    let (cross, own) = (double(dot(w.view(), hf.t())), double(dot(f.view(), hf.t())));
    Some((solve(&cross, &own, 1e-6)?, own))
}

/// As [`left`], where F applies `inp` (features × channels) at each of `taps`, which are innermost on both sides.
pub fn left_of_channels(
    w: &Array2<f32>,
    inp: &Array2<f32>,
    taps: usize,
    stats: Option<&Stats>,
) -> Option<(Array2<f64>, Array2<f64>)> {
    let (features, channels) = inp.dim();
    let gram = stats.and_then(|s| Some((s, s.grams.first()?)));
    let spread = |k: usize| {
        let mut f = Array2::<f32>::zeros((features, channels * taps));
        f.slice_mut(s![.., k..;taps]).assign(inp);
        f
    };
    // Rows of all features at one tap after the other.
    let mut hf = Array2::<f32>::zeros((features * taps, channels * taps));
    for k in 0..taps {
        let rows = match gram {
            Some((s, gram)) => gram.apply_strided(s.damping(), inp.view(), k, taps),
            None => spread(k),
        };
        hf.slice_mut(s![k..;taps, ..]).assign(&rows);
    }
    let mut own = Array2::<f64>::zeros((features * taps, features * taps));
    for k in 0..taps {
        let at_tap = hf.slice(s![.., k..;taps]).as_standard_layout().into_owned();
        let part = dot(inp.view(), at_tap.t());
        own.slice_mut(s![k..;taps, ..]).assign(&part.mapv(f64::from));
    }
    let cross = dot(w.view(), hf.t()).mapv(f64::from);
    Some((solve(&cross, &own, 1e-6)?, own))
}

/// Columns divided by their length.
pub fn unit(m: &mut Array2<f64>) {
    for mut c in m.columns_mut() {
        let n = c.dot(&c).sqrt();
        if n > 0.0 {
            c.mapv_inplace(|v| v / n);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{correlated, matrix};

    #[test]
    fn squares_in_whitened_coordinates_are_output_errors() {
        // Inputs whose moments do fall apart into channels and taps.
        let (c, t) = (matrix(5, 5, 1), matrix(3, 3, 2));
        let mut x = Array2::<f32>::zeros((4000, 15));
        for (n, mut row) in x.rows_mut().into_iter().enumerate() {
            let z = c.dot(&matrix(5, 3, 10 + n as u64)).dot(&t);
            row.iter_mut().zip(&z).for_each(|(a, b)| *a = *b);
        }
        let mut gram = Gram::new(15, 64);
        gram.push(x.view());
        let stats = Stats::of(vec![gram]);
        let w = matrix(4, 15, 3);
        let kernel = w.mapv(f64::from).into_shape_with_order((4, 5, 3)).unwrap();
        let modes = Modes::of(Some(&stats), 5, 3);
        let square: f64 = modes.whitened(&kernel).iter().map(|v| v * v).sum();
        assert!((square / stats.error(&w) - 1.0).abs() < 0.1, "{square} {}", stats.error(&w));
        let (inp, taps) = (matrix(5, 2, 4).mapv(f64::from), matrix(3, 2, 5).mapv(f64::from));
        let (i, k) = modes.unwhitened(&modes.channels.t().dot(&inp), &modes.taps.t().dot(&taps));
        assert!((&i - &inp).iter().chain(&(&k - &taps)).all(|d| d.abs() < 1e-6));
    }

    #[test]
    fn channels_apart_give_what_all_columns_give() {
        let (w, inp, taps) = (matrix(6, 40, 1), matrix(3, 10, 2), 4);
        let mut gram = Gram::new(40, 24);
        gram.push(correlated(500, 40, 3).view());
        let stats = Stats::of(vec![gram]);
        let features = Array2::from_shape_fn((12, 40), |(a, b)| {
            if a % taps == b % taps { inp[[a / taps, b / taps]] } else { 0.0 }
        });
        for stats in [Some(&stats), None] {
            let (a, own) = left(&w, &features, stats).unwrap();
            let (b, same) = left_of_channels(&w, &inp, taps, stats).unwrap();
            assert!(
                (&a - &b).iter().all(|d| d.abs() < 1e-3) && (&own - &same).iter().all(|d| d.abs() < 1e-3)
            );
        }
    }

    #[test]
    fn the_best_left_factor_has_no_better_neighbour() {
        let (w, f) = (matrix(6, 20, 1), matrix(4, 20, 2));
        let mut gram = Gram::new(20, 64);
        gram.push(correlated(500, 20, 3).view());
        let stats = Stats::of(vec![gram]).damped(1e-6);
        let best = left(&w, &f, Some(&stats)).unwrap().0.mapv(|v| v as f32);
        let error = |a: &Array2<f32>| stats.error(&(&w - &a.dot(&f)));
        for seed in 0..6 {
            let step = matrix(6, 4, 20 + seed) * 0.05;
            assert!(error(&(&best + &step)) > error(&best) && error(&(&best - &step)) > error(&best));
        }
        assert!(left(&w, &Array2::zeros((4, 20)), None).unwrap().0.iter().all(|v| *v == 0.0));
    }
}
