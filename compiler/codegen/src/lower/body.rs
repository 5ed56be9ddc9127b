//! Bodies of loops and branches as programs of their own, for the types that follow from those around them.
//!
//! Which types a body is compiled for depends on the graph alone, never on what a run met first: so a run does not
//! depend on those before it. What is of another type by then, the reference walk takes.

use crate::program::Program;
use crate::{Precision, compile_with};
use ir::{DType, Def, Graph, Node, Result, Tensor, Value, ValueType};
use kernels::{Pool, Tier};
use std::sync::OnceLock;

/// Iterations of inference until the types of what a loop carries must be stable.
const ROUNDS: usize = 4;

/// A subgraph of a node that may become a program when it first runs.
pub struct Body {
    graph: Graph,
    inputs: Vec<ValueType>,
    captures: Vec<(ValueType, Option<Tensor>)>,
    program: OnceLock<Option<Compiled>>,
}

struct Compiled {
    program: Program,
    /// For each output: the input it is, or its place among the program's.
    outputs: Vec<Passed>,
    /// Elements that steps on memory read and write: a loop may run them very often.
    work: usize,
}

enum Passed {
    Input(usize),
    Output(usize),
}

/// A body for each subgraph of `node`, in the order of [`ir::Attrs::graphs`].
pub fn of(graph: &Graph, node: &Node) -> Vec<Option<Body>> {
    let ty = |v: &ir::ValueId| settled(graph.ty(*v));
    let captures: Vec<_> = node.captures().iter().map(|v| (ty(v), graph.constant(*v).cloned())).collect();
    let given: Vec<Option<ValueType>> = node.inputs().iter().map(|v| v.as_ref().map(ty)).collect();
    let graphs = node.attrs.graphs().into_iter();
    graphs.map(|g| body(g, node, &given, &captures)).collect()
}

fn body(
    g: &Graph,
    node: &Node,
    given: &[Option<ValueType>],
    captures: &[(ValueType, Option<Tensor>)],
) -> Option<Body> {
    let entry = |t: &ValueType| match t.concrete() {
        Some(s) if !s.is_empty() => t.dtype().map_or(ValueType::Unknown, |d| ValueType::known(d, &s[1..])),
        _ => settled(t),
    };
    // What the body takes at first, and which outputs become which inputs of the next iteration.
    let (first, from, to, carried) = match node.op.name() {
        "If" => (Vec::new(), 0, 0, 0),
        "Loop" => {
            let counters = [ValueType::known(DType::I64, &[]), ValueType::known(DType::Bool, &[])];
            let states = given.get(2..)?.iter().cloned().collect::<Option<Vec<_>>>()?;
            let carried = states.len();
            (counters.into_iter().chain(states).collect(), 1, 2, carried)
        }
        "Scan" => {
            let scans = usize::try_from(node.attrs.require_int("num_scan_inputs").ok()?).ok()?;
            let states = given.len().checked_sub(scans)?;
            let along = node.attrs.ints("scan_input_axes").ok()?.unwrap_or(&[]).iter().all(|&a| a == 0);
            let all = given.iter().cloned().collect::<Option<Vec<_>>>()?;
            let enter = |(i, t): (usize, &ValueType)| if i < states || !along { t.clone() } else { entry(t) };
            (all.iter().enumerate().map(enter).collect::<Vec<_>>(), 0, 0, states)
        }
        _ => return None,
    };
    if first.len() != g.inputs().len() || first.iter().chain(captures.iter().map(|c| &c.0)).any(foreign) {
        return None;
    }
    let mut types: Vec<ValueType> = first;
    let mut stable = carried == 0;
    for _ in 0..ROUNDS {
        let g = alone(g, &types, captures).ok()?;
        let results = g.outputs().iter().skip(from).take(carried).map(|o| g.ty(o.value));
        let mut next = types.clone();
        next.iter_mut().skip(to).zip(results).for_each(|(t, r)| *t = settled(&t.join(r)));
        stable = next == types;
        types = next;
        if stable {
            break;
        }
    }
    if !stable {
        let loose = |t: &mut ValueType| *t = t.dtype().map_or(ValueType::Unknown, ValueType::unranked);
        types.iter_mut().skip(to).take(carried).for_each(loose);
    }
    if types.iter().any(foreign) {
        return None;
    }
    Some(Body { graph: g.clone(), inputs: types, captures: captures.to_vec(), program: OnceLock::new() })
}

