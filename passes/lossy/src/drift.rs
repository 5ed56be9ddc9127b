//! Making up for what compressed layers before a layer did to its inputs.
//!
//! With x the original input, x' the one that compressed layers give and d = x − x', the matrix on x' nearest to W on x is
//! `argmin ‖W·x − V·x'‖² = W + W·E[d·x'ᵀ]·E[x'·x'ᵀ]⁻¹` (asymmetric calibration; Li et al., GPTAQ, arXiv 2504.02692): the
//! part of earlier errors that shows in the inputs is taken back. Few samples support few directions, so it is damped.

use crate::factor;
use crate::gram::{Gram, add_product};
use crate::patches::Extract;
use crate::product;
use crate::stats::Stats;
use crate::view::View;
use ir::{Error, Result, Tensor};
use ndarray::{Array1, Array2, ArrayView2, s};

/// Rows that may wait for each other.
const WAITING: usize = 512;

/// `Σ d·x'ᵀ` of one group, in the same diagonal blocks as its Gram matrix.
#[derive(Debug, Clone)]
struct Cross {
    blocks: Vec<(usize, Array2<f32>)>,
    first: Array1<f64>,
    /// Rows of d and of x' that wait to be multiplied with others.
    waiting: [Vec<f32>; 2],
}

impl Cross {
    fn new(gram: &Gram) -> Cross {
        let mut start = 0;
        let mut block = |n: usize| {
            start += n;
            (start - n, Array2::zeros((n, n)))
        };
        let blocks = gram.sizes().into_iter().map(&mut block).collect();
        Cross { blocks, first: Array1::zeros(gram.dim()), waiting: Default::default() }
    }

    fn push(&mut self, d: ArrayView2<f32>, x: ArrayView2<f32>) {
        for (start, sum) in &mut self.blocks {
            add_product(sum, *start, d, x, false);
        }
        for row in d.rows() {
            self.first.zip_mut_with(&row, |s, &v| *s += f64::from(v));
        }
    }

    /// Adds the rows some time before [`Cross::settle`] ends, as [`Gram::gather`] does.
    fn gather(&mut self, d: ArrayView2<f32>, x: ArrayView2<f32>) {
        let (dim, most) = (self.first.len(), WAITING.min(self.first.len() / 8));
        if self.waiting[0].len() / dim.max(1) + d.nrows() > most {
            self.settle();
        }
        match (d.as_slice(), x.as_slice()) {
            (Some(d), Some(x)) if d.len() <= most * dim => {
                self.waiting[0].extend_from_slice(d);
                self.waiting[1].extend_from_slice(x);
            }
            _ => self.push(d, x),
        }
    }

    /// Adds the rows that wait.
    fn settle(&mut self) {
        let ([d, x], dim) = (std::mem::take(&mut self.waiting), self.first.len());
        let of = |m: &[f32]| m.len() / dim.max(1);
        if let (Ok(d), Ok(x)) =
            (ArrayView2::from_shape((of(&d), dim), &d), ArrayView2::from_shape((of(&x), dim), &x))
        {
            self.push(d, x);
        }
    }

    /// Sums become means; with the mean of x', covariances.
    fn finish(&mut self, count: u64, mean: Option<&Array1<f64>>) {
        self.settle();
        let n = count.max(1) as f64;
        self.first /= n;
        for (start, sum) in &mut self.blocks {
            for ((i, j), v) in sum.indexed_iter_mut() {
                let common = mean.map_or(0.0, |m| self.first[*start + i] * m[*start + j]);
                *v = (f64::from(*v) / n - common) as f32;
            }
        }
    }
}

/// A stream of pairs (x, x').
#[derive(Debug, Clone)]
pub struct Stream {
    grams: Vec<Gram>,
    cross: Vec<Cross>,
}

impl Stream {
    /// Of the inputs of a weight seen as `view`.
    pub fn new(view: &View) -> Stream {
        let grams = Stats::new(view.groups, view.cols, view.run).grams;
        let cross = grams.iter().map(Cross::new).collect();
        Stream { grams, cross }
    }

