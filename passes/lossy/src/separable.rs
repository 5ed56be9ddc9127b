//! A convolution as a depthwise one between two of 1×1: the kernel as a sum of R products of one vector over outputs, one
//! over inputs and one over taps (canonical polyadic decomposition; Lebedev et al., arXiv 1412.6553, with the taps of a term
//! kept together, as k² numbers are few beside the channels).
//!
//! Alternating least squares on the kernel, its inputs and taps whitened by the second moments of the data (`whiten`); at the
//! end the outputs' factor is the best there is under the full Gram matrix. Stored as floats or as int8. Wins on k×k kernels
//! whose channels share few patterns.

use crate::candidate::Candidate;
use crate::layer::{Layer, Role};
use crate::method::{Context, Method, Refusal, Serves};
use crate::product::dot;
use crate::replace::{NodeBuild, emit, splits};
use crate::view::View;
use crate::whiten::{Modes, left, solve, unit};
use ir::{Attrs, Result, ValueId};
use ndarray::{Array2, Array3, s};

pub struct Separable;

/// Shares of the number of terms that take as many numbers as the kernel.
const SHARES: [f64; 4] = [0.2, 0.35, 0.5, 0.7];
const WIDEST: usize = 512;
const MOST: usize = 512;
/// Multiplications that a fit may take, and its sweeps.
const WORK: f64 = 1e9;
const SWEEPS: [usize; 2] = [3, 20];
/// Share of the mean diagonal that is added to normal equations.
const DAMPING: f64 = 1e-7;

/// Factors over outputs, inputs and taps, each × R.
pub struct Terms {
    pub out: Array2<f64>,
    pub inp: Array2<f64>,
    pub taps: Array2<f64>,
}

impl Terms {
    /// Alternating least squares for `w` (outputs × inputs × taps) from a fixed start; `None` where numbers overflow.
    pub fn of(w: &Array3<f64>, rank: usize, sweeps: usize) -> Option<Terms> {
        let (o, i, t) = w.dim();
        let slices: Vec<Array2<f64>> = (0..t).map(|k| w.slice(s![.., .., k]).to_owned()).collect();
        let mut f = Terms { out: Array2::zeros((o, rank)), inp: start(i, rank, 1), taps: start(t, rank, 2) };
        for _ in 0..sweeps.max(1) {
            let across: Vec<Array2<f64>> = slices.iter().map(|w| dot(w.view(), f.inp.view())).collect();
            f.out = solve(&weighted(&across, &f.taps), &(gram(&f.inp) * gram(&f.taps)), DAMPING)?;
            let moment = Array2::from_shape_fn((t, rank), |(k, r)| across[k].column(r).dot(&f.out.column(r)));
            f.taps = solve(&moment, &(gram(&f.inp) * gram(&f.out)), DAMPING)?;
            unit(&mut f.taps);
            let back: Vec<Array2<f64>> = slices.iter().map(|w| dot(w.t(), f.out.view())).collect();
            f.inp = solve(&weighted(&back, &f.taps), &(gram(&f.out) * gram(&f.taps)), DAMPING)?;
            unit(&mut f.inp);
        }
        let across: Vec<Array2<f64>> = slices.iter().map(|w| dot(w.view(), f.inp.view())).collect();
        f.out = solve(&weighted(&across, &f.taps), &(gram(&f.inp) * gram(&f.taps)), DAMPING)?;
        Some(f)
    }
}

fn gram(m: &Array2<f64>) -> Array2<f64> {
    dot(m.t(), m.view())
}

/// Σₖ partsₖ, each column r times taps\[k, r\].
fn weighted(parts: &[Array2<f64>], taps: &Array2<f64>) -> Array2<f64> {
    let mut sum = Array2::zeros(parts[0].raw_dim());
    parts.iter().enumerate().for_each(|(k, p)| sum += &(p * &taps.row(k)));
    sum
}

/// Numbers in −1..1 that look random and are the same everywhere.
fn start(rows: usize, cols: usize, seed: u64) -> Array2<f64> {
    let mut state = seed;
    Array2::from_shape_fn((rows, cols), |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / (1u64 << 23) as f64 - 1.0
    })
}

impl Method for Separable {
    fn name(&self) -> &'static str {
        "separable"
    }

    fn applies(&self, layer: &Layer, _stats: bool) -> Result<(), Refusal> {
        let taps: usize = layer.view.shape.iter().skip(2).product();
        if layer.role != Role::Conv || !splits(layer) || taps < 2 {
            return Err(Refusal::new("only ungrouped convolutions with a kernel above 1×1 have this form"));
        }
        let (o, i) = (layer.view.shape[0], layer.view.shape[1]);
        if o.min(i) < 8 {
            return Err(Refusal::new("too few channels to factor"));
        }
        if o.max(i) > WIDEST || taps > WIDEST {
            return Err(Refusal::new(format!("factoring more than {WIDEST} channels takes too long")));
        }
        Ok(())
    }

    fn serves(&self) -> Serves {
        Serves::Both
    }

    fn candidates(&self, cx: &Context) -> Result<Vec<Candidate>> {
        let mut found = Vec::new();
        for rank in ranks(&cx.layer.view).into_iter().take_while(|_| cx.hopes.in_time()) {
            found.extend(forms(cx, rank)?);
        }
        Ok(found)
    }

    fn candidate(&self, cx: &Context, recipe: &str) -> Result<Option<Candidate>> {
        let named = |r: &usize| [false, true].iter().any(|&int8| recipe == recipe_of(*r, int8));
        let Some(rank) = ranks(&cx.layer.view).into_iter().find(named) else { return Ok(None) };
        Ok(forms(cx, rank)?.into_iter().find(|c| c.recipe == recipe))
    }
}