/// A type whose shape is known, or nothing of it.
fn settled(t: &ValueType) -> ValueType {
    match (t.concrete(), t.dtype()) {
        (None, Some(d)) if matches!(t, ValueType::Tensor(_)) => ValueType::unranked(d),
        _ => t.clone(),
    }
}

fn foreign(t: &ValueType) -> bool {
    !matches!(t, ValueType::Tensor(_))
}

/// The body as a graph that captures nothing: what it read from around it are initializers and further inputs.
fn alone(g: &Graph, inputs: &[ValueType], captures: &[(ValueType, Option<Tensor>)]) -> Result<Graph> {
    let mut g = g.clone();
    ir::forget_shapes(&mut g);
    for (i, t) in inputs.iter().enumerate() {
        g.set_type(g.inputs()[i], t.clone());
    }
    let known: Vec<_> = captures
        .iter()
        .map(|(t, c)| match c {
            Some(c) => g.add_initializer("captured", c.clone()),
            None => g.add_input("captured", t.clone()),
        })
        .collect();
    for v in g.values().collect::<Vec<_>>() {
        if let Def::Capture(i) = *g.def(v)
            && let Some(&k) = known.get(i)
        {
            g.replace_uses(v, k);
        }
    }
    ir::infer(&mut g)?;
    Ok(g)
}

impl Body {
    fn compiled(&self, tier: Tier, precision: Precision) -> Result<Compiled> {
        let mut g = alone(&self.graph, &self.inputs, &self.captures)?;
        let taken = g.inputs()[..self.inputs.len()].to_vec();
        let (mut outputs, mut kept) = (Vec::new(), Vec::new());
        for o in g.outputs().to_vec() {
            match taken.iter().position(|&v| v == o.value) {
                Some(i) => outputs.push(Passed::Input(i)),
                None => {
                    outputs.push(Passed::Output(kept.len()));
                    kept.push(o);
                }
            }
        }
        g.set_outputs(kept);
        g.prune();
        let program = compile_with(&g, tier, precision)?;
        let work = program.steps().iter().map(|s| (s.bytes + s.constant_bytes) as usize / 4).sum();
        Ok(Compiled { program, outputs, work })
    }

    /// Runs the program, if there is one and it was compiled for such values.
    fn run(
        &self,
        inputs: &[Value],
        captures: &[Value],
        tier: Tier,
        precision: Precision,
        pool: &dyn Pool,
    ) -> Option<Vec<Value>> {
        let fits = |(v, t): (&Value, &ValueType)| {
            let Value::Tensor(v) = v else { return false };
            t.dtype() == Some(v.dtype()) && t.concrete().is_none_or(|s| s.as_slice() == v.shape())
        };
        let types = self.captures.iter().map(|c| &c.0);
        if inputs.len() != self.inputs.len()
            || captures.len() != self.captures.len()
            || !inputs.iter().zip(&self.inputs).all(fits)
            || !captures.iter().zip(types).all(fits)
        {
            return None;
        }
        let c = self.program.get_or_init(|| self.compiled(tier, precision).ok()).as_ref()?;
        let open = captures.iter().zip(&self.captures).filter(|(_, (_, c))| c.is_none()).map(|(v, _)| v);
        let all: Vec<Value> = inputs.iter().chain(open).cloned().collect();
        ir::budget::add_work(c.work);
        let results = c.program.run(&all, pool).ok()?;
        let passed = |p: &Passed| match *p {
            Passed::Input(i) => inputs.get(i).cloned(),
            Passed::Output(i) => results.get(i).cloned(),
        };
        c.outputs.iter().map(passed).collect()
    }
}