    /// Adds the vectors of one input tensor: the original one and the one that there is `now`.
    pub fn push(
        &mut self,
        original: &Tensor,
        now: &Tensor,
        extract: &Extract,
        width: usize,
        phase: usize,
    ) -> Result<()> {
        if original.shape() != now.shape() {
            return Err(Error::internal("compression changed the shape of a layer's input"));
        }
        let (x, now) =
            rayon::join(|| extract.vectors(original, width, phase), || extract.vectors(now, width, phase));
        let (x, now) = (x?, now?);
        for (((gram, cross), x), now) in self.grams.iter_mut().zip(&mut self.cross).zip(x).zip(now) {
            let d = x - &now;
            if d.iter().any(|v| !v.is_finite()) {
                return Err(Error::data("the layer's input holds values that are not finite"));
            }
            rayon::join(|| gram.gather(now.view()), || cross.gather(d.view(), now.view()));
        }
        Ok(())
    }

    /// Adds what another stream of the same layer gave.
    pub fn merge(&mut self, other: &Stream) {
        let mut other = other.clone();
        for s in [&mut *self, &mut other] {
            s.grams.iter_mut().for_each(Gram::settle);
            s.cross.iter_mut().for_each(Cross::settle);
        }
        self.grams.iter_mut().zip(&other.grams).for_each(|(a, b)| a.merge(b));
        for (a, b) in self.cross.iter_mut().zip(&other.cross) {
            a.first += &b.first;
            a.blocks.iter_mut().zip(&b.blocks).for_each(|(a, b)| a.1 += &b.1);
        }
    }

    /// Vectors seen.
    pub fn count(&self) -> u64 {
        self.grams.first().map_or(0, Gram::count)
    }

    /// Ends the stream. `centered`: a bias takes the mean; `shrunk`: correlations that the samples cannot support go.
    pub fn finish(mut self, centered: bool, shrunk: bool) -> Drift {
        for (gram, cross) in self.grams.iter_mut().zip(&mut self.cross) {
            gram.settle();
            let mean = gram.mean();
            cross.finish(gram.count(), centered.then_some(&mean));
        }
        let mut stats = Stats::of(self.grams);
        if shrunk {
            stats.finish();
        }
        if centered {
            stats.center();
        }
        Drift { stats, cross: self.cross }
    }
}

/// How the inputs of a layer differ from the original's, in second moments.
#[derive(Debug)]
pub struct Drift {
    /// Statistics of x'.
    pub stats: Stats,
    cross: Vec<Cross>,
}

impl Drift {
    /// `W·E[d·x'ᵀ]`, each group of rows with its own inputs.
    fn carried(&self, w: &Array2<f32>) -> Array2<f32> {
        let per = w.nrows() / self.cross.len().max(1);
        let mut out = Array2::zeros(w.raw_dim());
        for (i, c) in self.cross.iter().enumerate() {
            let rows = s![i * per..(i + 1) * per, ..];
            let w = w.slice(rows);
            let mut part = Array2::zeros(w.raw_dim());
            for (start, d) in &c.blocks {
                let n = d.nrows();
                product::add(&mut part, *start, 1.0, w.slice(s![.., *start..*start + n]), d, (0..n, 0..n));
            }
            out.slice_mut(rows).assign(&part);
        }
        out
    }

    /// The matrix on x' nearest to `w` on x; `damping` is added as a share of the mean diagonal.
    pub fn target(&self, w: &Array2<f32>, damping: f64) -> Array2<f32> {
        let carried = self.carried(w);
        let per = w.nrows() / self.cross.len().max(1);
        let mut out = w.clone();
        for (i, gram) in self.stats.grams.iter().enumerate() {
            let rows = s![i * per..(i + 1) * per, ..];
            let mut part = w.slice(rows).to_owned();
            for (first, sum, scale) in gram.sums() {
                let of = s![.., first..first + sum.nrows()];
                let moved = factor::solve(sum, scale, damping, carried.slice(rows).slice(of));
                part.slice_mut(of).zip_mut_with(&moved, |p, &m| *p += m);
            }
            out.slice_mut(rows).assign(&part);
        }
        out
    }

