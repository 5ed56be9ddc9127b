//! Element-wise chains over integers, booleans and doubles, and conversions between types, as generated loops.

use super::{Cx, Lowered, Work, elementwise};
use crate::clif::{Loop, Operand};
use crate::dag::{Dag, Id, Op, known};
use ir::{Expr, Graph, Kind, Node, NodeId, ValueId};
use std::collections::BTreeMap;

/// The node's expression over exactly its inputs.
fn expression(n: &Node) -> Option<(Expr, Vec<ValueId>)> {
    if n.outputs().len() != 1 || !n.captures().is_empty() {
        return None;
    }
    let Kind::Elementwise(e) = n.op.kind(&n.attrs) else { return None };
    let inputs: Vec<ValueId> = n.inputs().iter().copied().collect::<Option<_>>()?;
    (highest(&e) == inputs.len()).then_some((e, inputs))
}

/// Inputs an expression names.
fn highest(e: &Expr) -> usize {
    match e {
        Expr::In(i) => i + 1,
        Expr::Const(_) => 0,
        Expr::Unary(_, a) | Expr::Cast(_, a) => highest(a),
        Expr::Binary(_, a, b) => highest(a).max(highest(b)),
        Expr::Select(c, a, b) => highest(c).max(highest(a)).max(highest(b)),
    }
}

/// Whether a node that is no float32 loop can be one over its own types.
pub fn is_typed(graph: &Graph, id: NodeId) -> bool {
    !elementwise::is_cheap(graph, id) && build(graph, &[id]).is_some()
}

/// The chain as one expression graph, its operands and its result.
fn build(graph: &Graph, nodes: &[NodeId]) -> Option<(Dag, Id, Vec<ValueId>, ValueId)> {
    let (mut dag, mut inputs) = (Dag::default(), Vec::new());
    let mut values: BTreeMap<ValueId, Id> = BTreeMap::new();
    let mut last = None;
    for &id in nodes {
        let n = graph.get(id)?;
        let (e, reads) = expression(n)?;
        let mut ids = Vec::new();
        for v in reads {
            let at = match values.get(&v) {
                Some(&at) => at,
                None => leaf(graph, v, &mut dag, &mut inputs)?,
            };
            values.insert(v, at);
            ids.push(at);
        }
        let out = n.output(0)?;
        let at = dag.add(&e, &ids, None)?;
        // Where the types of a node are not those of its expression, the operator has rules of its own.
        if graph.dtype(out) != Some(dag.dtype(at)) || graph.ty(out).concrete().is_none() {
            return None;
        }
        values.insert(out, at);
        last = Some((at, out));
    }
    let (root, out) = last?;
    (!inputs.is_empty()).then_some((dag, root, inputs, out))
}

/// A constant of one element stands in the code, anything else is read.
fn leaf(graph: &Graph, v: ValueId, dag: &mut Dag, inputs: &mut Vec<ValueId>) -> Option<Id> {
    let dtype = graph.dtype(v).filter(|&d| known(d))?;
    graph.ty(v).concrete()?;
    if let Some(t) = graph.constant(v).filter(|t| t.len() == 1)
        && let Some(&x) = t.to_f64s().ok()?.first()
        // Beyond this an int64 is not exact as a double.
        && (dtype.is_float() || x.abs() < 9e15)
    {
        return Some(dag.push(Op::Const(x.to_bits()), dtype));
    }
    inputs.push(v);
    Some(dag.push(Op::In(inputs.len() - 1), dtype))
}

/// A chain of such nodes as one generated loop.
pub fn fuse(cx: &Cx, nodes: &[NodeId]) -> Option<Lowered> {
    let (dag, root, reads, out) = build(cx.graph, nodes)?;
    let shape = cx.shape(out)?;
    let operand = |v: ValueId, strides: Vec<usize>| Some(Operand { dtype: cx.graph.dtype(v)?, strides });
    let mut strides = Vec::new();
    for &v in reads.iter().chain([&out]) {
        let s = cx.shape(v)?;
        if s.len() > shape.len() {
            return None;
        }
        strides.push(ops::broadcast::broadcast_strides(&s, &shape));
    }
    let elements: usize = shape.iter().product();
    let (dims, mut strides) = collapse(&shape, &strides);
    let output = operand(out, strides.pop()?)?;
    let inputs = reads.iter().zip(strides).map(|(&v, s)| operand(v, s)).collect::<Option<_>>()?;
    let flops = (dag.reach(root).iter().filter(|&&r| r).count() - reads.len().min(dag.len())) as f64;
    let body = Loop { dag, root, inputs, output, dims };
    Some(Lowered {
        kind: "fused loop",
        work: Work::Typed(TypedKernel { body, elements }),
        reads,
        writes: vec![out],
        flops: flops * elements as f64,
    })
}

