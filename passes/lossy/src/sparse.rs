//! Weights of which a share is zero and the others stay floats: pruning alone, to compare how layers share a sparsity
//! (layer-adaptive pruning). Integers beat it in bytes, so it is tried only when it is named.

use crate::candidate::Candidate;
use crate::descent;
use crate::factor::Order;
use crate::gptq::nearest;
use crate::layer::{Layer, Role};
use crate::method::{Context, Method, Refusal};
use crate::obs::{Pattern, Prune as Policy};
use crate::prune::by_magnitude;
use crate::rounding::swept;
use crate::sparse_form::sparse_floats;
use ir::Result;

pub struct Sparse;

/// Percent of zeros.
const SHARES: [u32; 16] = [10, 20, 30, 40, 50, 55, 60, 65, 70, 75, 80, 85, 90, 93, 96, 98];

impl Method for Sparse {
    fn name(&self) -> &'static str {
        "sparse"
    }

    fn on_request(&self) -> bool {
        true
    }

    fn applies(&self, layer: &Layer, _stats: bool) -> Result<(), Refusal> {
        if layer.role == Role::Constant || layer.role == Role::Embedding {
            return Err(Refusal::new("only weights of products are pruned"));
        }
        if !layer.view.len().is_multiple_of(4) || layer.view.cols < 8 {
            return Err(Refusal::new("the bitmap needs rows of at least 8 in fours"));
        }
        Ok(())
    }

    fn candidates(&self, cx: &Context) -> Result<Vec<Candidate>> {
        SHARES.iter().map(|&percent| candidate(cx, percent)).collect()
    }
}

fn candidate(cx: &Context, percent: u32) -> Result<Candidate> {
    let pattern = Pattern::Unstructured(percent as f32 / 100.0);
    let policy = Policy { pattern, inner: None };
    let values = match cx.sweep() {
        Some(s) => {
            let start = swept(cx.matrix, s, Order::Activity, &policy);
            let end = descent::codes(cx.matrix, s, &policy, &start, true);
            if cx.error(&end.values) < cx.error(&start.values) { end.values } else { start.values }
        }
        None => nearest(by_magnitude(cx.matrix, pattern).view(), &policy).values,
    };
    let fragment = sparse_floats(&cx.layer.weight, &cx.layer.view, &values)?;
    Ok(cx.weight("sparse", format!("sparse {percent}%"), fragment, &values))
}