/// One run of a subgraph: by its program, or by reference, which also tells what is wrong with the values.
pub fn run(
    body: Option<&Body>,
    g: &Graph,
    inputs: Vec<Value>,
    captures: &[Value],
    how: (Tier, Precision),
    pool: &dyn Pool,
) -> Result<Vec<Value>> {
    match body.and_then(|b| b.run(&inputs, captures, how.0, how.1, pool)) {
        Some(results) => Ok(results),
        None => ir::run_subgraph(g, inputs, captures),
    }
}

#[cfg(test)]
mod tests {
    use crate::compile;
    use ir::{Attrs, DType, Graph, Tensor, Value, ValueType};

    fn op(name: &str) -> &'static dyn ir::Operator {
        ops::standard(name).unwrap()
    }

    /// Of `n` iterations: h ← tanh(h · W), and all h under each other, which grows.
    fn recurrent(n: i64) -> Graph {
        let mut b = Graph::new("body");
        b.add_input("i", ValueType::known(DType::I64, &[]));
        let go = b.add_input("go", ValueType::known(DType::Bool, &[]));
        let h = b.add_input("h", ValueType::Unknown);
        let all = b.add_input("all", ValueType::Unknown);
        let kept = b.add_input("kept", ValueType::Unknown);
        let w = b.add_capture("w", ValueType::known(DType::F32, &[4, 4]), 0);
        let x = b.apply("", op("MatMul"), Attrs::new(), &[h, w]);
        let new = b.apply("", op("Tanh"), Attrs::new(), &[x]);
        let more = b.apply("", op("Concat"), Attrs::new().with("axis", 0), &[all, new]);
        for (name, v) in [("go", go), ("h", new), ("all", more), ("kept", kept)] {
            b.add_output(name, v);
        }
        let mut g = Graph::new("g");
        g.meta.opset = 21;
        let h = g.add_input("h", ValueType::known(DType::F32, &[1, 4]));
        let w =
            g.add_initializer("w", Tensor::new(&[4, 4], (0..16).map(|i| i as f32 / 16.0).collect()).unwrap());
        let n = g.add_initializer("n", Tensor::scalar(n));
        let yes = g.add_initializer("yes", Tensor::scalar(true));
        let operator = op("Loop");
        let inputs = [n, yes, h, h, w].map(Some);
        let id = g.add_node(
            "loop",
            operator,
            Attrs::new().with("body", ir::Attr::Graph(Box::new(b))),
            &inputs,
            &["last", "all", "kept"],
        );
        g.set_captures(id, &[w]);
        let outs: Vec<_> = g.node(id).unwrap().outputs().iter().flatten().copied().collect();
        outs.iter().enumerate().for_each(|(i, &v)| g.add_output(&format!("y{i}"), v));
        ir::infer(&mut g).unwrap();
        g
    }

    #[test]
    fn a_loop_gives_what_the_reference_does() {
        for n in [0, 1, 5] {
            let g = recurrent(n);
            let x: Value = Tensor::new(&[1, 4], vec![0.5f32, -1.0, 2.0, 0.25]).unwrap().into();
            let got = compile(&g).unwrap().run(std::slice::from_ref(&x), &kernels::Serial).unwrap();
            let feeds = ir::Feeds::from([("h".to_string(), x)]);
            let want = ir::Evaluate::run(&ir::Reference, &g, &feeds, &[]).unwrap().outputs;
            for (a, b) in got.iter().zip(&want) {
                let (a, b) = (a.tensor().unwrap(), b.tensor().unwrap());
                assert_eq!(a.shape(), b.shape());
                let pairs = a.to_f32s().unwrap().into_iter().zip(b.to_f32s().unwrap());
                assert!(pairs.into_iter().all(|(a, b)| (a - b).abs() <= 1e-6), "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn a_body_is_compiled_for_what_is_stable() {
        let g = recurrent(5);
        let (_, node) = g.nodes().find(|(_, n)| n.is("Loop")).unwrap();
        let bodies = super::of(&g, node);
        let types: Vec<_> = bodies[0].as_ref().unwrap().inputs.iter().map(|t| t.concrete()).collect();
        assert_eq!(types[2].as_deref(), Some(&[1, 4][..]));
        assert_eq!(types[3], None);
        assert!(
            bodies[0].as_ref().unwrap().compiled(kernels::Tier::best(), crate::Precision::default()).is_ok()
        );
    }
}
