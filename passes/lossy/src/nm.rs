//! Two of every four consecutive inputs kept (2:4), chosen and compensated to second order (SparseGPT).
//!
//! The pattern that sparse matrix units run at double speed. The file holds one 4-bit pattern per four weights and the
//! two kept values: 1 + b/2 bits a weight.

use crate::candidate::Candidate;
use crate::factor::Order;
use crate::layer::{Layer, Role};
use crate::method::{Context, Method, Refusal};
use crate::obs::Pattern;
use crate::prune::pruned;
use crate::sparse_form::two_of_four;
use ir::Result;

pub struct TwoOfFour;

/// The least error, as a multiple of that of 5-bit integers.
const LEAST: f64 = 8.0;

impl Method for TwoOfFour {
    fn name(&self) -> &'static str {
        "2:4"
    }

    fn applies(&self, layer: &Layer, _stats: bool) -> Result<(), Refusal> {
        if layer.role == Role::Constant || layer.role == Role::Embedding {
            return Err(Refusal::new("only weights of products are pruned"));
        }
        // Columns of other groups are compensated apart: fours must not straddle them.
        for n in [layer.view.cols, layer.view.run] {
            if !n.is_multiple_of(4) {
                return Err(Refusal::new(format!("{n} inputs are not in fours")));
            }
        }
        Ok(())
    }

    fn candidates(&self, cx: &Context) -> Result<Vec<Candidate>> {
        if !cx.hopes.allow(LEAST) {
            return Ok(Vec::new());
        }
        [8, 4].into_iter().map(|bits| candidate(cx, bits)).collect()
    }
}

fn candidate(cx: &Context, bits: u32) -> Result<Candidate> {
    let (rounded, g) = pruned(cx, Pattern::NofM(2, 4), bits, Order::Natural);
    let fragment = two_of_four(&cx.layer.weight, &cx.layer.view, &rounded.codes, &g)?;
    Ok(cx.weight("2:4", format!("2:4 int{bits}"), fragment, &rounded.values))
}
