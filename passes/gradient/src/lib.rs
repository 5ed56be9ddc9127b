//! Reverse-mode differentiation: from a graph, a graph that also computes gradients, in standard operators.
//!
//! One row per operator (`rules`) gives its vector-Jacobian product, or writes it in operators that have one. Element-wise
//! operators need no row: the scalar expression they are is differentiated (`scalar`). Shapes must be known, so infer a
//! graph with open dims for concrete inputs first. What has no derivative is an error that names node and operator;
//! comparisons, roundings and integers have none that is not zero.
#![deny(unsafe_code)]

mod build;
#[cfg(test)]
mod check;
mod rules;
mod scalar;

use build::Build;
use ir::{Error, Graph, NodeId, Result, ValueId};
use rules::{Cx, Rule};
use std::collections::BTreeMap;

/// Rounds of writing operators in others that have a rule.
const ROUNDS: usize = 8;

/// A graph with gradients.
#[derive(Debug, Clone)]
pub struct Gradients {
    /// The graph that was given, with nodes appended; ids of its values hold, but for results of nodes that were written in
    /// other operators.
    pub graph: Graph,
    /// The gradient for each value that was asked for, of its shape; `None` where nothing depends on it.
    pub of: Vec<Option<ValueId>>,
}

/// The gradients of `Σ ⟨cotangent, value⟩` with respect to `wanted`; each cotangent is a value of the graph, of the shape of
/// the value it belongs to.
pub fn gradients(graph: &Graph, cotangents: &[(ValueId, ValueId)], wanted: &[ValueId]) -> Result<Gradients> {
    let mut b = Build::new(graph.clone());
    let mut moved = BTreeMap::new();
    for _ in 0..ROUNDS {
        if !write_out(&mut b, cotangents, wanted, &mut moved)? {
            break;
        }
    }
    let now = |v: ValueId| moved.get(&v).copied().unwrap_or(v);
    let wanted: Vec<ValueId> = wanted.iter().map(|&v| now(v)).collect();
    let active = active(&b.graph, &wanted)?;
    let mut found: BTreeMap<ValueId, ValueId> = BTreeMap::new();
    for &(v, c) in cotangents {
        accumulate(&mut b, &mut found, now(v), c)?;
    }
    for id in b.graph.order()?.into_iter().rev() {
        let node = b.graph.node(id)?.clone();
        let outputs: Vec<Option<ValueId>> =
            node.outputs().iter().map(|o| o.and_then(|o| found.get(&o).copied())).collect();
        let needs: Vec<bool> = node.inputs().iter().map(|i| i.is_some_and(|i| active[i.index()])).collect();
        if outputs.iter().all(Option::is_none) || !needs.contains(&true) {
            continue;
        }
        let name = node.name.clone();
        let op = ir::qualified(node.op);
        let inputs = node.inputs().to_vec();
        let grads = pull(&mut b, id, outputs, needs.clone()).map_err(|e| e.at(&name, &op))?;
        for ((input, grad), needed) in inputs.into_iter().zip(grads).zip(needs) {
            if let (Some(v), Some(g), true) = (input, grad, needed) {
                accumulate(&mut b, &mut found, v, g)?;
            }
        }
    }
    let of = wanted.iter().map(|v| found.get(v).copied()).collect();
    let mut graph = b.graph;
    ir::infer(&mut graph)?;
    Ok(Gradients { graph, of })
}

/// The gradients of one number.
pub fn of_scalar(graph: &Graph, scalar: ValueId, wanted: &[ValueId]) -> Result<Gradients> {
    let mut b = Build::new(graph.clone());
    let shape = b.shape(scalar)?;
    if shape.iter().product::<usize>() != 1 {
        return Err(Error::model(format!("'{}' is not one number", graph.value_name(scalar))));
    }
    let one = b.fill(scalar, &shape, 1.0)?;
    gradients(&b.graph, &[(scalar, one)], wanted)
}

/// True for every float value that depends on one that is wanted, by index.
fn active(graph: &Graph, wanted: &[ValueId]) -> Result<Vec<bool>> {
    let mut active = vec![false; graph.value_bound()];
    wanted.iter().for_each(|v| active[v.index()] = true);
    for id in graph.order()? {
        let node = graph.node(id)?;
        if node.reads().any(|v| active[v.index()]) {
            for &o in node.outputs().iter().flatten() {
                active[o.index()] |= graph.dtype(o).is_none_or(|d| d.is_float());
            }
        }
    }
    Ok(active)
}

/// Writes nodes that have no rule of their own in other operators; true when there were any.
fn write_out(
    b: &mut Build,
    cotangents: &[(ValueId, ValueId)],
    wanted: &[ValueId],
    moved: &mut BTreeMap<ValueId, ValueId>,
) -> Result<bool> {
    let now = |v: &ValueId, moved: &BTreeMap<ValueId, ValueId>| moved.get(v).copied().unwrap_or(*v);
    let from: Vec<ValueId> = wanted.iter().map(|v| now(v, moved)).collect();
    let active = active(&b.graph, &from)?;
    let mut reached = vec![false; b.graph.value_bound()];
    cotangents.iter().for_each(|(v, _)| reached[now(v, moved).index()] = true);
    let mut any = false;
    for id in b.graph.order()?.into_iter().rev() {
        let node = b.graph.node(id)?.clone();
        let outputs: Vec<ValueId> = node.outputs().iter().flatten().copied().collect();
        if !outputs.iter().any(|o| reached[o.index()]) || !node.reads().any(|v| active[v.index()]) {
            continue;
        }
        node.reads().for_each(|v| reached[v.index()] = true);
        let at = |e: Error| e.at(&node.name, &ir::qualified(node.op));
        let new = match rules::find(&node) {
            Some(Rule::Pull(_)) => continue,
            Some(Rule::Write(f)) => f(b, &node).map_err(at)?,
            None if scalar::expression(&node).is_some() => continue,
            None => node.op.expand(&mut b.graph, id, &ops::Standard).map_err(at)?,
        };
        let Some(new) = new else {
            return Err(at(Error::unsupported("no derivative is known")));
        };
        for (old, new) in node.outputs().iter().zip(new) {
            if let (Some(old), Some(new)) = (old, new) {
                b.graph.replace_uses(*old, new);
                moved.values_mut().filter(|v| **v == *old).for_each(|v| *v = new);
                moved.insert(*old, new);
            }
        }
        any = true;
    }
    if any {
        ir::infer(&mut b.graph)?;
    }
    Ok(any)
}

/// Gradients for the inputs of a node, from those for its outputs.
fn pull(
    b: &mut Build,
    id: NodeId,
    outputs: Vec<Option<ValueId>>,
    needs: Vec<bool>,
) -> Result<Vec<Option<ValueId>>> {
    let node = b.graph.node(id)?.clone();
    let rule = rules::find(&node);
    let mut cx = Cx { b, node, outputs, needs };
    match (rule, scalar::expression(&cx.node)) {
        (Some(Rule::Pull(f)), _) => f(&mut cx),
        (_, Some(expr)) => scalar::pull(&mut cx, &expr),
        _ => Err(Error::unsupported("no derivative is known")),
    }
}

fn accumulate(
    b: &mut Build,
    found: &mut BTreeMap<ValueId, ValueId>,
    v: ValueId,
    grad: ValueId,
) -> Result<()> {
    let sum = match found.get(&v) {
        Some(&old) => b.op("Add", &[old, grad])?,
        None => grad,
    };
    found.insert(v, sum);
    Ok(())
}
