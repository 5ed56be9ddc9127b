//! Chains of element-wise operators with quantization and dequantization, or casts of bytes and half floats, among them:
//! read as bytes, computed in float32 and written as bytes, in one step. A dequantization is done again by every chain that
//! reads it, so that bytes are all that memory holds.

use super::elementwise::{Walk, expression, function};
use super::{Cx, Lowered, Work};
use crate::group::{Quantize, quantization};
use ir::{Binary as Op, DType, Expr, Graph, NodeId, Unary, ValueId};
use kernels::chain::{Arg, Binary, Chain, Format, MOST_SLOTS, Step};
use kernels::vecmath::Function;

/// A chain and where it stands in the graph.
#[derive(Debug, Clone)]
pub struct Grown {
    pub root: NodeId,
    /// Nodes that are done by this chain alone, the root among them.
    pub nodes: Vec<NodeId>,
    /// Dequantized values, once for each time they are read.
    pub dequantized: Vec<ValueId>,
    operands: Vec<ValueId>,
    chain: Chain,
    walk: Walk,
}

/// The chain that ends in `root`, when there is one worth it: a dequantization or a comparison takes part, or more than a
/// quantization. A dequantization by itself is none, but with the quantization before it is, where only it reads the bytes.
pub fn grow(graph: &Graph, root: NodeId, counts: &[usize], taken: impl Fn(NodeId) -> bool) -> Option<Grown> {
    let n = graph.get(root)?;
    let out = n.output(0).filter(|_| n.outputs().len() == 1 && !taken(root))?;
    let shape = graph.ty(out).concrete()?;
    let mut g = Growth {
        graph,
        counts,
        taken: &taken,
        shape: &shape,
        nodes: vec![root],
        dequantized: Vec::new(),
        operands: Vec::new(),
        steps: Vec::new(),
        seen: Vec::new(),
    };
    let (result, store) = if let Some(format) = narrows(graph, root) {
        (g.value(n.input(0)?)?, format)
    } else if n.is("Cast") && matches!(widens(graph, root), Some(Format::Bytes { .. })) {
        g.dequantized.push(out);
        (g.dequantization(root)?, Format::F32)
    } else if n.is("DequantizeLinear")
        && widens(graph, root).is_some()
        && graph.dtype(out) == Some(DType::F32)
    {
        let snapped = g.snapped(root)?;
        // From bytes to bytes a table is faster.
        if matches!(g.operands[..], [(_, Format::Bytes { .. })]) {
            return None;
        }
        g.dequantized.push(out);
        (snapped, Format::F32)
    } else if graph.dtype(out) == Some(DType::F32)
        && !n.is("DequantizeLinear")
        && widens(graph, root).is_none()
    {
        (g.node(root)?, Format::F32)
    } else {
        return None;
    };
    let compares = g.steps.iter().any(|s| matches!(s, Step::Equal(..)));
    if g.dequantized.is_empty() && !compares && (store == Format::F32 || g.nodes.len() == 1) {
        return None;
    }
    // Operands come first, which are known now.
    let slot = |s: usize| if s >= STEPS { s - STEPS + g.operands.len() } else { s };
    let arg = |a: Arg| match a {
        Arg::Slot(s) => Arg::Slot(slot(s)),
        c => c,
    };
    let steps = g.steps.iter().map(|s| match *s {
        Step::Binary(op, a, b) => Step::Binary(op, arg(a), arg(b)),
        Step::Map(f, a) => Step::Map(f, arg(a)),
        Step::Snap(q, a) => Step::Snap(q, arg(a)),
        Step::Equal(a, b) => Step::Equal(arg(a), arg(b)),
    });
    let Arg::Slot(result) = arg(result) else { return None };
    let (operands, formats): (Vec<ValueId>, Vec<Format>) = g.operands.iter().copied().unzip();
    let chain = Chain { steps: steps.collect(), operands: formats, result, store };
    let shapes = operands.iter().map(|&v| graph.ty(v).concrete()).collect::<Option<Vec<_>>>()?;
    let walk = Walk::new(&shape, &shapes.iter().map(|s| &s[..]).collect::<Vec<_>>())?;
    if chain.operands.len() + chain.steps.len() > MOST_SLOTS {
        return None;
    }
    Some(Grown { root, nodes: g.nodes, dequantized: g.dequantized, operands, chain, walk })
}

