//! Reference semantics called from generated code: for operators without a kernel and for values of unknown shape.

use super::body::{self, Body};
use super::late::Late;
use super::{Cx, Lowered, Work};
use crate::Precision;
use crate::kernel::{self, Io, Kernel};
use crate::plan::static_bytes;
use ir::{Attrs, DType, Error, EvalCx, Graph, Node, Operator, Result, Shape, Tensor, Value, ValueId};
use kernels::Tier;

/// How an operand is passed.
enum Operand {
    Absent,
    /// Known at compile time.
    Constant(Tensor),
    /// Operand `usize` of the step, in memory.
    Memory(usize, DType, Shape),
    /// Operand `usize` of the step, boxed.
    Boxed(usize),
}

struct Opaque {
    name: String,
    op: &'static dyn Operator,
    attrs: Attrs,
    inputs: Vec<Operand>,
    captures: Vec<Operand>,
    /// For each declared output: position among the step's outputs.
    outputs: Vec<Option<(usize, Operand)>>,
    /// One for each subgraph that may be compiled, by its place among them.
    bodies: Vec<Option<Body>>,
    late: Option<Late>,
    how: (Tier, Precision),
}

pub fn lower(cx: &Cx, node: &Node) -> Result<Lowered> {
    let mut reads: Vec<ValueId> = Vec::new();
    let mut operand = |v: Option<ValueId>| -> Operand {
        let Some(v) = v else { return Operand::Absent };
        if let Some(t) = cx.graph.constant(v) {
            return Operand::Constant(t.clone());
        }
        let at = reads.iter().position(|&r| r == v).unwrap_or_else(|| {
            reads.push(v);
            reads.len() - 1
        });
        place(cx.graph, v, at)
    };
    let inputs: Vec<Operand> = node.inputs().iter().map(|&v| operand(v)).collect();
    let captures: Vec<Operand> = node.captures().iter().map(|&v| operand(Some(v))).collect();
    let mut writes = Vec::new();
    let outputs = node
        .outputs()
        .iter()
        .map(|o| {
            o.map(|v| {
                writes.push(v);
                (writes.len() - 1, place(cx.graph, v, writes.len() - 1))
            })
        })
        .collect();
    let how = (cx.tier, cx.precision);
    let late = if waits(cx.graph, node) { Late::of(cx.graph, node, how) } else { None };
    let kind = if late.is_some() { kernel::LATE } else { kernel::REFERENCE };
    let kernel = Opaque {
        name: node.name.clone(),
        op: node.op,
        attrs: node.attrs.clone(),
        inputs,
        captures,
        outputs,
        bodies: body::of(cx.graph, node),
        late,
        how,
    };
    Ok(Lowered { kind, work: Work::Kernel(Box::new(kernel)), reads, writes, flops: 0.0 })
}

/// Whether the sizes of a node's results follow from operands that are not there yet, and from no more than their types or
/// a list of sizes.
fn waits(graph: &Graph, node: &Node) -> bool {
    let boxed = |v: &ValueId| static_bytes(graph, *v).is_none();
    let open = || node.inputs().iter().flatten().filter(|v| graph.constant(**v).is_none());
    let list = |v: &ValueId| graph.dtype(*v).is_some_and(|d| matches!(d, DType::I64 | DType::I32));
    open().any(boxed) || node.outputs().iter().flatten().any(boxed) && open().any(list)
}

fn place(graph: &Graph, v: ValueId, at: usize) -> Operand {
    let t = graph.ty(v);
    match (static_bytes(graph, v), t.dtype(), t.concrete()) {
        (Some(_), Some(d), Some(s)) => Operand::Memory(at, d, s),
        _ => Operand::Boxed(at),
    }
}

fn load(io: &Io, o: &Operand) -> Result<Option<Value>> {
    Ok(match o {
        Operand::Absent => None,
        Operand::Constant(t) => Some(Value::Tensor(t.clone())),
        Operand::Memory(i, d, s) => Some(Value::Tensor(copy(io, *i, *d, s)?)),
        Operand::Boxed(i) => {
            let b = io.pointer(*i) as usize;
            let v = io.boxes[b].lock().unwrap_or_else(|e| e.into_inner()).clone();
            Some(v.ok_or_else(|| Error::internal("a boxed value is not there"))?)
        }
    })
}

