//! Weights on one uniform grid per layer, for files whose weights are entropy-coded.
//!
//! At a given output error the fewest coded bits come from the same step in every row: rows that vary little take few
//! bits by themselves (reverse water-filling; Gish & Pierce 1968 for the uniform grid). Codes are stored as 8-bit integers,
//! so a plain file gains nothing over `int8-weight`; the entropy coder makes them as short as they are predictable.
//! Bound: |w − ŵ| ≤ step/2 where not compensated.

use crate::candidate::Candidate;
use crate::factor::Order;
use crate::fragment::integers;
use crate::layer::{Layer, Role};
use crate::method::{Context, Method, Refusal};
use crate::quant::Grid;
use crate::rounding::round;
use ir::Result;
use ndarray::Array2;

pub struct Coded;

/// About the coded bits per weight that candidates are made for.
const BITS: &[f64] = &[1.25, 1.75, 2.25, 2.75, 3.25, 3.75, 4.25, 4.75, 5.25, 6.0];
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
        bits.map(|&bits| candidate(cx, bits, (entropy - bits).exp2() as f32)).collect()
    }

    fn plain(&self) -> bool {
        false
    }
}

fn candidate(cx: &Context, bits: f64, step: f32) -> Result<Candidate> {
    let top = |row: usize| cx.matrix.row(row).iter().fold(0f32, |m, x| m.max(x.abs()));
    let scales = Array2::from_shape_fn((cx.matrix.nrows(), 1), |(r, _)| step.max(top(r) / 127.0));
    let grid = Grid { bits: 8, block: cx.matrix.ncols().max(1), scales, half: false, columns: Vec::new() };
    let rounded = round(cx.matrix, cx.sweep(), Order::Activity, &grid);
    let fragment = integers(&cx.layer.weight, &cx.layer.view, &rounded, &grid)?;
    Ok(cx.weight("coded", format!("coded {bits} bits"), fragment, &rounded.values))
}

/// Mean differential entropy of the rows, in bits, as if each were normal; `None` for a weight of zeros.
fn entropy(w: &Array2<f32>) -> Option<f64> {
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
