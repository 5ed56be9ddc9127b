//! Which nodes run as one step: contractions with their epilogues, and chains of cheap element-wise operators.

use crate::lower::chain::{self, Grown};
use crate::lower::contract::{Finish, native};
use crate::lower::window::averaged_bytes;
use crate::lower::{elementwise, typed};
use ir::{Graph, Kind, NodeId, Result, ValueId};
use kernels::{Activation, Grid, quantizes_by_column};
use ops::packed::fused;
use std::collections::{BTreeMap, BTreeSet};

/// Nodes of one step.
#[derive(Debug, Clone)]
pub enum Group {
    /// One node by itself.
    Single(NodeId),
    /// A contraction and what is done to its sums.
    Contraction { root: NodeId, finish: Finish, nodes: Vec<NodeId> },
    /// Element-wise nodes, quantizations and dequantizations of one result.
    Chain(Grown),
    /// Cheap element-wise nodes of one result, producers first.
    Elementwise(Vec<NodeId>),
}

/// How a contraction of integers stores its result.
#[derive(Debug, Clone, PartialEq)]
pub struct Quantize {
    /// One, or one for each column.
    pub scale: Vec<f32>,
    pub zero: i32,
    /// One for each scale in place of `zero`, where they differ; else empty.
    pub zeros: Vec<i32>,
    pub signed: bool,
}

/// Most nodes in one element-wise group: compile time and register pressure stay bounded.
const MAX_CHAIN: usize = 24;

/// Groups in an order in which everything is computed before it is read; nodes in `skipped` are in none.
pub fn form(graph: &Graph, skipped: &BTreeSet<NodeId>) -> Result<Vec<Group>> {
    let mut order = graph.order()?;
    order.retain(|id| !skipped.contains(id));
    let counts = graph.use_counts();
    let mut at: BTreeMap<NodeId, usize> = BTreeMap::new();
    let mut groups: Vec<Vec<NodeId>> = Vec::new();
    let mut found: BTreeMap<NodeId, Group> = BTreeMap::new();
    for &id in &order {
        if at.contains_key(&id) {
            continue;
        }
        if let Some((group, nodes)) = contraction(graph, id, &counts, &at)? {
            let last = nodes.last().copied().unwrap_or(id);
            at.extend(nodes.iter().map(|n| (*n, groups.len())));
            groups.push(vec![last]);
            found.insert(last, group);
        }
    }
    let mut read = vec![0; counts.len()];
    for (_, n) in graph.nodes().filter(|(_, n)| averaged_bytes(graph, n).is_some()) {
        n.inputs().iter().flatten().for_each(|v| read[v.index()] += 1);
    }
    for &id in order.iter().rev() {
        // Bytes that a chain reads are made.
        let out = graph.node(id)?.output(0).map_or(0, |v| v.index());
        let bytes_read = graph.node(id)?.is("DequantizeLinear") && read[out] > 0;
        let grown = if bytes_read { None } else { chain::grow(graph, id, &counts, |n| at.contains_key(&n)) };
        let Some(grown) = grown else { continue };
        at.extend(grown.nodes.iter().map(|n| (*n, groups.len())));
        grown.dequantized.iter().for_each(|v| read[v.index()] += 1);
        groups.push(vec![id]);
        found.insert(id, Group::Chain(grown));
    }
    // Dequantizations that every reader does itself are not done.
    for &id in &order {
        let out = graph.node(id)?.output(0).map_or(0, |v| v.index());
        if !at.contains_key(&id) && read[out] > 0 && read[out] == counts[out] {
            at.insert(id, groups.len());
            groups.push(Vec::new());
        }
    }
    for &id in &order {
        let cheap = elementwise::is_cheap(graph, id);
        if at.contains_key(&id) || !(cheap || typed::is_typed(graph, id)) {
            continue;
        }
        let node = graph.node(id)?;
        // Join the group that computes one of the inputs, when this is its only reader and shapes agree.
        let joined = node.inputs().iter().flatten().find_map(|&v| {
            let p = graph.producer(v)?;
            let g = *at.get(&p)?;
            let same = graph.ty(v).concrete() == graph.ty(node.output(0)?).concrete();
            let fits = groups[g].last() == Some(&p) && !found.contains_key(&p) && groups[g].len() < MAX_CHAIN;
            // Loops over float32 alone run in vectors, so they stay apart from those over other types.
            (counts[v.index()] == 1 && same && fits && elementwise::is_cheap(graph, p) == cheap).then_some(g)
        });
        match joined {
            Some(g) => {
                at.insert(id, g);
                groups[g].push(id);
            }
            None => {
                at.insert(id, groups.len());
                groups.push(vec![id]);
            }
        }
    }
    // A group runs where its last node stands.
    let mut result = Vec::new();
    for &id in &order {
        match at.get(&id) {
            None => result.push(Group::Single(id)),
            Some(&g) if groups[g].last() == Some(&id) => result.push(match found.remove(&id) {
                Some(c) => c,
                None => Group::Elementwise(groups[g].clone()),
            }),
            _ => {}
        }
    }
    Ok(result)
}

