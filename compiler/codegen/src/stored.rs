//! Weights whose file stores them smaller than float32: the constant expressions that decode them.
//!
//! Such an expression is never a step of a program. A contraction takes it apart into codes and scales
//! ([`codes::Coded`]), or has it evaluated when its kernel wants floats.

pub mod codes;
pub mod field;

use crate::lower::Step;
use ir::{Error, Graph, NodeId, Result, Tensor, ValueId};
use std::collections::BTreeSet;

/// The operand of a contraction that may be such an expression.
fn weight_of(graph: &Graph, id: NodeId) -> Option<ValueId> {
    let n = graph.get(id)?;
    let contracts = matches!(n.op.domain(), "" | "ir.") || n.op.domain() == crate::channels_last::DOMAIN;
    let named = matches!(n.op.name(), "Conv" | "MatMul" | "Gemm" | "FusedConv" | "FusedMatMul" | "FusedGemm");
    n.input(1).filter(|&w| contracts && named && graph.dtype(w) == Some(ir::DType::F32))
}

/// Gives back the pages of a file that hold what `v` is decoded from.
pub fn release(graph: &Graph, v: ValueId) {
    for id in graph.expression(v).unwrap_or_default() {
        let read = graph.get(id).into_iter().flat_map(|n| n.inputs().iter().flatten());
        read.filter_map(|&x| graph.constant(x)).for_each(Tensor::release);
    }
}

/// Nodes that only decode weights of contractions: they are no steps.
pub fn decoders(graph: &Graph) -> Result<BTreeSet<NodeId>> {
    let order = graph.order()?;
    let mut read: BTreeSet<ValueId> = graph.outputs().iter().map(|o| o.value).collect();
    let mut decoders = BTreeSet::new();
    for &id in order.iter().rev() {
        let n = graph.node(id)?;
        let needed = n.outputs().iter().flatten().any(|v| read.contains(v)) || n.outputs().is_empty();
        if !needed {
            decoders.insert(id);
            continue;
        }
        let weight = weight_of(graph, id).filter(|&w| graph.expression(w).is_some());
        read.extend(n.reads().filter(|v| Some(*v) != weight));
        // The weight may be the data operand as well.
        read.extend(n.input(0).filter(|v| Some(*v) == weight));
    }
    Ok(decoders)
}

/// Values of decoders that steps read after all.
pub fn missing(graph: &Graph, decoders: &BTreeSet<NodeId>, steps: &[Step]) -> BTreeSet<ValueId> {
    let made = |v: &ValueId| graph.producer(*v).is_some_and(|p| decoders.contains(&p));
    steps.iter().flat_map(|s| &s.reads).copied().filter(made).collect()
}

/// Makes initializers of expressions.
pub fn settle(graph: &mut Graph, values: &BTreeSet<ValueId>) -> Result<()> {
    for &v in values {
        let t = graph.evaluate(v).ok_or_else(|| {
            Error::unsupported(format!("the weight '{}' cannot be computed beforehand", graph.value_name(v)))
        })?;
        let name = graph.value_name(v).to_string();
        let new = graph.add_initializer(&name, t);
        graph.replace_uses(v, new);
    }
    graph.prune();
    Ok(())
}

#[cfg(test)]
mod tests;
