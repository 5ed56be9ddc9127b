//! Weights on one uniform grid per layer, for files whose weights are entropy-coded.
//!
//! At a given output error the fewest coded bits come from the same step in every row: rows that vary little take few
//! bits by themselves (reverse water-filling; Gish & Pierce 1968 for the uniform grid). Codes are stored as 8-bit integers,
//! so a plain file gains nothing over `int8-weight`; the entropy coder makes them as short as they are predictable.
//! Bound: |w − ŵ| ≤ step/2 where not compensated.

use crate::candidate::Candidate;
use crate::descent;
use crate::factor::Order;
use crate::fragment::integers;
use crate::gptq::Policy;
use crate::layer::{Layer, Role};
use crate::method::{Context, Method, Refusal};
use crate::quant::Grid;
use crate::rounding::round;
use ir::Result;
use ndarray::Array2;

pub struct Coded;

/// About the coded bits per weight that candidates are made for.
const BITS: &[f64] =
    &[0.75, 1.0, 1.25, 1.75, 2.25, 2.5, 2.75, 3.0, 3.25, 3.5, 3.75, 4.0, 4.25, 4.5, 4.75, 5.0, 5.25, 6.0];
/// Differential entropy of a normal distribution of unit variance, in bits: ½·log₂(2πe).
const NORMAL: f64 = 2.047;

impl Method for Coded {
    fn name(&self) -> &'static str {
        "coded"
    }

    fn applies(&self, layer: &Layer, _stats: bool) -> Result<(), Refusal> {
        if layer.role == Role::Constant && layer.view.rows == 1 {
            return Err(Refusal::new("a vector is not a layer's weight"));
        }
        Ok(())
    }

    fn candidates(&self, cx: &Context) -> Result<Vec<Candidate>> {
        let Some(entropy) = entropy(cx.matrix) else { return Ok(Vec::new()) };
        let bits = BITS.iter().take_while(|_| cx.hopes.in_time());
        bits.map(|&bits| plain(cx, bits, entropy)).collect()
    }

    fn plain(&self) -> bool {
        false
    }

    fn candidate(&self, cx: &Context, recipe: &str) -> Result<Option<Candidate>> {
        match (bits("coded", recipe), entropy(cx.matrix)) {
            (Some(bits), Some(entropy)) => plain(cx, bits, entropy).map(Some),
            _ => Ok(None),
        }
    }

    fn narrower(&self, recipe: &str, less: f64) -> Option<String> {
        narrower("coded", recipe, less)
    }
}

fn named(method: &str, bits: f64) -> String {
    format!("{method} {bits} bits")
}

/// The bits that a recipe of this method names.
pub fn bits(method: &str, recipe: &str) -> Option<f64> {
    let bits: f64 = recipe.strip_prefix(method)?.strip_prefix(' ')?.strip_suffix(" bits")?.parse().ok()?;
    (0.0..8.0).contains(&bits).then_some(bits)
}

/// The recipe with fewer bits.
pub fn narrower(method: &str, recipe: &str, less: f64) -> Option<String> {
    let left = bits(method, recipe)? - less;
    (left > 0.0).then(|| named(method, left))
}

fn plain(cx: &Context, bits: f64, entropy: f64) -> Result<Candidate> {
    let grid = grid(cx.matrix, (entropy - bits).exp2() as f32);
    candidate(cx, "coded", bits, &grid, &grid)
}

/// The grid of this step in every row that bytes can hold it in, else of the smallest one.
pub fn grid(w: &Array2<f32>, step: f32) -> Grid {
    let top = |row: usize| w.row(row).iter().fold(0f32, |m, x| m.max(x.abs()));
    let scales = Array2::from_shape_fn((w.nrows(), 1), |(r, _)| step.max(top(r) / 127.0));
    Grid { bits: 8, block: w.ncols().max(1), scales, half: false, columns: Vec::new() }
}

/// The weight rounded by a policy on the grid, roundings learned where that loses less.
pub fn candidate(
    cx: &Context,
    method: &'static str,
    bits: f64,
    grid: &Grid,
    policy: &dyn Policy,
) -> Result<Candidate> {
    let mut rounded = round(cx.matrix, cx.sweep(), Order::Activity, policy);
    if let Some(stats) = cx.sweep() {
        let moved = descent::codes(cx.matrix, stats, policy, &rounded, false);
        if cx.error(&moved.values) < cx.error(&rounded.values) {
            rounded = moved;
        }
    }
    let fragment = integers(&cx.layer.weight, &cx.layer.view, &rounded, grid)?;
    Ok(cx.weight(method, named(method, bits), fragment, &rounded.values))
}

/// Mean differential entropy of the rows, in bits, as if each were normal; `None` for a weight of zeros.
pub fn entropy(w: &Array2<f32>) -> Option<f64> {
    let power = |r: ndarray::ArrayView1<f32>| r.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
    let bits: Vec<f64> = w
        .rows()
        .into_iter()
        .map(|r| power(r) / r.len().max(1) as f64)
        .filter(|&p| p > 0.0)
        .map(|p| 0.5 * p.log2() + NORMAL)
        .collect();
    (!bits.is_empty()).then(|| bits.iter().sum::<f64>() / bits.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gram::Gram;
    use crate::method::Hopes;
    use crate::stats::Stats;
    use crate::testing::{correlated, matrix};
    use ir::{Attrs, DType, Graph, Tensor, ValueType};

    #[test]
    fn recipes_give_one_candidate_and_narrower_ones_lose_more() {
        let (mut g, w) = (Graph::new("g"), matrix(48, 64, 5));
        let t = Tensor::new(&[64, 48], w.t().iter().copied().collect::<Vec<f32>>()).unwrap();
        let (x, t) = (g.add_input("x", ValueType::known(DType::F32, &[1, 64])), g.add_initializer("w", t));
        let y = g.apply("y", ops::standard("MatMul").unwrap(), Attrs::new(), &[x, t]);
        g.add_output("y", y);
        let mut gram = Gram::new(64, 4096);
        gram.push(correlated(400, 64, 6).view());
        let (stats, layer) = (Stats::of(vec![gram]), crate::layers(&g).remove(0));
        let of = |compensate: bool| Context {
            graph: &g,
            layer: &layer,
            matrix: &w,
            stats: Some(&stats),
            measure: Some(&stats),
            compensate,
            hopes: Hopes::ALL,
            bases: &[],
        };
        let (cx, plain) = (of(true), of(false));
        let one = |cx: &Context, recipe: &str| Coded.candidate(cx, recipe).unwrap().unwrap();
        for c in Coded.candidates(&cx).unwrap() {
            let again = one(&cx, &c.recipe);
            assert_eq!((&again.recipe, again.error), (&c.recipe, c.error));
            assert_eq!(again.decode().unwrap(), c.decode().unwrap());
            assert!(c.error < 0.8 * one(&plain, &c.recipe).error, "{}", c.recipe);
            let less = Coded.narrower(&c.recipe, 0.3).unwrap();
            assert!(one(&cx, &less).error > c.error, "{less}");
        }
        assert!(Coded.narrower("coded 1.25 bits", 2.0).is_none() && Coded.narrower("int4", 1.0).is_none());
        assert!(Coded.candidate(&cx, "coded 99 bits").unwrap().is_none());
    }
}