fn is_contraction(graph: &Graph, id: NodeId) -> bool {
    let Some(n) = graph.get(id) else { return false };
    let f32_out = n
        .output(0)
        .is_some_and(|o| graph.ty(o).dtype() == Some(ir::DType::F32) && graph.ty(o).concrete().is_some());
    let fits = match n.op.name() {
        "Conv" | "ConvTranspose" | "FusedConv" | "FusedConvTranspose" => {
            n.op.domain() == crate::channels_last::DOMAIN
        }
        "MatMul" | "Gemm" => n.op.domain().is_empty(),
        "FusedMatMul" | "FusedGemm" => n.op.domain() == "ir.",
        _ => false,
    };
    f32_out && (fits || is_integer(n))
}

/// A contraction of 8-bit integers with float results.
fn is_integer(n: &ir::Node) -> bool {
    let domain = n.op.domain();
    (domain == ops::quantized::DOMAIN && n.op.name() == "QuantizedMatMul")
        || (domain == crate::channels_last::DOMAIN && n.op.name() == "QuantizedConv")
}

type Found = (Group, Vec<NodeId>);

/// A contraction with as much of what follows as its epilogue can take.
fn contraction(
    graph: &Graph,
    id: NodeId,
    counts: &[usize],
    at: &BTreeMap<NodeId, usize>,
) -> Result<Option<Found>> {
    if !is_contraction(graph, id) {
        return Ok(None);
    }
    let node = graph.node(id)?;
    let Some(mut value) = node.output(0) else { return Ok(None) };
    let mut nodes = vec![id];
    let Finish { mut bias, mut act, mut residual, mut residual_last, .. } = Finish::of(node, value)?;
    while !residual_last && counts[value.index()] == 1 {
        let Some(&next) = graph.consumers(value).first() else { break };
        if at.contains_key(&next) {
            break;
        }
        let n = graph.node(next)?;
        let Some(out) = n.output(0).filter(|_| n.outputs().len() == 1) else { break };
        if act == Activation::None
            && let Some(a) = activation(graph, n)
        {
            act = a;
        } else if let Activation::LeakyRelu(slope) = act
            && let Some(low) = least(graph, n, value)
        {
            act = Activation::LeakyFrom { slope, low };
        } else if let Some(other) = added(graph, n, value) {
            let shape = graph.ty(out).concrete();
            if node.op.name().ends_with("MatMul")
                && bias.is_none()
                && residual.is_none()
                && act == Activation::None
                && is_vector(graph, other, shape.as_deref())
            {
                bias = Some(other);
            } else if residual.is_none()
                && shape.is_some()
                && graph.ty(other).concrete() == shape
                && graph.ty(other).dtype() == Some(ir::DType::F32)
                && graph.constant(other).is_none()
                && !reads(graph, other, &nodes)
            {
                residual = Some(other);
                residual_last = act != Activation::None;
            } else {
                break;
            }
        } else {
            break;
        }
        nodes.push(next);
        value = out;
        if residual_last {
            break;
        }
    }
    let mut finish = Finish {
        bias,
        act,
        residual,
        residual_last,
        affine: None,
        grid: None,
        quantize: None,
        output: value,
    };
    finish.affine = affine(graph, &mut finish.output, act, counts, at, &mut nodes);
    let quantize = match quantized(graph, node, &finish, counts, at) {
        Some((next, out, quantize)) => {
            nodes.push(next);
            finish.output = out;
            Some(quantize)
        }
        None => None,
    };
    // A residual computed after this node must not depend on it; it is at its place before the group runs, because the
    // group runs at its last node.
    finish.quantize = quantize;
    if finish.quantize.is_none() && !is_integer(node) {
        finish.grid = grid(graph, &mut finish.output, counts, at, &mut nodes);
    }
    Ok(Some((Group::Contraction { root: id, finish, nodes: nodes.clone() }, nodes)))
}

