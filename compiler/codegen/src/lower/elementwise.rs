//! Element-wise operators: generated loops for cheap ones, wide kernels for transcendental ones.

use super::{Cx, Lowered, Work};
use crate::clif::{LoopBody, RowLoop, Source, supports};
use crate::group::activation;
use crate::kernel::{Io, Kernel, text};
use artefact::Call;
use ir::{DType, Expr, Graph, Kind, Node, NodeId, ValueId};
use kernels::vecmath::{self, Function};
use kernels::{Activation, Pool};
use std::collections::BTreeMap;

/// Elements a task works on.
pub(super) const GRAIN: usize = 16 * 1024;

/// The node's scalar expression with constant bounds put in, and the inputs that remain.
pub(super) fn expression(graph: &Graph, n: &Node) -> Option<(Expr, Vec<ValueId>)> {
    if n.outputs().len() != 1 || !n.captures().is_empty() {
        return None;
    }
    if n.is("Clip") {
        let Activation::Clip { lo, hi } = activation(graph, n)? else { return None };
        let mut e = Expr::In(0);
        if lo > f32::NEG_INFINITY {
            e = e.max(Expr::Const(f64::from(lo)));
        }
        if hi < f32::INFINITY {
            e = e.min(Expr::Const(f64::from(hi)));
        }
        return Some((e, vec![n.input(0)?]));
    }
    let Kind::Elementwise(e) = n.op.kind(&n.attrs) else { return None };
    let inputs: Option<Vec<ValueId>> = n.inputs().iter().copied().collect();
    let inputs = inputs?;
    // The expression describes nodes with exactly the inputs it mentions.
    if highest(&e)? + 1 != inputs.len() {
        return None;
    }
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
    let body = LoopBody { expressions, operands: operands.len() };
    let elements: usize = shape.iter().product();
    Some(Lowered {
        kind: "fused loop",
        work: Work::Rows(RowKernel { body, walk }),
        reads: operands,
        writes: vec![out],
        flops: flops * elements as f64,
        call: None,
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
    pub(super) outer: Vec<(usize, Vec<i64>)>,
    pub(super) rows: usize,
    pub(super) row_strides: Vec<i64>,
    pub(super) n: usize,
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

/// A generated loop before it has code.
pub struct RowKernel {
    pub body: LoopBody,
    walk: Walk,
}

impl RowKernel {
    /// The call of this loop, which is number `code` of an artefact.
    pub fn call(&self, code: usize) -> Call {
        let w = &self.walk;
        let (outer, strides) = (w.outer.clone(), w.row_strides.clone());
        Call::Rows { code, outer, rows: w.rows, strides, n: w.n }
    }

    /// The kernel with its code.
    pub fn link(self, code: RowLoop) -> impl Kernel {
        Linked { walk: self.walk, operands: self.body.operands + 1, code }
    }
}

struct Linked {
    walk: Walk,
    operands: usize,
    code: RowLoop,
}

/// Pointers that tasks share; each task writes other elements.
struct Shared(Vec<*mut u8>);
// SAFETY: tasks write disjoint ranges of the result and only read the other operands.
unsafe impl Sync for Shared {}

type Pointers = smallvec::SmallVec<[*mut u8; 8]>;

impl Linked {
    fn call(&self, ptrs: &[*mut u8], rows: usize, n: usize) {
        // SAFETY: the pointers have `rows` rows of `n` elements at the walk's strides inside their operands: the walk was
        // made from the operands' shapes.
        unsafe { (self.code)(ptrs.as_ptr(), self.walk.row_strides.as_ptr(), rows as i64, n as i64) }
    }
}

impl Kernel for Linked {
    fn run(&self, io: &Io) -> Result<(), String> {
        let w = &self.walk;
        if w.n == 0 {
            return Ok(());
        }
        let base = Shared((0..self.operands).map(|k| io.pointer(k)).collect());
        let base = &base;
        if w.outer.is_empty() && w.rows == 1 {
            run(io.pool, w.n.div_ceil(GRAIN), &|t| {
                let (from, to) = (t * GRAIN, ((t + 1) * GRAIN).min(w.n));
                let shift = |k: usize| if w.inner.get(k).copied().unwrap_or(1) == 0 { 0 } else { 4 * from };
                let ptrs: Pointers =
                    base.0.iter().enumerate().map(|(k, p)| p.wrapping_add(shift(k))).collect();
                self.call(&ptrs, 1, to - from);
            });
            return Ok(());
        }
        let outer: usize = w.outer.iter().map(|o| o.0).product();
        let per = (GRAIN / w.n.max(1)).clamp(1, w.rows);
        let blocks = w.rows.div_ceil(per);
        run(io.pool, outer * blocks, &|t| {
            let (mut o, block) = (t / blocks, t % blocks);
            let mut ptrs: Pointers = base.0.iter().copied().collect();
            for (size, strides) in &w.outer {
                let i = (o % size) as i64;
                o /= size;
                ptrs.iter_mut().zip(strides).for_each(|(p, s)| *p = p.wrapping_offset((i * s) as isize));
            }
            let from = block * per;
            ptrs.iter_mut()
                .zip(&w.row_strides)
                .for_each(|(p, s)| *p = p.wrapping_offset((from as i64 * s) as isize));
            self.call(&ptrs, per.min(w.rows - from), w.n);
        });
        Ok(())
    }
}

/// Runs tasks on the pool, or here when there is one.
pub fn run(pool: &dyn Pool, tasks: usize, f: &(dyn Fn(usize) + Sync)) {
    if tasks == 1 { f(0) } else { pool.run(tasks, f) }
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
    Some(
        Lowered::kernel("vector function", vec![x], y, 10.0 * elements as f64, move |io| {
            let (x, y) = (io.input::<f32>(0), io.output::<f32>(0));
            let out = Shared(vec![y.as_mut_ptr().cast()]);
            let (out, len) = (&out, x.len());
            let failure = std::sync::Mutex::new(None);
            run(io.pool, len.div_ceil(GRAIN).max(1), &|t| {
                let range = t * GRAIN..((t + 1) * GRAIN).min(len);
                // SAFETY: tasks have disjoint ranges of the output, which has as many elements as the input.
                let part = unsafe {
                    std::slice::from_raw_parts_mut(out.0[0].cast::<f32>().add(range.start), range.len())
                };
                if let Err(e) = vecmath::map(f, &x[range], part) {
                    *failure.lock().unwrap_or_else(|e| e.into_inner()) = Some(e);
                }
            });
            failure.into_inner().unwrap_or_else(|e| e.into_inner()).map_or(Ok(()), |e| Err(text(e)))
        })
        .ahead(cx, |_| Some(Call::Map { function: f })),
    )
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