/// Merges neighbouring dims over which every operand runs on, and drops those of size 1.
fn collapse(dims: &[usize], strides: &[Vec<usize>]) -> (Vec<usize>, Vec<Vec<usize>>) {
    let mut kept: Vec<usize> = Vec::new();
    let mut out: Vec<Vec<usize>> = vec![Vec::new(); strides.len()];
    for (d, &n) in dims.iter().enumerate().filter(|d| *d.1 != 1) {
        let joins =
            strides.iter().zip(&out).all(|(s, o)| o.last().is_some_and(|&l| Some(l) == s[d].checked_mul(n)));
        match kept.last_mut() {
            Some(last) if joins => {
                *last *= n;
                out.iter_mut().zip(strides).for_each(|(o, s)| {
                    o.pop();
                    o.push(s[d]);
                });
            }
            _ => {
                kept.push(n);
                out.iter_mut().zip(strides).for_each(|(o, s)| o.push(s[d]));
            }
        }
    }
    if kept.is_empty() { (vec![1], vec![vec![1]; strides.len()]) } else { (kept, out) }
}

/// A generated loop before it has code.
pub struct TypedKernel {
    body: Loop,
    elements: usize,
}

impl TypedKernel {
    pub fn body(&self) -> &Loop {
        &self.body
    }
    /// The call of this loop, which is number `code` of the program's.
    pub fn call(&self, code: usize) -> artefact::Call {
        artefact::Call::Typed { code, units: self.body.units(), elements: self.elements }
    }
}

#[cfg(test)]
mod tests {
    use crate::compile;
    use ir::{Attrs, DType, Evaluate, Feeds, Graph, Reference, Tensor, Value, ValueId, ValueType};
    use kernels::Serial;
    use proptest::prelude::*;