/// The operand's memory as a tensor, in storage that suits its type.
fn copy(io: &Io, i: usize, d: DType, s: &[usize]) -> Result<Tensor> {
    match d {
        DType::F32 => Tensor::new(s, io.input::<f32>(i).to_vec()),
        DType::I64 => Tensor::new(s, io.input::<i64>(i).to_vec()),
        DType::I32 => Tensor::new(s, io.input::<i32>(i).to_vec()),
        DType::F64 => Tensor::new(s, io.input::<f64>(i).to_vec()),
        _ => Tensor::from_bytes(d, s, io.input::<u8>(i).to_vec()),
    }
}

impl Kernel for Opaque {
    fn run(&self, io: &Io) -> Result<()> {
        let inputs: Vec<Option<Value>> = self.inputs.iter().map(|o| load(io, o)).collect::<Result<_>>()?;
        let captures: Vec<Value> =
            self.captures.iter().filter_map(|o| load(io, o).transpose()).collect::<Result<_>>()?;
        let graphs = self.attrs.graphs();
        let subgraph = |g: &Graph, ins: Vec<Value>| {
            let at = graphs.iter().position(|own| std::ptr::eq(*own, g));
            let body = at.and_then(|i| self.bodies.get(i)?.as_ref());
            body::run(body, g, ins, &captures, self.how, io.pool)
        };
        let cx = EvalCx {
            node: &self.name,
            attrs: &self.attrs,
            inputs: &inputs,
            captures: &captures,
            outputs: self.outputs.len(),
            subgraph: &subgraph,
        };
        let results = match self.late.as_ref().and_then(|l| l.run(&inputs, io.pool)) {
            Some(results) => results,
            None => self.op.eval(&cx)?,
        };
        // In the body of a loop this may be done very often.
        let all = inputs.iter().flatten().chain(&results);
        ir::budget::add_work(all.filter_map(|v| v.tensor().ok()).map(Tensor::len).sum());
        let (given, read) =
            (results.len(), self.outputs.iter().rposition(Option::is_some).map_or(0, |p| p + 1));
        if given < read {
            return Err(ir::too_few_results(&self.attrs, given, read));
        }
        let mut results = results.into_iter();
        for o in &self.outputs {
            let v = results.next();
            let Some((at, place)) = o else { continue };
            let v = v.ok_or_else(|| ir::too_few_results(&self.attrs, given, read))?;
            match place {
                Operand::Memory(_, d, s) => {
                    let t = v.tensor()?;
                    if t.dtype() != *d || t.shape() != &s[..] {
                        return Err(Error::internal(format!("result is {t:?} where {d} {s:?} was inferred")));
                    }
                    io.output::<u8>(*at).copy_from_slice(t.bytes());
                }
                _ => {
                    let b = io.pointer(io.inputs() + at) as usize;
                    *io.boxes[b].lock().unwrap_or_else(|e| e.into_inner()) = Some(v);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::compile;
    use ir::{Blame, Graph, Tensor, Value, ValueType};

    /// Whoever calls has to tell a size above the budget from data that do not fit.
    #[test]
    fn errors_of_steps_keep_their_kind() {
        let mut g = Graph::new("g");
        g.meta.opset = 21;
        let n = g.add_input("n", ValueType::known(ir::DType::I64, &[1]));
        let y = g.apply("made", ops::standard("ConstantOfShape").unwrap(), ir::Attrs::new(), &[n]);
        g.add_output("y", y);
        ir::infer(&mut g).unwrap();
        let p = compile(&g).unwrap();
        let run = |n: i64| p.run(&[Value::Tensor(Tensor::vector(vec![n]))], &kernels::Serial);
        assert_eq!(run(3).unwrap()[0].tensor().unwrap().shape(), [3]);
        let e = run(1 << 40).unwrap_err();
        assert_eq!(
            (e.blame, e.node.as_deref(), e.op.as_deref()),
            (Blame::Limit, Some("made"), Some("ConstantOfShape")),
            "{e}"
        );
        let reference = |n: i64| {
            let feeds = ir::Feeds::from([("n".to_string(), Tensor::vector(vec![n]).into())]);
            ir::Evaluate::run(&ir::Reference, &g, &feeds, &[]).err().map(|e| (e.blame, e.to_string()))
        };
        assert_eq!(reference(1 << 40), Some((e.blame, e.to_string())));
        let e = run(-1).unwrap_err();
        assert_eq!(reference(-1), Some((e.blame, e.to_string())));
    }
}
