//! Element-wise operators: generated loops for cheap ones, wide kernels for transcendental ones.

use super::chain::steps_of;
use super::{Cx, Lowered, Work};
use crate::clif::{LoopBody, Source, Turns, supports};
use crate::group::activation;
use artefact::Call;
use ir::{Binary, DType, Expr, Graph, Kind, Node, NodeId, ValueId};
use kernels::chain::{Arg, Chain, Format, MOST_SLOTS};
use kernels::vecmath::Function;
use kernels::{Activation, Tier};
use std::collections::BTreeMap;

/// The node's scalar expression with constant bounds put in, and the inputs that remain.
pub(super) fn expression(graph: &Graph, n: &Node) -> Option<(Expr, Vec<ValueId>)> {
    if n.outputs().len() != 1 || !n.captures().is_empty() {
        return None;
    }
    let (e, inputs) = if n.is("Clip") {
        let mut bounded = (Expr::In(0), vec![n.input(0)?]);
        for (op, bound) in [(Binary::Max, n.input(1)), (Binary::Min, n.input(2))] {
            // One that is constant and open is none.
            let open = |b: &ValueId| {
                let c = graph.constant(*b).and_then(|t| t.to_f32s().ok()).unwrap_or_default();
                c == [if op == Binary::Max { f32::NEG_INFINITY } else { f32::INFINITY }]
            };
            if let Some(b) = bound.filter(|b| !open(b)) {
                let (e, inputs) = &mut bounded;
                inputs.push(b);
                *e = Expr::binary(op, e.clone(), Expr::In(inputs.len() - 1));
            }
        }
        bounded
    } else {
        let Kind::Elementwise(e) = n.op.kind(&n.attrs) else { return None };
        let inputs: Option<Vec<ValueId>> = n.inputs().iter().copied().collect();
        // The expression describes nodes with exactly the inputs it mentions.
        inputs
            .filter(|inputs| highest(&e).is_some_and(|h| h + 1 == inputs.len()))
            .map(|inputs| (e, inputs))?
    };
    // One-element constants become constants of the code.
    let (mut kept, mut map) = (Vec::new(), Vec::new());
    let full = graph.ty(n.output(0)?).rank();
    for &v in &inputs {
        let scalar =
            graph.constant(v).filter(|t| t.len() == 1 && t.dtype() == DType::F32 && Some(t.rank()) <= full);
        match scalar.and_then(|t| t.to_f32s().ok()).and_then(|x| x.first().copied()) {
            Some(c) if inputs.len() > 1 => map.push(Expr::Const(f64::from(c))),
            _ => {
                map.push(Expr::In(kept.len()));
                kept.push(v);
            }
        }
    }
    if kept.is_empty() {
        return None;
    }
    Some((e.substitute(&|i| map.get(i).cloned().unwrap_or(Expr::In(i))), kept))
}

fn highest(e: &Expr) -> Option<usize> {
    match e {
        Expr::In(i) => Some(*i),
        Expr::Const(_) => None,
        Expr::Unary(_, a) | Expr::Cast(_, a) => highest(a),
        Expr::Binary(_, a, b) => highest(a).max(highest(b)),
        Expr::Select(c, a, b) => highest(c).max(highest(a)).max(highest(b)),
    }
}

/// Whether a node is worth a place in a generated loop: float32, known shape, no transcendental function.
pub fn is_cheap(graph: &Graph, id: NodeId) -> bool {
    let Some(n) = graph.get(id) else { return false };
    let known = |v: ValueId| graph.dtype(v) == Some(DType::F32) && graph.ty(v).concrete().is_some();
    n.output(0).is_some_and(known)
        && expression(graph, n).is_some_and(|(e, inputs)| supports(&e) && inputs.iter().all(|&v| known(v)))
}