/// A product and a sum with constants of one element or one for each column, behind what registers hold. `value` becomes
/// what they give.
fn affine(
    graph: &Graph,
    value: &mut ValueId,
    act: Activation,
    counts: &[usize],
    at: &BTreeMap<NodeId, usize>,
    nodes: &mut Vec<NodeId>,
) -> Option<(Vec<f32>, Vec<f32>)> {
    if !act.is_cheap() {
        return None;
    }
    let shape = graph.ty(*value).concrete()?;
    let &columns = shape.last()?;
    let mut next = |op: &str| {
        let &next = graph.consumers(*value).first().filter(|_| counts[value.index()] == 1)?;
        let n = graph.get(next).filter(|n| n.is(op) && !at.contains_key(&next))?;
        let out = n.output(0).filter(|&o| graph.ty(o).concrete().as_ref() == Some(&shape))?;
        let other = n.inputs().iter().flatten().find(|&&v| v != *value)?;
        let c = by_column(graph, *other, columns)?;
        nodes.push(next);
        *value = out;
        Some(c)
    };
    let (scale, shift) = (next("Mul"), next("Add"));
    // What is not there changes no bit: x · 1 − 0.
    let or = |v: &Option<Vec<f32>>, x: f32| v.clone().unwrap_or_else(|| vec![x; columns]);
    (scale.is_some() || shift.is_some()).then(|| (or(&scale, 1.0), or(&shift, -0.0)))
}

/// A constant of float32 that is the same for all elements of a column.
fn by_column(graph: &Graph, v: ValueId, columns: usize) -> Option<Vec<f32>> {
    let t = graph.constant(v).filter(|t| t.dtype() == ir::DType::F32)?;
    match (t.len(), t.shape().last()) {
        (1, _) => Some(vec![t.to_f32s().ok()?[0]; columns]),
        (n, Some(&last)) if n == columns && last == n => t.to_f32s().ok(),
        _ => None,
    }
}

/// The quantization of `value` that can be part of the store: by one constant scale, or one for each column; where channels
/// do not mix by one zero point, and behind an activation of the same bounds for all.
fn quantized(
    graph: &Graph,
    root: &ir::Node,
    &Finish { output: value, act, residual, ref affine, .. }: &Finish,
    counts: &[usize],
    at: &BTreeMap<NodeId, usize>,
) -> Option<(NodeId, ValueId, Quantize)> {
    if !is_integer(root) || counts[value.index()] != 1 {
        return None;
    }
    let mixed = root.attrs.int_or("group", 1).ok()? == 1;
    if !act.is_cheap() && !mixed {
        return None;
    }
    let &next = graph.consumers(value).first()?;
    let n = graph.get(next).filter(|n| n.is("QuantizeLinear") && !at.contains_key(&next))?;
    let quantize = quantization(graph, n)?;
    if quantize.scale.len() > 1 {
        let shape = graph.ty(value).concrete()?;
        let axis = ops::broadcast::axis(n.attrs.int_or("axis", 1).ok()?, shape.len()).ok()?;
        let fits = axis + 1 == shape.len()
            && shape[axis] == quantize.scale.len()
            && (mixed || residual.is_none())
            && affine.is_none();
        let plain = mixed
            || quantize.zeros.is_empty()
                && quantizes_by_column(act, &quantize.scale, quantize.zero, quantize.signed);
        if !fits || !plain {
            return None;
        }
    }
    Some((next, n.output(0)?, quantize))
}

/// A quantization by one scale and its dequantization, where nothing else reads the bytes. `value` becomes what they leave.
fn grid(
    graph: &Graph,
    value: &mut ValueId,
    counts: &[usize],
    at: &BTreeMap<NodeId, usize>,
    nodes: &mut Vec<NodeId>,
) -> Option<Grid> {
    let only = |v: ValueId, op: &str| {
        let &next = graph.consumers(v).first().filter(|_| counts[v.index()] == 1)?;
        let n = graph.get(next).filter(|n| n.is(op) && !at.contains_key(&next))?;
        Some((next, n.output(0)?, quantization(graph, n).filter(|q| q.scale.len() == 1)?))
    };
    let (first, bytes, to) = only(*value, "QuantizeLinear")?;
    let (second, out, from) = only(bytes, "DequantizeLinear")?;
    let averaged = |&c: &NodeId| graph.get(c).is_some_and(|n| averaged_bytes(graph, n).is_some());
    let floats = graph.dtype(out) == Some(ir::DType::F32);
    if to != from || !floats || graph.consumers(out).iter().any(averaged) {
        return None;
    }
    nodes.extend([first, second]);
    *value = out;
    Some(Grid { scale: to.scale[0], zero: to.zero, signed: to.signed })
}