    fn op(name: &str) -> &'static dyn ir::Operator {
        ops::standard(name).unwrap()
    }

    /// Runs both engines; nothing may fall back to the reference semantics.
    fn agree(g: &mut Graph, inputs: &[Tensor]) {
        ir::infer(g).unwrap();
        let p = compile(g).unwrap();
        let values: Vec<Value> = inputs.iter().cloned().map(Value::Tensor).collect();
        let ours = p.run(&values, &Serial).unwrap();
        let feeds: Feeds =
            g.inputs().iter().zip(values).map(|(&v, x)| (g.value_name(v).to_string(), x)).collect();
        assert_eq!(ours, Reference.run(g, &feeds, &[]).unwrap().outputs);
        assert!(p.steps().iter().all(|s| s.kind != "reference"), "{:?}", p.steps());
    }

    fn input(g: &mut Graph, name: &str, t: &Tensor) -> ValueId {
        g.add_input(name, ValueType::of(t))
    }

    #[test]
    fn integers_never_trap_and_casts_saturate() {
        let mut g = Graph::new("g");
        let a = Tensor::new(&[2, 3], vec![5i64, -7, 3, i64::MIN, 9, 2]).unwrap();
        let b = Tensor::vector(vec![-1i64, 0, 2]);
        let f = Tensor::vector(vec![1e20f32, -1.5, f32::NAN]);
        let (x, y, z) = (input(&mut g, "a", &a), input(&mut g, "b", &b), input(&mut g, "f", &f));
        let d = g.apply("d", op("Div"), Attrs::new(), &[x, y]);
        let lt = g.apply("lt", op("Less"), Attrs::new(), &[d, y]);
        let s = g.apply("s", op("Where"), Attrs::new(), &[lt, x, d]);
        let to = |t: i64| Attrs::new().with("to", t);
        let i32s = g.apply("i", op("Cast"), to(6), &[s]);
        let wide = g.apply("w", op("Cast"), to(7), &[z]);
        let bytes = g.apply("u", op("Cast"), to(2), &[x]);
        for (n, v) in [("d", d), ("lt", lt), ("i", i32s), ("w", wide), ("u", bytes)] {
            g.add_output(n, v);
        }
        agree(&mut g, &[a, b, f]);
    }

    #[test]
    fn a_one_hot_row_is_one_loop() {
        let mut g = Graph::new("g");
        let x = Tensor::new(&[5, 1], vec![0i32, 3, 1, 2, 9]).unwrap();
        let v = input(&mut g, "x", &x);
        let all = g.add_initializer("all", Tensor::new(&[1, 4], vec![0i32, 1, 2, 3]).unwrap());
        let e = g.apply("e", op("Equal"), Attrs::new(), &[v, all]);
        let y = g.apply("y", op("Cast"), Attrs::new().with("to", 1i64), &[e]);
        g.add_output("y", y);
        ir::infer(&mut g).unwrap();
        assert_eq!(compile(&g).unwrap().steps().len(), 1);
        agree(&mut g, &[x]);
    }

    /// `n` numbers of a type, its extremes and, of floats, infinities and NaN among them.
    fn numbers(dtype: DType, shape: &[usize], seed: usize) -> Tensor {
        let n: usize = shape.iter().product();
        let float = |i: usize| match (i + seed) % 37 {
            1 => f64::NAN,
            5 => f64::INFINITY,
            9 => f64::NEG_INFINITY,
            11 => -0.0,
            13 => 2147483648.0,
            17 => -2147483648.0,
            19 => 3e9,
            23 => -1e20,
            k => (k * 7919 % 613) as f64 / 4.0 - 70.0,
        };
        let integer = |i: usize| match (i + seed) % 41 {
            3 => i64::MIN,
            7 => i64::MAX,
            11 => i64::from(i32::MIN),
            13 => i64::from(u32::MAX),
            k => (k * 7919 % 613) as i64 - 300,
        };
        let near = |i: usize| ((i + seed) * 7919 % 613) as i64 - 300;
        macro_rules! of {
            ($f:expr) => {
                Tensor::new(shape, (0..n).map($f).collect::<Vec<_>>()).unwrap()
            };
        }
        match dtype {
            DType::F32 => of!(|i| float(i) as f32),
            DType::F64 => of!(float),
            DType::I8 => of!(|i| integer(i) as i8),
            DType::U8 => of!(|i| integer(i) as u8),
            DType::I16 => of!(|i| integer(i) as i16),
            DType::U16 => of!(|i| integer(i) as u16),
            DType::I32 => of!(|i| integer(i) as i32),
            DType::U32 => of!(|i| integer(i) as u32),
            DType::Bool => of!(|i| (i + seed) % 5 < 2),
            // The second block on has nothing that is no int32.
            _ => of!(|i| if i < 16 { integer(i) } else { near(i) }),
        }
    }

    const TYPES: [DType; 10] = [
        DType::F32,
        DType::F64,
        DType::I8,
        DType::U8,
        DType::I16,
        DType::U16,
        DType::I32,
        DType::U32,
        DType::I64,
        DType::Bool,
    ];

    /// Shapes whose rows are blocks of sixteen, with a rest and without, and how the second operand repeats.
    const SHAPES: [(&[usize], &[usize]); 7] = [
        (&[77], &[77]),
        (&[2, 333], &[333]),
        (&[5, 48], &[5, 1]),
        (&[5, 35], &[35]),
        (&[3, 4, 33], &[3, 1, 33]),
        (&[2, 40], &[]),
        (&[0, 40], &[40]),
    ];

    #[test]
    fn blocks_of_every_type_agree() {
        for (shape, other) in SHAPES {
            for d in TYPES {
                let (a, b) = (numbers(d, shape, 0), numbers(d, other, 3));
                let mut g = Graph::new("g");
                let (x, y) = (input(&mut g, "a", &a), input(&mut g, "b", &b));
                let compares = ["Greater", "GreaterOrEqual", "Less", "LessOrEqual"];
                let numeric = ["Add", "Sub", "Mul", "Min", "Max"];
                let names: Vec<&str> = match d {
                    DType::Bool => vec!["And", "Or", "Xor", "Equal"],
                    _ => compares.into_iter().chain(numeric).chain(["Equal"]).collect(),
                };
                for name in names {
                    let v = g.apply(name, op(name), Attrs::new(), &[x, y]);
                    g.add_output(name, v);
                }
                let unary = match d {
                    DType::Bool => vec!["Not"],
                    DType::F32 => vec!["IsNaN", "IsInf"],
                    DType::F64 => vec!["IsNaN", "IsInf", "Neg", "Abs", "Floor", "Round", "Reciprocal"],
                    d if d.is_signed_int() => vec!["Neg", "Abs", "BitwiseNot"],
                    _ => vec!["BitwiseNot"],
                };
                for name in unary {
                    let v = g.apply(name, op(name), Attrs::new(), &[x]);
                    g.add_output(name, v);
                }
                agree(&mut g, &[a, b]);
            }
        }
    }

    #[test]
    fn blocks_of_every_conversion_agree() {
        for n in [16usize, 64, 83, 300] {
            for d in TYPES {
                let a = numbers(d, &[n], 0);
                let mut g = Graph::new("g");
                let x = input(&mut g, "a", &a);
                for to in TYPES.iter().filter(|&&t| t != d) {
                    let v = g.apply("", op("Cast"), Attrs::new().with("to", i64::from(to.onnx())), &[x]);
                    let name = format!("{to}");
                    g.add_output(&name, v);
                }
                agree(&mut g, &[a]);
            }
        }
    }

    #[test]
    fn masks_meet_values_of_any_size() {
        for (shape, other) in SHAPES {
            for d in TYPES {
                let (a, b) = (numbers(d, shape, 0), numbers(d, other, 3));
                let (c, f) = (numbers(DType::Bool, other, 1), numbers(DType::F32, shape, 2));
                let mut g = Graph::new("g");
                let (x, y) = (input(&mut g, "a", &a), input(&mut g, "b", &b));
                let (p, z) = (input(&mut g, "c", &c), input(&mut g, "f", &f));
                let zero = g.add_initializer("0", Tensor::scalar(0.25f32));
                let positive = g.apply("", op("Greater"), Attrs::new(), &[z, zero]);
                let same = g.apply("", op("Equal"), Attrs::new(), &[x, y]);
                let not = g.apply("", op("Not"), Attrs::new(), &[same]);
                let either = g.apply("", op("Xor"), Attrs::new(), &[positive, not]);
                let both = g.apply("", op("And"), Attrs::new(), &[either, p]);
                let v = g.apply("", op("Where"), Attrs::new(), &[both, x, y]);
                let halves = g.apply("", op("Cast"), Attrs::new().with("to", 1i64), &[both]);
                let kept = g.apply("", op("Where"), Attrs::new(), &[p, x, y]);
                for (name, v) in [("v", v), ("n", halves), ("k", kept)] {
                    g.add_output(name, v);
                }
                agree(&mut g, &[a, b, c, f]);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn chains_over_broadcast_shapes_agree(
            dims in prop::collection::vec((prop_oneof![4 => 1usize..9, 1 => 30usize..70], 0..3usize), 0..4),
            chain in prop::collection::vec(0usize..6, 1..6),
        ) {
            let side = |k| dims.iter().map(|&(n, one)| if one == k { 1 } else { n }).collect::<Vec<usize>>();
            let tensor = |s: &[usize], m: i64| {
                let n: usize = s.iter().product();
                Tensor::new(s, (0..n as i64).map(|i| i * m % 7 - 3).collect()).unwrap()
            };
            let (a, b) = (tensor(&side(1), 5), tensor(&side(2), 3));
            let mut g = Graph::new("g");
            let (x, y) = (input(&mut g, "a", &a), input(&mut g, "b", &b));
            let mut v = g.apply("s", op("Add"), Attrs::new(), &[x, y]);
            for o in chain {
                v = match o {
                    0 => g.apply("", op("Mul"), Attrs::new(), &[v, y]),
                    1 => g.apply("", op("Sub"), Attrs::new(), &[x, v]),
                    2 => g.apply("", op("Div"), Attrs::new(), &[v, y]),
                    3 => g.apply("", op("Neg"), Attrs::new(), &[v]),
                    4 => g.apply("", op("Abs"), Attrs::new(), &[v]),
                    _ => {
                        let c = g.apply("", op("GreaterOrEqual"), Attrs::new(), &[v, x]);
                        g.apply("", op("Where"), Attrs::new(), &[c, v, y])
                    }
                };
            }
            g.add_output("y", v);
            agree(&mut g, &[a, b]);
        }
    }
}
