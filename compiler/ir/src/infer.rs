//! Type and shape inference over a whole graph, with values of constants and of shape arithmetic carried along.

use crate::{
    DType, Def, Dim, Error, EvalCx, Graph, InferCx, NodeId, Result, Tensor, Value, ValueId, ValueType, budget,
};
use std::collections::BTreeMap;

/// Constants up to this many elements are evaluated during inference.
const FOLD_LIMIT: usize = 4096;

/// Computes the type of every value. A conflict with a declared type is an error that names the node.
pub fn infer(graph: &mut Graph) -> Result<()> {
    infer_with(graph, &[], &[])
}

/// As [`infer`]; gives the values of shape arithmetic that are known element by element (rank 0 or 1, row-major),
/// whether a size before it is open or not.
pub fn infer_values(graph: &mut Graph) -> Result<BTreeMap<ValueId, Vec<usize>>> {
    let facts = infer_facts(graph, &[], &[])?;
    let known = |d: Vec<Dim>| d.iter().map(Dim::known).collect::<Option<Vec<usize>>>();
    Ok(facts.dims.into_iter().filter_map(|(v, d)| Some((v, known(d)?))).collect())
}

/// As [`infer`], for a subgraph with these types of formal inputs (merged into the declared ones) and captures.
pub fn infer_with(graph: &mut Graph, inputs: &[ValueType], captures: &[ValueType]) -> Result<()> {
    infer_facts(graph, inputs, captures).map(drop)
}

fn infer_facts(graph: &mut Graph, inputs: &[ValueType], captures: &[ValueType]) -> Result<Facts> {
    for (i, t) in inputs.iter().enumerate() {
        if let Some(&v) = graph.inputs().get(i) {
            let merged = graph.ty(v).merge(t).map_err(|e| e.tensor(graph.value_name(v)))?;
            graph.set_type(v, merged);
        }
    }
    for v in graph.values().collect::<Vec<_>>() {
        if let Def::Capture(i) = graph.def(v)
            && let Some(t) = captures.get(*i)
        {
            graph.set_type(v, t.clone());
        }
    }
    let mut facts = Facts::default();
    for id in graph.order()? {
        let (name, op) = {
            let n = graph.node(id)?;
            (n.name.clone(), crate::qualified(n.op))
        };
        step(graph, id, &mut facts).map_err(|e| e.at(&name, &op))?;
    }
    Ok(facts)
}

/// Types of one node's outputs from the types its inputs have now (shape arithmetic before it is not followed).
pub fn infer_node(graph: &mut Graph, id: NodeId) -> Result<()> {
    step(graph, id, &mut Facts::default())
}

/// Takes away the shapes of what nodes compute. Some of them are claims of the file, which a branch, a loop or a result
/// whose size depends on values need not keep to; what follows from the inputs is inferred again.
pub fn forget_shapes(g: &mut Graph) {
    for v in g.values().collect::<Vec<_>>() {
        if let (Def::Node(..), ValueType::Tensor(t)) = (g.def(v), g.ty(v)) {
            let dtype = t.dtype;
            g.set_type(v, ValueType::unranked(dtype));
        }
    }
    for id in g.nodes().map(|(id, _)| id).collect::<Vec<_>>() {
        // What a loop carries may change its shape.
        let loops = g.get(id).is_some_and(|n| n.is("Loop"));
        let Ok((_, attrs)) = g.node_mut(id) else { continue };
        for body in attrs.graphs_mut() {
            forget_shapes(body);
            for v in if loops { body.inputs().to_vec() } else { Vec::new() } {
                if let Some(d) = body.dtype(v) {
                    body.set_type(v, ValueType::unranked(d));
                }
            }
        }
    }
}

#[derive(Default)]
struct Facts {
    consts: BTreeMap<ValueId, Tensor>,
    dims: BTreeMap<ValueId, Vec<Dim>>,
}