    /// `E‖W·x − V·x'‖²` but for what no V changes; with a bias, its mean taken away.
    pub fn loss(&self, w: &Array2<f32>, v: &Array2<f32>) -> f64 {
        let delta = w - v;
        let carried = self.carried(w);
        let common: f64 = carried.iter().zip(&delta).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
        self.stats.error(&delta) + 2.0 * common
    }

    /// What V's bias must add to W's for the mean output to stay.
    pub fn shift(&self, w: &Array2<f32>, v: &Array2<f32>) -> Vec<f32> {
        let per = (w.nrows() / self.cross.len().max(1)).max(1);
        let mut shift = self.stats.shift(&(w - v));
        for (r, s) in shift.iter_mut().enumerate() {
            let Some(c) = self.cross.get(r / per) else { continue };
            *s += w.row(r).iter().zip(&c.first).map(|(&w, &d)| f64::from(w) * d).sum::<f64>() as f32;
        }
        shift
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{correlated, matrix};

    fn output_error(
        w: &Array2<f32>,
        x: &Array2<f32>,
        v: &Array2<f32>,
        now: &Array2<f32>,
        bias: &[f32],
    ) -> f64 {
        let mut e = x.dot(&w.t()) - now.dot(&v.t());
        e.rows_mut().into_iter().for_each(|mut r| r.iter_mut().zip(bias).for_each(|(e, b)| *e -= b));
        e.iter().map(|&e| f64::from(e).powi(2)).sum::<f64>() / x.nrows() as f64
    }

    /// Inputs of 20 numbers; the compressed layers before gave 0.9 of them, mixed, noisy and shifted.
    fn drifted() -> (Array2<f32>, Array2<f32>, Drift, Drift) {
        let x = correlated(600, 20, 1);
        let now =
            x.dot(&(Array2::eye(20) * 0.9 + matrix(20, 20, 2) * 0.02)) + matrix(600, 20, 3) * 0.05 + 0.3;
        let view = View::leading(&[7, 20], 1);
        let stream = || {
            let mut streams = [Stream::new(&view), Stream::new(&view)];
            for part in 0..4 {
                let cut = |m: &Array2<f32>| {
                    let rows = m.slice(s![part * 150..(part + 1) * 150, ..]);
                    Tensor::new(&[150, 20], rows.iter().copied().collect::<Vec<f32>>()).unwrap()
                };
                streams[part % 2].push(&cut(&x), &cut(&now), &Extract::Rows, 20, 0).unwrap();
            }
            let [mut a, b] = streams;
            a.merge(&b);
            assert_eq!(a.count(), 600);
            a
        };
        let (raw, centered) = (stream().finish(false, false), stream().finish(true, false));
        (x, now, raw, centered)
    }

    #[test]
    fn the_target_takes_earlier_errors_back() {
        let (x, now, raw, centered) = drifted();
        let w = matrix(7, 20, 5);
        let before = output_error(&w, &x, &w, &now, &[0.0; 7]);
        let v = raw.target(&w, 1e-6);
        assert!(output_error(&w, &x, &v, &now, &[0.0; 7]) < 0.1 * before);
        let v = centered.target(&w, 1e-6);
        assert!(output_error(&w, &x, &v, &now, &centered.shift(&w, &v)) < 0.02 * before);
    }

    #[test]
    fn losses_differ_as_output_errors_do() {
        let (x, now, raw, centered) = drifted();
        let (w, v) = (matrix(7, 20, 5), matrix(7, 20, 6));
        let direct = |v: &Array2<f32>, bias: &[f32]| output_error(&w, &x, v, &now, bias);
        let found = raw.loss(&w, &v) - raw.loss(&w, &w);
        assert!((found / (direct(&v, &[0.0; 7]) - direct(&w, &[0.0; 7])) - 1.0).abs() < 1e-3);
        let found = centered.loss(&w, &v) - centered.loss(&w, &w);
        let real = direct(&v, &centered.shift(&w, &v)) - direct(&w, &centered.shift(&w, &w));
        assert!((found / real - 1.0).abs() < 1e-3, "{found} {real}");
    }
}