fn recipe_of(rank: usize, int8: bool) -> String {
    format!("separable {rank}{}", if int8 { " int8" } else { "" })
}

fn sizes(view: &View) -> [usize; 3] {
    let (o, i) = (view.shape[0], view.shape[1].max(1));
    [o, i, view.cols / i]
}

fn ranks(view: &View) -> Vec<usize> {
    let [o, i, t] = sizes(view);
    let even = (o * i * t) as f64 / (o + i + t) as f64;
    let mut all: Vec<usize> =
        SHARES.iter().map(|s| ((even * s / 4.0).round() as usize * 4).clamp(4, MOST)).collect();
    all.dedup();
    all
}

/// The kernel in so many terms, as floats and as int8.
fn forms(cx: &Context, rank: usize) -> Result<Vec<Candidate>> {
    let [o, i, t] = sizes(&cx.layer.view);
    let w = Array3::from_shape_fn((o, i, t), |(a, b, c)| f64::from(cx.matrix[[a, b * t + c]]));
    let modes = Modes::of(cx.node_stats(), i, t);
    let sweeps = (WORK / (6 * o * i * t * rank) as f64) as usize;
    let Some(mut f) = Terms::of(&modes.whitened(&w), rank, sweeps.clamp(SWEEPS[0], SWEEPS[1])) else {
        return Ok(Vec::new());
    };
    (f.inp, f.taps) = modes.unwhitened(&f.inp, &f.taps);
    unit(&mut f.inp);
    unit(&mut f.taps);
    let mut found: Vec<Candidate> = candidate(cx, &f, true)?.into_iter().collect();
    if found.iter().all(|c| cx.hopes.floats(c.error)) {
        found.splice(0..0, candidate(cx, &f, false)?);
    }
    Ok(found)
}

fn candidate(cx: &Context, f: &Terms, int8: bool) -> Result<Option<Candidate>> {
    let Some(mut n) = NodeBuild::new(cx)? else { return Ok(None) };
    let [o, i, t] = sizes(&cx.layer.view);
    let rank = f.inp.ncols();
    let single = |m: &Array2<f64>| m.t().mapv(|v| v as f32).as_standard_layout().into_owned();
    let spatial = &cx.layer.view.shape[2..];
    let pointwise = |rows: usize, cols: usize| {
        let shape: Vec<usize> = [rows, cols].into_iter().chain(spatial.iter().map(|_| 1)).collect();
        View::leading(&shape, 1)
    };
    let depthwise: Vec<usize> = [rank, 1].into_iter().chain(spatial.iter().copied()).collect();
    let (wi, inp) = emit(&mut n.b, "i", &pointwise(rank, i), single(&f.inp), int8)?;
    let (wt, taps) = emit(&mut n.b, "t", &View::leading(&depthwise, rank), single(&f.taps), int8)?;
    let features = Array2::from_shape_fn((rank, i * t), |(r, c)| inp[[r, c / t]] * taps[[r, c % t]]);
    let Some((out, _)) = left(cx.matrix, &features, cx.node_stats()) else { return Ok(None) };
    let out = out.mapv(|v| v as f32);
    let (wo, out) = emit(&mut n.b, "o", &pointwise(o, rank), out, int8)?;
    let node = cx.graph.node(cx.layer.node)?;
    let a = n.b.op("Conv", "h1", Attrs::new(), &[n.x, wi])?;
    let attrs = node.attrs.clone().with("group", rank as i64);
    let b = n.b.op("Conv", "h2", attrs, &[a, wt])?;
    let inputs: Vec<ValueId> = [b, wo].into_iter().chain(n.bias).collect();
    let y = n.b.op("Conv", "y", Attrs::new(), &inputs)?;
    let fragment = n.b.finish(&[y])?;
    Ok(Some(cx.node("separable", recipe_of(rank, int8), fragment, &dot(out.view(), features.view()))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::matrix;
    use proptest::prelude::*;

    /// The kernel the terms stand for.
    fn product(f: &Terms) -> Array3<f64> {
        let (o, i, t) = (f.out.nrows(), f.inp.nrows(), f.taps.nrows());
        let mut w = Array3::zeros((o, i, t));
        for k in 0..t {
            let scaled = &f.out * &f.taps.row(k);
            w.slice_mut(s![.., .., k]).assign(&scaled.dot(&f.inp.t()));
        }
        w
    }

    fn error(w: &Array3<f64>, f: &Terms) -> f64 {
        (w - &product(f)).iter().map(|d| d * d).sum()
    }

    fn power(w: &Array3<f64>) -> f64 {
        w.iter().map(|d| d * d).sum()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn sweeps_never_worsen(o in 2usize..12, i in 2usize..12, t in 1usize..10, rank in 1usize..9, seed in 0u64..99) {
            let m = matrix(o, i * t, seed).mapv(f64::from);
            let w = m.into_shape_with_order((o, i, t)).unwrap();
            let errors: Vec<f64> = [1, 2, 4, 9].map(|n| error(&w, &Terms::of(&w, rank, n).unwrap())).to_vec();
            prop_assert!(errors.windows(2).all(|e| e[1] <= e[0] + 1e-4 * power(&w)), "{errors:?}");
            prop_assert!(errors[0] <= power(&w) * (1.0 + 1e-9));
        }
    }

    #[test]
    fn a_kernel_of_few_terms_is_found() {
        let of = |rows: usize, seed: u64| matrix(rows, 3, seed).mapv(f64::from);
        let w = Terms { out: of(16, 1), inp: of(12, 2), taps: of(9, 3) };
        let w = product(&w);
        let found = Terms::of(&w, 4, 60).unwrap();
        assert!(error(&w, &found) < 1e-3 * power(&w), "{}", error(&w, &found) / power(&w));
    }
}
