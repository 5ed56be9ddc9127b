//! Pruned weights: a bit per weight says which are kept, the kept ones are integers.
//!
//! Removal is second-order with compensation (SparseGPT) when calibration data exist, and what is kept is learned from there
//! (`descent`); else by magnitude. Zeros pay only because the file holds a bitmap and the kept values: 1 + (1 − s)·b bits a
//! weight, decoded by Gather, CumSum and Mul. Products with 8- and 4-bit values are priced together.

use crate::candidate::Candidate;
use crate::descent::codes_and_scales;
use crate::factor::Order;
use crate::gptq::{Rounded, nearest};
use crate::layer::{Layer, Role};
use crate::method::{Context, Method, Refusal};
use crate::obs::{Pattern, Prune as Policy};
use crate::quant::{Grid, grid};
use crate::rounding::swept;
use crate::sparse_form::sparse;
use ir::Result;
use ndarray::Array2;

pub struct Prune;

/// (share of zeros, bits of the kept values), and the least error as a multiple of that of 5-bit integers.
const RECIPES: [(f32, u32, f64); 4] = [(0.5, 8, 6.0), (0.5, 4, 6.0), (0.7, 4, 15.0), (0.85, 4, 30.0)];

impl Method for Prune {
    fn name(&self) -> &'static str {
        "prune"
    }

    fn applies(&self, layer: &Layer, _stats: bool) -> Result<(), Refusal> {
        if layer.role == Role::Constant {
            return Err(Refusal::new("only weights of products are pruned"));
        }
        if !layer.view.len().is_multiple_of(4) || layer.view.cols < 8 {
            return Err(Refusal::new("the bitmap needs rows of at least 8 in fours"));
        }
        Ok(())
    }

    fn candidates(&self, cx: &Context) -> Result<Vec<Candidate>> {
        let worth = RECIPES.iter().filter(|r| cx.hopes.allow(r.2));
        worth.take_while(|_| cx.hopes.in_time()).map(|&(share, bits, _)| candidate(cx, share, bits)).collect()
    }

    fn candidate(&self, cx: &Context, recipe: &str) -> Result<Option<Candidate>> {
        let found = RECIPES.iter().find(|r| recipe == recipe_of(r.0, r.1));
        found.map(|&(share, bits, _)| candidate(cx, share, bits)).transpose()
    }
}

fn recipe_of(share: f32, bits: u32) -> String {
    format!("prune {:.0}% int{bits}", share * 100.0)
}

fn candidate(cx: &Context, share: f32, bits: u32) -> Result<Candidate> {
    let (rounded, g) = pruned(cx, Pattern::Unstructured(share), bits, Order::Activity);
    let fragment = sparse(&cx.layer.weight, &cx.layer.view, &rounded.codes, &g)?;
    Ok(cx.weight("prune", recipe_of(share, bits), fragment, &rounded.values))
}

/// Weights zeroed by `pattern`, the others rounded to `bits` with one scale per row.
pub fn pruned(cx: &Context, pattern: Pattern, bits: u32, order: Order) -> (Rounded, Grid) {
    let g = grid(cx.matrix.view(), bits, cx.matrix.ncols(), None, false);
    let policy = Policy { pattern, inner: Some(&g) };
    let Some(stats) = cx.sweep() else {
        return (nearest(by_magnitude(cx.matrix, pattern).view(), &policy), g);
    };
    let start = swept(cx.matrix, stats, order, &policy);
    let (end, scaled) = codes_and_scales(cx.matrix, stats, &g, &start, true);
    let error = |r: &Rounded| cx.error(&r.values);
    if error(&end) < error(&start) { (end, scaled) } else { (start, g) }
}

pub fn by_magnitude(w: &Array2<f32>, pattern: Pattern) -> Array2<f32> {
    let mut out = w.clone();
    for mut row in out.rows_mut() {
        let width = match pattern {
            Pattern::Unstructured(_) => row.len(),
            Pattern::NofM(_, m) => m,
        };
        for start in (0..row.len()).step_by(width.max(1)) {
            let end = (start + width).min(row.len());
            let gone = match pattern {
                Pattern::Unstructured(share) => ((end - start) as f32 * share).round() as usize,
                Pattern::NofM(n, _) => (end - start).saturating_sub(n),
            };
            let mut order: Vec<usize> = (start..end).collect();
            order.sort_by(|&a, &b| row[a].abs().total_cmp(&row[b].abs()).then(a.cmp(&b)));
            order.iter().take(gone).for_each(|&i| row[i] = 0.0);
        }
    }
    out
}