/// Constant scales and the zero point of a quantization to bytes or, inputs being alike, a dequantization of them.
pub fn quantization(graph: &Graph, n: &ir::Node) -> Option<Quantize> {
    let bytes = if n.is("DequantizeLinear") { n.input(0)? } else { n.output(0)? };
    let signed = match graph.dtype(bytes)? {
        ir::DType::U8 => false,
        ir::DType::I8 => true,
        _ => return None,
    };
    let scale = graph.constant(n.input(1)?).filter(|t| t.dtype() == ir::DType::F32)?;
    let mut zeros = match n.input(2) {
        None => vec![0],
        Some(z) => graph
            .constant(z)?
            .to_i64s()
            .ok()?
            .into_iter()
            .map(|z| i32::try_from(z).ok())
            .collect::<Option<Vec<i32>>>()?,
    };
    let &zero = zeros.first()?;
    if zeros.iter().all(|&z| z == zero) {
        zeros.clear();
    }
    let plain = n.attrs.int_or("block_size", 0).ok()? == 0 && !scale.is_empty() && scale.rank() <= 1;
    let fits = zeros.is_empty() || zeros.len() == scale.len();
    (plain && fits).then_some(Quantize { scale: scale.to_f32s().ok()?, zero, zeros, signed })
}

/// The value is made by one of these nodes.
fn reads(graph: &Graph, v: ValueId, nodes: &[NodeId]) -> bool {
    graph.producer(v).is_some_and(|p| nodes.contains(&p))
}

/// A constant vector along the last dim.
fn is_vector(graph: &Graph, v: ValueId, out: Option<&[usize]>) -> bool {
    let (Some(t), Some(&n)) = (graph.constant(v), out.and_then(|s| s.last())) else { return false };
    t.dtype() == ir::DType::F32 && t.len() == n && t.shape().last() == Some(&n)
}

/// The other operand of an addition.
fn added(graph: &Graph, n: &ir::Node, value: ValueId) -> Option<ValueId> {
    let (a, b) = (n.input(0)?, n.input(1)?);
    let same = n.is("Add") && a != b && graph.ty(n.output(0)?).concrete() == graph.ty(value).concrete();
    if !same {
        None
    } else if a == value {
        Some(b)
    } else {
        Some(a)
    }
}

/// What `value` is at least behind this node.
fn least(graph: &Graph, n: &ir::Node, value: ValueId) -> Option<f32> {
    let out = n.output(0)?;
    let [Some(a), Some(b)] = *n.inputs() else { return None };
    let other = if a == value { b } else { a };
    let one = graph.constant(other).filter(|t| t.len() == 1 && t.dtype() == ir::DType::F32)?;
    let fits = n.is("Max") && other != value && graph.ty(out).concrete() == graph.ty(value).concrete();
    one.to_f32s().ok()?.first().copied().filter(|low| fits && !low.is_nan())
}

/// The activation a node applies to its first input.
pub fn activation(graph: &Graph, n: &ir::Node) -> Option<Activation> {
    if !n.op.domain().is_empty() || !matches!(n.op.kind(&n.attrs), Kind::Elementwise(_)) {
        return None;
    }
    let scalar = |i: usize, open: f32| match n.input(i) {
        None => Some(open),
        Some(v) => graph
            .constant(v)
            .filter(|t| t.len() == 1 && t.dtype() == ir::DType::F32)?
            .to_f32s()
            .ok()?
            .first()
            .copied(),
    };
    let bounds = if n.is("Clip") {
        (scalar(1, f32::NEG_INFINITY)?, scalar(2, f32::INFINITY)?)
    } else {
        (f32::NEG_INFINITY, f32::INFINITY)
    };
    Some(native(fused::Activation::of_node(n.op.name(), &n.attrs, bounds)?))
}