/// The quantization or dequantization of a node, by one scale.
fn single(graph: &Graph, id: NodeId) -> Option<Quantize> {
    let n = graph.get(id).filter(|n| n.is("QuantizeLinear") || n.is("DequantizeLinear"))?;
    quantization(graph, n).filter(|q| q.scale.len() == 1)
}

/// What a node leaves of float32 values: a quantization by one scale, or a cast to half precision.
fn narrows(graph: &Graph, id: NodeId) -> Option<Format> {
    let n = graph.get(id)?;
    if n.is("QuantizeLinear") {
        return single(graph, id).map(|q| format(&q));
    }
    casts(graph, id, DType::F32, DType::F16).then_some(Format::Half)
}

/// What a node makes float32 values of: a dequantization by one scale, a cast of half precision, or one of bytes, which is
/// a dequantization by 1.
fn widens(graph: &Graph, id: NodeId) -> Option<Format> {
    let n = graph.get(id)?;
    if n.is("DequantizeLinear") {
        return single(graph, id).map(|q| format(&q));
    }
    let bytes = |signed| Format::Bytes { signed, scale: 1.0, zero: 0 };
    let from = [(DType::F16, Format::Half), (DType::U8, bytes(false)), (DType::I8, bytes(true))];
    from.into_iter().find(|&(d, _)| casts(graph, id, d, DType::F32)).map(|(_, format)| format)
}

fn casts(graph: &Graph, id: NodeId, from: DType, to: DType) -> bool {
    let dtype = |v: Option<ValueId>| v.and_then(|v| graph.dtype(v));
    graph.get(id).is_some_and(|n| {
        (n.is("Cast") || n.is("CastLike"))
            && (dtype(n.input(0)), dtype(n.output(0))) == (Some(from), Some(to))
    })
}

fn format(q: &Quantize) -> Format {
    Format::Bytes { signed: q.signed, scale: q.scale[0], zero: q.zero }
}

/// Slots from here on are those of steps while operands are still being found.
const STEPS: usize = 1 << 16;

struct Growth<'a> {
    graph: &'a Graph,
    counts: &'a [usize],
    taken: &'a dyn Fn(NodeId) -> bool,
    shape: &'a [usize],
    nodes: Vec<NodeId>,
    dequantized: Vec<ValueId>,
    operands: Vec<(ValueId, Format)>,
    steps: Vec<Step>,
    /// Values that have a slot.
    seen: Vec<(ValueId, Arg)>,
}