/// A chain of cheap nodes as one generated loop.
pub fn fuse(cx: &Cx, nodes: &[NodeId]) -> Option<Lowered> {
    let graph = cx.graph;
    let mut operands: Vec<ValueId> = Vec::new();
    let mut made: BTreeMap<ValueId, usize> = BTreeMap::new();
    let mut reads: Vec<(Expr, Vec<ValueId>)> = Vec::new();
    let mut flops = 0.0;
    for &id in nodes {
        let n = graph.get(id)?;
        let (e, inputs) = expression(graph, n)?;
        if !supports(&e) {
            return None;
        }
        for &v in &inputs {
            if !made.contains_key(&v) && !operands.contains(&v) {
                operands.push(v);
            }
        }
        made.insert(n.output(0)?, reads.len());
        flops += cost(&e);
        reads.push((e, inputs));
    }
    let out = graph.get(*nodes.last()?)?.output(0)?;
    let shape = cx.f32_shape(out)?;
    let shapes: Vec<_> = operands.iter().map(|&v| cx.f32_shape(v)).collect::<Option<Vec<_>>>()?;
    let walk = Walk::new(&shape, &shapes.iter().map(|s| &s[..]).collect::<Vec<_>>())?;
    let source = |v: &ValueId| match made.get(v) {
        Some(&j) => Source::Earlier(j),
        None => {
            let k = operands.iter().position(|o| o == v).unwrap_or(0);
            Source::Operand(k, walk.inner[k] != 0)
        }
    };
    let expressions = reads.into_iter().map(|(e, inputs)| (e, inputs.iter().map(source).collect())).collect();
    let turns = Turns::of(walk.rows, walk.n, flops);
    let body = LoopBody { expressions, operands: operands.len(), turns };
    let elements: usize = shape.iter().product();
    Some(Lowered {
        kind: "fused loop",
        work: Work::Rows(RowKernel { body, walk }),
        reads: operands,
        writes: vec![out],
        flops: flops * elements as f64,
    })
}

fn cost(e: &Expr) -> f64 {
    match e {
        Expr::In(_) | Expr::Const(_) => 0.0,
        Expr::Unary(_, a) | Expr::Cast(_, a) => 1.0 + cost(a),
        Expr::Binary(_, a, b) => 1.0 + cost(a) + cost(b),
        Expr::Select(c, a, b) => 1.0 + cost(c) + cost(a) + cost(b),
    }
}

/// How operands broadcast over a result, dims collapsed: outer dims, rows, and the inner run.
#[derive(Debug, Clone)]
pub struct Walk {
    /// Outer dims and, for every operand (the result last), their strides in bytes of float32.
    outer: Vec<(usize, Vec<i64>)>,
    rows: usize,
    row_strides: Vec<i64>,
    n: usize,
    /// Inner stride of each input operand, 0 or 1 elements.
    pub inner: Vec<usize>,
}

impl Walk {
    pub(super) fn new(out: &[usize], inputs: &[&[usize]]) -> Option<Walk> {
        let strides: Vec<Vec<usize>> = inputs
            .iter()
            .chain(std::iter::once(&out))
            .map(|s| if s.len() > out.len() { None } else { Some(ops::broadcast::broadcast_strides(s, out)) })
            .collect::<Option<_>>()?;
        // Collapsed dims, innermost first: (size, stride per operand).
        let mut dims: Vec<(usize, Vec<usize>)> = Vec::new();
        for d in (0..out.len()).rev().filter(|&d| out[d] != 1) {
            let here: Vec<usize> = strides.iter().map(|s| s[d]).collect();
            match dims.last_mut() {
                Some((n, inner)) if here.iter().zip(inner.iter()).all(|(h, i)| *h == *i * *n) => *n *= out[d],
                _ => dims.push((out[d], here)),
            }
        }
        let (n, inner) = dims.first().cloned().unwrap_or((1, vec![0; strides.len()]));
        let bytes = |v: &[usize]| v.iter().map(|&s| 4 * s as i64).collect::<Vec<i64>>();
        let (rows, row_strides) = dims.get(1).map_or((1, vec![0; strides.len()]), |(r, s)| (*r, bytes(s)));
        let outer = dims.iter().skip(2).map(|(m, s)| (*m, bytes(s))).collect();
        if inner.iter().any(|&s| s > 1) {
            return None;
        }
        let inner = inner[..inputs.len()].to_vec();
        Some(Walk { outer, rows, row_strides, n: if out.contains(&0) { 0 } else { n }, inner })
    }
}

impl Walk {
    fn moving(&self) -> Vec<bool> {
        self.inner.iter().map(|&s| s != 0).collect()
    }

    /// The call of a chain that walks its operands like this; from byte to byte it is a table.
    pub(super) fn chain(self, tier: Tier, chain: Chain) -> Call {
        let whole = self.outer.is_empty() && self.rows == 1 && self.inner[..] == [1];
        if whole && let Some(table) = chain.table(tier) {
            return Call::LookUp { tier, table };
        }
        let moving = self.moving();
        let (rows, n) = (self.rows, self.n);
        Call::Chain { tier, chain, outer: self.outer, rows, strides: self.row_strides, moving, n }
    }
}

/// A generated loop before it has code.
pub struct RowKernel {
    pub body: LoopBody,
    walk: Walk,
}

