//! A model for one set of input shapes: shapes filled in, small integer inputs that decide shapes or branches made
//! constants, rewritten for running.

use ir::{Def, Graph, Result, Tensor, Value, ValueId};
use std::collections::BTreeSet;

/// Inputs of at most this many elements may become constants of a program.
const SMALL: usize = 64;

/// What a program was compiled for: the type of every input and the bytes of those that became constants.
pub type Key = Vec<(ir::DType, Vec<usize>, Option<Vec<u8>>)>;

/// Operand positions whose value decides a shape or a branch.
fn deciding(op: &str, i: usize) -> bool {
    match op {
        "Reshape" | "Expand" | "Tile" | "TopK" | "Squeeze" | "Unsqueeze" | "Split" | "OneHot" => i == 1,
        "ConstantOfShape" | "If" => i == 0,
        "Slice" => (1..=4).contains(&i),
        "Pad" => i == 1 || i == 3,
        "Resize" => (1..=3).contains(&i),
        "Range" => true,
        "Loop" => i < 2,
        n if n.starts_with("Reduce") => i == 1,
        _ => false,
    }
}

/// Graph inputs (integers or booleans) whose values flow into shapes or conditions.
pub fn deciding_inputs(graph: &Graph) -> Vec<usize> {
    let mut seen: BTreeSet<ValueId> = BTreeSet::new();
    let mut stack: Vec<ValueId> = Vec::new();
    for (_, n) in graph.nodes() {
        for (i, v) in n.inputs().iter().enumerate() {
            if let (Some(v), true) = (v, deciding(n.op.name(), i)) {
                stack.push(*v);
            }
        }
    }
    while let Some(v) = stack.pop() {
        // A value computed from large floats is not a shape that could be fixed beforehand.
        let integer = graph.dtype(v).is_none_or(|d| d.is_int() || d == ir::DType::Bool);
        if !integer || !seen.insert(v) {
            continue;
        }
        if let Some(n) = graph.producer(v).and_then(|p| graph.get(p))
            && !matches!(n.op.name(), "Shape" | "Size")
        {
            stack.extend(n.reads());
        }
    }
    let is_input = |v: &ValueId| if let Def::Input(i) = graph.def(*v) { Some(*i) } else { None };
    seen.iter().filter_map(is_input).collect()
}

/// The key of a set of inputs; `None` when some are no tensors.
pub fn key(inputs: &[Value], deciding: &[usize]) -> Option<Key> {
    inputs
        .iter()
        .enumerate()
        .map(|(i, v)| {
            let t = v.tensor().ok()?;
            let fixed = deciding.contains(&i) && t.len() <= SMALL;
            Some((t.dtype(), t.shape().to_vec(), fixed.then(|| t.bytes().to_vec())))
        })
        .collect()
}

/// The graph for this key, ready for code generation. Inputs keep their places, those that became constants too.
pub fn specialise(graph: &Graph, key: &Key) -> Result<Graph> {
    let mut g = graph.clone();
    ir::forget_shapes(&mut g);
    for (i, (dtype, shape, bytes)) in key.iter().enumerate() {
        let v = g.inputs()[i];
        let ty = ir::ValueType::known(*dtype, shape);
        g.set_type(v, g.ty(v).merge(&ty)?);
        if let Some(b) = bytes {
            let c = g.add_initializer("fixed", Tensor::from_bytes(*dtype, shape, b.clone())?);
            g.replace_uses(v, c);
        }
    }
    Ok(exact::optimize(&g, exact::Options::RUNTIME)?.0)
}