impl Growth<'_> {
    fn operand(&mut self, v: ValueId, format: Format) -> Option<Arg> {
        let dtype = match format {
            Format::F32 => DType::F32,
            Format::Half => DType::F16,
            Format::Words => DType::I32,
            Format::Bytes { signed: true, .. } => DType::I8,
            Format::Bytes { signed: false, .. } => DType::U8,
        };
        if self.graph.dtype(v) != Some(dtype) {
            return None;
        }
        let at = self.operands.iter().position(|&o| o == (v, format)).unwrap_or(self.operands.len());
        if at == self.operands.len() {
            self.operands.push((v, format));
        }
        Some(Arg::Slot(at))
    }

    fn step(&mut self, s: Step) -> Option<Arg> {
        self.steps.push(s);
        Some(Arg::Slot(STEPS + self.steps.len() - 1))
    }

    /// Room for a few more slots.
    fn room(&self) -> bool {
        self.operands.len() + self.steps.len() + 8 <= MOST_SLOTS
    }

    /// A float32 value.
    fn value(&mut self, v: ValueId) -> Option<Arg> {
        let widened = |&p: &NodeId| widens(self.graph, p).is_some() && !(self.taken)(p);
        let dequantized = self.graph.producer(v).filter(widened);
        if dequantized.is_some() {
            self.dequantized.push(v);
        }
        if let Some(&(_, a)) = self.seen.iter().find(|s| s.0 == v) {
            return Some(a);
        }
        let a = match dequantized {
            Some(p) => self.dequantization(p)?,
            None => match self.inner(v) {
                Some(p) => {
                    self.nodes.push(p);
                    self.node(p)?
                }
                None => self.operand(v, Format::F32)?,
            },
        };
        self.seen.push((v, a));
        Some(a)
    }

    /// The node that makes `v`, when it can be part of this chain and of nothing else.
    fn inner(&self, v: ValueId) -> Option<NodeId> {
        let p = self.graph.producer(v).filter(|&p| !(self.taken)(p) && self.counts[v.index()] == 1)?;
        let same = self.graph.ty(v).concrete().is_some_and(|s| s[..] == *self.shape);
        (same && self.room() && self.takes(p)).then_some(p)
    }

    fn dequantization(&mut self, p: NodeId) -> Option<Arg> {
        let n = self.graph.get(p)?;
        let (x, v, format) = (n.input(0)?, n.output(0)?, widens(self.graph, p)?);
        if self.counts[v.index()] == 1
            && let Some(m) = self.narrowed(p)
        {
            self.nodes.push(p);
            return self.snap(m, format);
        }
        self.operand(x, format)
    }

    /// The node whose results are quantized for `p` only, which never become bytes.
    fn narrowed(&self, p: NodeId) -> Option<NodeId> {
        let n = self.graph.get(p)?;
        let (x, v, format) = (n.input(0)?, n.output(0)?, widens(self.graph, p)?);
        self.graph.producer(x).filter(|&m| {
            let same = self.graph.ty(v).concrete().is_some_and(|s| s[..] == *self.shape);
            let narrows = narrows(self.graph, m) == Some(format);
            let free = !(self.taken)(m) && !(self.taken)(p);
            self.counts[x.index()] == 1 && same && narrows && self.room() && free
        })
    }

    fn snap(&mut self, m: NodeId, format: Format) -> Option<Arg> {
        self.nodes.push(m);
        let a = self.value(self.graph.get(m)?.input(0)?)?;
        self.step(Step::Snap(format, a))
    }

    /// The value of a dequantization at the end of the chain, whose bytes it alone reads.
    fn snapped(&mut self, root: NodeId) -> Option<Arg> {
        let (m, format) = (self.narrowed(root)?, widens(self.graph, root)?);
        self.snap(m, format)
    }

    /// The 32-bit integers that a cast to float32 compares, and the node that compares them for it alone.
    fn compared(&self, id: NodeId) -> Option<(ValueId, ValueId, NodeId)> {
        let cast = self.graph.get(id).filter(|n| n.is("Cast"))?;
        let v = cast.input(0)?;
        let p = self.graph.producer(v).filter(|&p| self.counts[v.index()] == 1 && !(self.taken)(p))?;
        let n = self.graph.get(p).filter(|n| n.is("Equal"))?;
        let word =
            |v: &ValueId| self.graph.dtype(*v) == Some(DType::I32) && self.graph.ty(*v).concrete().is_some();
        let (a, b) = (n.input(0).filter(word)?, n.input(1).filter(word)?);
        let float = cast.output(0).and_then(|y| self.graph.dtype(y)) == Some(DType::F32);
        float.then_some((a, b, p))
    }

    /// Whether an element-wise node has steps.
    fn takes(&self, id: NodeId) -> bool {
        if self.compared(id).is_some() {
            return true;
        }
        let mut probe = Growth {
            operands: Vec::new(),
            steps: Vec::new(),
            nodes: Vec::new(),
            dequantized: Vec::new(),
            seen: Vec::new(),
            ..*self
        };
        let Some((form, inputs)) = self.form(id) else { return false };
        let args: Vec<Arg> = (0..inputs.len()).map(Arg::Slot).collect();
        let floats = inputs
            .iter()
            .all(|&v| self.graph.dtype(v) == Some(DType::F32) && self.graph.ty(v).concrete().is_some());
        floats && probe.emit(&form, &args).is_some()
    }

    /// What a node computes of which values.
    fn form(&self, id: NodeId) -> Option<(Form, Vec<ValueId>)> {
        let n = self.graph.get(id)?;
        if n.outputs().len() != 1 || self.graph.dtype(n.output(0)?) != Some(DType::F32) {
            return None;
        }
        if let Some(f) = function(self.graph, n) {
            return Some((Form::Function(f), vec![n.input(0)?]));
        }
        let (e, inputs) = expression(self.graph, n)?;
        Some((Form::Expression(e), inputs))
    }

    fn node(&mut self, id: NodeId) -> Option<Arg> {
        if let Some((a, b, p)) = self.compared(id) {
            self.nodes.push(p);
            let (a, b) = (self.operand(a, Format::Words)?, self.operand(b, Format::Words)?);
            return self.step(Step::Equal(a, b));
        }
        if !self.takes(id) {
            return None;
        }
        let (form, inputs) = self.form(id)?;
        let args = inputs.iter().map(|&v| self.value(v)).collect::<Option<Vec<_>>>()?;
        self.emit(&form, &args)
    }

    fn emit(&mut self, form: &Form, args: &[Arg]) -> Option<Arg> {
        match form {
            Form::Function(f) => self.step(Step::Map(*f, args[0])),
            Form::Expression(e) => steps_of(e, args, &mut |s| self.step(s)),
        }
    }
}