impl RowKernel {
    /// The same as a chain of steps, which needs no code; `None` where a step is missing.
    pub fn chain(&self, tier: Tier) -> Option<Call> {
        let (operands, mut steps) = (self.body.operands, Vec::new());
        let mut results: Vec<Arg> = Vec::new();
        for (e, sources) in &self.body.expressions {
            let arg = |s: &Source| match *s {
                Source::Operand(k, _) => Some(Arg::Slot(k)),
                Source::Earlier(j) => results.get(j).copied(),
            };
            let args = sources.iter().map(arg).collect::<Option<Vec<Arg>>>()?;
            results.push(steps_of(e, &args, &mut |s| {
                steps.push(s);
                Some(Arg::Slot(operands + steps.len() - 1))
            })?);
        }
        let Some(Arg::Slot(result)) = results.last().copied() else { return None };
        let formats = vec![Format::F32; operands];
        let chain = Chain { operands: formats, steps, result, store: Format::F32 };
        (operands + chain.steps.len() <= MOST_SLOTS).then(|| self.walk.clone().chain(tier, chain))
    }

    /// The call of this loop, which is number `code` of the program's.
    pub fn call(&self, code: usize) -> Call {
        let w = self.walk.clone();
        let moving = w.moving();
        Call::Rows { code, outer: w.outer, rows: w.rows, strides: w.row_strides, moving, n: w.n }
    }
}

/// Element-wise nodes of one input that have a wide kernel.
pub fn map(cx: &Cx, n: &Node) -> Option<Lowered> {
    let (x, y) = (n.input(0)?, n.output(0)?);
    let shape = cx.f32_shape(x)?;
    if n.outputs().len() != 1 || cx.f32_shape(y)? != shape {
        return None;
    }
    let f = function(cx.graph, n)?;
    let elements: usize = shape.iter().product();
    Some(Lowered::call("vector function", vec![x], y, 10.0 * elements as f64, Call::Map { function: f }))
}

/// Powers of float32 by an exponent, one of them a number or both of the result's shape.
pub fn power(cx: &Cx, n: &Node) -> Option<Lowered> {
    if !n.is("Pow") {
        return None;
    }
    let (x, e, y) = (n.input(0)?, n.input(1)?, n.output(0)?);
    let (shape, mut reads) = (cx.f32_shape(y)?, Vec::new());
    cx.f32_shape(x)?;
    let mut operand = |v: ValueId| {
        // An exponent of another type is cast to that of the base.
        match cx.graph.constant(v).filter(|t| t.len() == 1) {
            Some(t) => Some(Some(*t.to_f64s().ok()?.first()? as f32)),
            None if cx.f32_shape(v)? == shape => {
                reads.push(v);
                Some(None)
            }
            None => None,
        }
    };
    let (base, exponent) = (operand(x)?, operand(e)?);
    if reads.is_empty() {
        return None;
    }
    let flops = 30.0 * shape.iter().product::<usize>() as f64;
    Some(Lowered::call("vector function", reads, y, flops, Call::Power { base, exponent }))
}

pub(super) fn function(graph: &Graph, n: &Node) -> Option<Function> {
    if !n.op.domain().is_empty() {
        return None;
    }
    let f = |name: &str, default: f32| n.attrs.float_or(name, default).ok();
    Some(match n.op.name() {
        "Exp" => Function::Exp,
        "Log" => Function::Log,
        "Erf" => Function::Erf,
        "Sin" => Function::Sin,
        "Cos" => Function::Cos,
        "Tan" => Function::Tan,
        "Sinh" => Function::Sinh,
        "Cosh" => Function::Cosh,
        "Asin" => Function::Asin,
        "Acos" => Function::Acos,
        "Atan" => Function::Atan,
        "Softplus" => Function::Softplus,
        "Mish" => Function::Mish,
        "Sign" => Function::Sign,
        "Elu" => Function::Elu { alpha: f("alpha", 1.0)? },
        "Selu" => Function::Selu { alpha: f("alpha", 1.673_263_2)?, gamma: f("gamma", 1.050_701)? },
        "Celu" => Function::Celu { alpha: f("alpha", 1.0)? },
        _ => match activation(graph, n)? {
            Activation::Sigmoid => Function::Sigmoid,
            Activation::Tanh => Function::Tanh,
            Activation::Silu => Function::Silu,
            Activation::GeluErf => Function::Gelu,
            Activation::GeluTanh => Function::GeluTanh,
            _ => return None,
        },
    })
}