fn step(graph: &mut Graph, id: NodeId, facts: &mut Facts) -> Result<()> {
    let node = graph.node(id)?;
    let types: Vec<Option<ValueType>> =
        node.inputs().iter().map(|v| v.map(|v| graph.ty(v).clone())).collect();
    let consts: Vec<Option<Tensor>> = node.inputs().iter().map(|v| constant(graph, facts, (*v)?)).collect();
    let dims: Vec<Option<Vec<Dim>>> = node.inputs().iter().map(|v| facts.dims.get(&(*v)?).cloned()).collect();
    let captured: Vec<ValueType> = node.captures().iter().map(|&v| graph.ty(v).clone()).collect();
    let subgraph = |g: &Graph, ins: &[ValueType]| -> Result<Vec<ValueType>> {
        let mut g = g.clone();
        infer_with(&mut g, ins, &captured)?;
        Ok(g.outputs().iter().map(|o| g.ty(o.value).clone()).collect())
    };
    let cx = InferCx {
        attrs: &node.attrs,
        inputs: &types,
        consts: &consts,
        dims: &dims,
        outputs: node.outputs().len(),
        subgraph: &subgraph,
    };
    let mut inferred = node.op.infer(&cx)?;
    let dims_out = node.op.shape_value(&cx);
    let outputs: Vec<Option<ValueId>> = node.outputs().to_vec();
    let folded = fold_small(node, &consts, &inferred);
    if let (Some(results), true) = (&folded, !inferred.is_empty()) {
        for (t, r) in inferred.iter_mut().zip(results) {
            *t = r.value_type();
        }
    }
    for (i, o) in outputs.iter().enumerate() {
        let Some(o) = *o else { continue };
        let t = inferred.get(i).cloned().unwrap_or(ValueType::Unknown);
        let merged = match graph.ty(o).merge(&t) {
            Ok(m) => m,
            // The declared type is a claim of the file; what the operator computes is the truth.
            Err(_) if t != ValueType::Unknown => t,
            Err(e) => return Err(e.tensor(graph.value_name(o))),
        };
        // Sizes that no number holds are refused here, so that whoever meets them later may multiply.
        if let Some(shape) = merged.concrete() {
            budget::elements(&shape).map_err(|e| e.tensor(graph.value_name(o)))?;
        }
        graph.set_type(o, merged);
        if let Some(Value::Tensor(t)) = folded.as_ref().and_then(|f| f.get(i)) {
            facts.consts.insert(o, t.clone());
        }
    }
    if let (Some(d), Some(Some(o))) = (dims_out, outputs.first())
        && d.len() <= FOLD_LIMIT
        && d.iter().all(|d| d.known().is_none_or(|n| holds(graph.dtype(*o), n)))
    {
        facts.dims.insert(*o, d);
    }
    Ok(())
}

/// Whether an integer type holds a size; others wrap or are no shape arithmetic.
fn holds(dtype: Option<DType>, n: usize) -> bool {
    match dtype {
        Some(DType::I64) => i64::try_from(n).is_ok(),
        Some(DType::I32) => i32::try_from(n).is_ok(),
        _ => false,
    }
}

fn constant(graph: &Graph, facts: &Facts, v: ValueId) -> Option<Tensor> {
    graph.constant(v).or_else(|| facts.consts.get(&v)).cloned()
}

/// Evaluates a node whose inputs are all small constants (shape computations, mostly).
fn fold_small(node: &crate::Node, consts: &[Option<Tensor>], inferred: &[ValueType]) -> Option<Vec<Value>> {
    let small = |t: &Option<Tensor>| t.as_ref().is_some_and(|t| t.len() <= FOLD_LIMIT);
    let present = node.inputs().iter().zip(consts).all(|(v, c)| v.is_none() || small(c));
    let bounded = inferred
        .iter()
        .all(|t| t.concrete().is_none_or(|s| budget::elements(&s).is_ok_and(|n| n <= FOLD_LIMIT)));
    // Without a known size the result of, say, ConstantOfShape could be huge.
    let sized = inferred.iter().all(|t| t.concrete().is_some());
    if !present || !bounded || !sized || !node.captures().is_empty() || !node.attrs.graphs().is_empty() {
        return None;
    }
    if node.op.accuracy() == crate::Accuracy::Random {
        return None;
    }
    let inputs: Vec<Option<Value>> = consts.iter().map(|c| c.clone().map(Value::Tensor)).collect();
    let none = |_: &Graph, _: Vec<Value>| Err(Error::internal("no subgraph"));
    let cx = EvalCx {
        node: &node.name,
        attrs: &node.attrs,
        inputs: &inputs,
        captures: &[],
        outputs: node.outputs().len(),
        subgraph: &none,
    };
    node.op.eval(&cx).ok()
}