/// The steps of an expression, each given to `step` once its operands are there; `None` where some of it has none.
pub(super) fn steps_of(e: &Expr, args: &[Arg], step: &mut dyn FnMut(Step) -> Option<Arg>) -> Option<Arg> {
    match e {
        Expr::In(i) => args.get(*i).copied(),
        Expr::Const(c) => Some(Arg::Const(*c as f32)),
        Expr::Binary(op, a, b) => {
            let (a, b) = (steps_of(a, args, step)?, steps_of(b, args, step)?);
            let op = match op {
                Op::Add => Binary::Add,
                Op::Sub => Binary::Sub,
                Op::Mul => Binary::Mul,
                Op::Div => Binary::Div,
                Op::Min => Binary::Min,
                Op::Max => Binary::Max,
                _ => return None,
            };
            step(Step::Binary(op, a, b))
        }
        Expr::Unary(op, a) => {
            let a = steps_of(a, args, step)?;
            let f = match op {
                Unary::Neg => return step(Step::Binary(Binary::Sub, Arg::Const(-0.0), a)),
                Unary::Reciprocal => return step(Step::Binary(Binary::Div, Arg::Const(1.0), a)),
                Unary::Exp => Function::Exp,
                Unary::Abs => Function::Abs,
                Unary::Sqrt => Function::Sqrt,
                Unary::Floor => Function::Floor,
                Unary::Ceil => Function::Ceil,
                Unary::Round => Function::Round,
                Unary::Tanh => Function::Tanh,
                Unary::Erf => Function::Erf,
                Unary::Sigmoid => Function::Sigmoid,
                _ => return None,
            };
            step(Step::Map(f, a))
        }
        // `x < 0 ? x · slope : x`
        Expr::Select(below, scaled, x) => match (&**below, &**scaled) {
            (Expr::Binary(Op::Lt, y, zero), Expr::Binary(Op::Mul, a, b))
                if y == x && (a == x || b == x) && **zero == Expr::Const(0.0) =>
            {
                let slope = if b == x { a } else { b };
                let (x, slope) = (steps_of(x, args, step)?, steps_of(slope, args, step)?);
                step(Step::Binary(Binary::Leaky, x, slope))
            }
            _ => None,
        },
        Expr::Cast(..) => None,
    }
}

enum Form {
    Function(Function),
    Expression(Expr),
}

/// The step of a chain.
pub fn lower(cx: &Cx, g: &Grown) -> Lowered {
    let output = cx.graph.get(g.root).and_then(|n| n.output(0));
    let elements = output.and_then(|v| cx.shape(v)).map_or(0, |s| s.iter().product::<usize>());
    let flops = (elements * (g.chain.operands.len() + g.chain.steps.len() + 1)) as f64;
    let call = g.walk.clone().chain(cx.tier, g.chain.clone());
    Lowered {
        kind: "fused loop",
        work: Work::Call(Box::new(call)),
        reads: g.operands.clone(),
        writes: output.into_iter().collect(),
        flops,
    }
}

#[cfg(test)]
mod tests;
