//! A weight as the product of two thin ones, best for the data seen (SVD in the norm of the input's Gram matrix).
//!
//! Wins where outputs or inputs are strongly correlated. Factors are stored as floats, or as int8 with a scale per
//! row (the product of both methods). Error: the eigenvalues left out, plus the rounding of the factors.

use crate::candidate::Candidate;
use crate::gptq::{Rounded, nearest};
use crate::layer::Layer;
use crate::method::{Context, Method, Refusal, Serves};
use crate::product::dot;
use crate::quant::{Grid, grid};
use crate::replace::{Stored, splits, two_factors};
use crate::spectrum::Spectrum;
use ir::Result;
use ndarray::Array2;

pub struct LowRank;

/// Shares of the rank at which the factors are as large as the weight.
const SHARES: [f64; 7] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8];
/// Most directions whose eigenvectors are computed.
pub const WIDEST: usize = 2048;
/// Factor by which samples that judge may lose less than those that were fitted.
const UNSEEN: f64 = 2.0;
/// Smaller matrices gain nothing from a second operator.
const LEAST: usize = 32;

impl Method for LowRank {
    fn name(&self) -> &'static str {
        "low-rank"
    }

    fn applies(&self, layer: &Layer, _stats: bool) -> Result<(), Refusal> {
        if !splits(layer) {
            return Err(Refusal::new(format!("{} with this weight is not one ungrouped product", layer.op)));
        }
        if layer.view.rows.min(layer.view.cols) < LEAST {
            return Err(Refusal::new(format!(
                "{}×{} is too thin to factor",
                layer.view.rows, layer.view.cols
            )));
        }
        if layer.view.rows.min(layer.view.cols) > WIDEST {
            return Err(Refusal::new(format!("factoring more than {WIDEST} directions takes too long")));
        }
        Ok(())
    }

    fn serves(&self) -> Serves {
        Serves::Both
    }

    fn candidates(&self, cx: &Context) -> Result<Vec<Candidate>> {
        let gram = cx.node_stats().and_then(|s| s.grams.first());
        // Moments that overflow have no spectrum; other methods still serve the layer.
        let Ok(spectrum) = Spectrum::of(cx.matrix, gram) else { return Ok(Vec::new()) };
        let (rows, cols) = cx.matrix.dim();
        let even = (rows * cols) as f64 / (rows + cols) as f64;
        let mut found = Vec::new();
        for share in SHARES.into_iter().take_while(|_| cx.hopes.in_time()) {
            let rank = ((even * share / 4.0).round() * 4.0).max(4.0) as usize;
            if spectrum.left_out(rank) > UNSEEN * cx.hopes.most {
                continue;
            }
            let (a, b) = spectrum.truncated(rank);
            let int8 = integers(cx, &a, &b, rank)?;
            if int8.as_ref().is_none_or(|c| cx.hopes.floats(c.error)) {
                found.extend(floats(cx, &a, &b, rank)?);
            }
            found.extend(int8);
        }
        Ok(found)
    }
}

fn floats(cx: &Context, a: &Array2<f32>, b: &Array2<f32>, rank: usize) -> Result<Option<Candidate>> {
    let fragment = two_factors(cx, &Stored::Float(a), &Stored::Float(b), rank)?;
    Ok(fragment.map(|f| candidate(cx, f, &dot(a.view(), b.view()), format!("low-rank {rank}"))))
}

fn integers(cx: &Context, a: &Array2<f32>, b: &Array2<f32>, rank: usize) -> Result<Option<Candidate>> {
    let of = |m: &Array2<f32>| -> (Rounded, Grid) {
        let g = grid(m.view(), 8, m.ncols(), None, false);
        (nearest(m.view(), &g), g)
    };
    let ((ra, ga), (rb, gb)) = (of(a), of(b));
    let fragment = two_factors(cx, &Stored::Integers(&ra, &ga), &Stored::Integers(&rb, &gb), rank)?;
    Ok(fragment
        .map(|f| candidate(cx, f, &dot(ra.values.view(), rb.values.view()), format!("low-rank {rank} int8"))))
}

fn candidate(cx: &Context, fragment: ir::Graph, product: &Array2<f32>, recipe: String) -> Candidate {
    cx.node("low-rank", recipe, fragment, product)
}
