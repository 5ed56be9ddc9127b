//! Models with half-float weights, run in float32: their contractions have kernels there, and what lies between them rounds
//! once, at the borders of the model, instead of after each operator. In other models each element-wise operator of half
//! floats computes in float32 and rounds, as its meaning says.

use ir::DType::{BF16, F16, F32};
use ir::{Attr, Attrs, DType, Graph, Kind, Node, Result, Use, ValueId, ValueType};
use std::collections::BTreeMap;

/// Attributes that name an element type.
const TYPE_ATTRS: &[&str] = &["to", "dtype", "output_dtype", "softmax_precision", "stash_type"];

fn half(d: Option<DType>) -> bool {
    matches!(d, Some(F16 | BF16))
}

/// The same model in float32 between inputs and outputs of the types it had; or, when it contracts no half-float weights
/// or holds what cannot change its type, with its element-wise operators in float32. `None` when there are none of them.
pub fn widen(graph: &Graph) -> Result<Option<Graph>> {
    if !graph.nodes().any(|(_, n)| contracts(graph, n)) || !graph.nodes().all(|(_, n)| changes(graph, n)) {
        return one_by_one(graph);
    }
    let cast = ops::standard("Cast")?;
    let mut g = graph.clone();
    let borders: Vec<Option<DType>> = g.outputs().iter().map(|o| g.dtype(o.value)).collect();
    let computed: Vec<ValueId> = g.nodes().flat_map(|(_, n)| n.outputs().to_vec()).flatten().collect();
    for v in g.inputs().to_vec() {
        if half(g.dtype(v)) {
            let uses = g.uses(v);
            let wide = g.apply("wide", cast, to(F32), &[v]);
            for u in uses {
                match u {
                    Use::Input(n, i) => g.set_input(n, i, Some(wide)),
                    Use::Output(i) => g.set_output(i, wide),
                    Use::Capture(..) => {}
                }
            }
        }
    }
    let weights: Vec<ValueId> =
        g.initializers().filter(|(_, t)| half(Some(t.dtype()))).map(|(v, _)| v).collect();
    for v in weights {
        if let Some(t) = g.constant(v) {
            let t = ops::cast::cast(t, F32, true)?;
            g.set_constant(v, t);
        }
    }
    let nodes: Vec<_> = g.nodes().map(|(id, _)| id).collect();
    for id in nodes {
        let (_, attrs) = g.node_mut(id)?;
        for (name, a) in attrs.iter_mut() {
            match a {
                Attr::Tensor(t) if half(Some(t.dtype())) => *t = ops::cast::cast(t, F32, true)?,
                Attr::Int(n) if TYPE_ATTRS.contains(&name) && half(dtype(*n)) => *n = i64::from(F32.onnx()),
                _ => {}
            }
        }
    }
    computed.into_iter().for_each(|v| g.set_type(v, ValueType::Unknown));
    for (i, d) in borders.into_iter().enumerate() {
        if let Some(d) = d.filter(|&d| half(Some(d))) {
            let wide = g.outputs()[i].value;
            let narrow = g.apply("narrow", cast, to(d), &[wide]);
            g.set_output(i, narrow);
        }
    }
    ir::infer(&mut g)?;
    Ok(Some(g))
}

fn to(d: DType) -> Attrs {
    Attrs::new().with("to", i64::from(d.onnx()))
}

/// Element-wise operators of half floats in float32, each between casts that give the bits it had.
fn one_by_one(graph: &Graph) -> Result<Option<Graph>> {
    let nodes: Vec<_> = graph.nodes().filter(|(_, n)| rounds_once(graph, n)).map(|(id, _)| id).collect();
    if nodes.is_empty() {
        return Ok(None);
    }
    let cast = ops::standard("Cast")?;
    let mut g = graph.clone();
    let mut wide: BTreeMap<ValueId, ValueId> = BTreeMap::new();
    for id in nodes {
        let was = graph.node(id)?;
        let inputs = g.node(id)?.inputs().to_vec();
        for (i, (now, before)) in inputs.into_iter().zip(was.inputs()).enumerate() {
            let (Some(v), true) = (now, before.is_some_and(|v| half(graph.dtype(v)))) else { continue };
            let w = match (wide.get(&v), g.constant(v)) {
                (Some(&w), _) => w,
                (None, Some(t)) => {
                    let t = ops::cast::cast(t, F32, true)?;
                    g.add_initializer("wide", t)
                }
                (None, None) => g.apply("wide", cast, to(F32), &[v]),
            };
            wide.insert(v, w);
            g.set_input(id, i, Some(w));
        }
        let Some(v) = was.output(0) else { continue };
        if let Some(d) = graph.dtype(v).filter(|&d| half(Some(d))) {
            let uses = g.uses(v);
            g.set_type(v, ValueType::Unknown);
            let narrow = g.apply("narrow", cast, to(d), &[v]);
            for u in uses {
                match u {
                    Use::Input(n, i) => g.set_input(n, i, Some(narrow)),
                    Use::Output(i) => g.set_output(i, narrow),
                    Use::Capture(..) => {}
                }
            }
        }
    }
    ir::infer(&mut g)?;
    Ok(Some(g))
}

/// An element-wise operator that computes in float32 what it reads of one type of half floats, and rounds the result.
fn rounds_once(graph: &Graph, n: &Node) -> bool {
    if !matches!(n.op.kind(&n.attrs), Kind::Elementwise(_))
        || !n.op.domain().is_empty()
        || n.outputs().len() != 1
    {
        return false;
    }
    // Casts are exact or round by themselves; sums round after each addend.
    if ["Cast", "CastLike", "Mean"].iter().any(|op| n.is(op)) || (n.is("Sum") && n.inputs().len() > 2) {
        return false;
    }
    let types: Vec<Option<DType>> = n.inputs().iter().flatten().map(|&v| graph.dtype(v)).collect();
    let Some(&first) = types.iter().find(|&&d| half(d)) else { return false };
    let (Some(y), true) = (n.output(0), types.iter().all(|&d| d == first || d == Some(DType::Bool))) else {
        return false;
    };
    let captured = || graph.uses(y).iter().any(|u| matches!(u, Use::Capture(..)));
    (graph.dtype(y) == first || graph.dtype(y) == Some(DType::Bool)) && !captured()
}

fn dtype(n: i64) -> Option<DType> {
    i32::try_from(n).ok().and_then(DType::from_onnx)
}

/// A contraction of half floats with a weight.
fn contracts(graph: &Graph, n: &Node) -> bool {
    let known = ["Conv", "ConvTranspose", "MatMul", "Gemm"].iter().any(|op| n.is(op));
    let stored = |v: ValueId| {
        let made = graph.producer(v).and_then(|p| graph.get(p));
        graph.constant(v).is_some() || made.is_some_and(|p| p.is("DequantizeLinear") || p.is("Transpose"))
    };
    known && half(n.output(0).and_then(|v| graph.dtype(v))) && n.input(1).is_some_and(stored)
}

/// True when the node means the same in another float type: tensors in, tensors out, no bits looked at.
fn changes(graph: &Graph, n: &Node) -> bool {
    let tensors = |v: &Option<ValueId>| {
        v.is_none_or(|v| matches!(graph.ty(v), ValueType::Tensor(_))) // unknown types hide sequences
    };
    n.attrs.graphs().is_empty()
        && !n.is("BitCast")
        && n.attrs.iter().all(|(_, a)| !matches!(a, Attr::Type(_) | Attr::Types(_)))
        && n.inputs().iter().chain(n.outputs()).all(tensors)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ir::{Evaluate, Feeds, Reference, Tensor};

    /// y = x·w·3/3 in float16, z = x·w in float32.
    fn model() -> Graph {
        let mut g = Graph::new("g");
        g.meta.opset = 21;
        let half = |shape: &[usize], v: &[f32]| Tensor::from_f32s(F16, shape, v.to_vec()).unwrap();
        let x = g.add_input("x", ValueType::known(F16, &[2, 2]));
        let w = g.add_initializer("w", half(&[2, 2], &[1.0, 0.1, 0.2, 1.0]));
        let c = g.add_initializer("c", half(&[], &[3.0]));
        let op = |name: &str| ops::standard(name).unwrap();
        let p = g.apply("p", op("MatMul"), Attrs::new(), &[x, w]);
        let q = g.apply("q", op("Mul"), Attrs::new(), &[p, c]);
        let y = g.apply("y", op("Div"), Attrs::new(), &[q, c]);
        let z = g.apply("z", op("Cast"), Attrs::new().with("to", 1), &[p]);
        g.add_output("y", y);
        g.add_output("z", z);
        ir::infer(&mut g).unwrap();
        g
    }

    #[test]
    fn half_float_models_round_at_their_borders_only() {
        let g = model();
        let wide = widen(&g).unwrap().unwrap();
        ir::verify(&wide).unwrap();
        assert_eq!(wide.dtype(wide.inputs()[0]), Some(F16));
        assert_eq!(wide.dtype(wide.outputs()[0].value), Some(F16));
        let halves = wide.values().filter(|&v| half(wide.dtype(v))).count();
        assert_eq!(halves, 2, "the input and the output");
        let x = Tensor::from_f32s(F16, &[2, 2], vec![0.3, 0.7, 1.1, 2.3]).unwrap();
        let feeds = Feeds::from([("x".to_string(), x.into())]);
        let run = |g: &Graph| Reference.run(g, &feeds, &[]).unwrap().outputs;
        for (a, b) in run(&g).iter().zip(run(&wide)) {
            let (a, b) = (a.tensor().unwrap(), b.tensor().unwrap());
            assert_eq!(a.dtype(), b.dtype());
            for (p, q) in a.to_f32s().unwrap().iter().zip(b.to_f32s().unwrap()) {
                assert!((p - q).abs() <= 2e-3 * p.abs(), "{p} {q}");
            }
        }
    }

    #[test]
    fn other_models_keep_every_bit() {
        let source = "g (float16[5] x, float16[5] z, bool[5] c) => (float16[5] w, bool[5] b) {
            s = Add (x, z) p = Mul (s, x) q = Where (c, p, s) b = Greater (q, z) r = Sqrt (q) w = Add (r, s) }";
        let mut g = ir::text::parse(source, &ops::Standard).unwrap();
        ir::infer(&mut g).unwrap();
        let wide = widen(&g).unwrap().unwrap();
        ir::verify(&wide).unwrap();
        let halves = |g: &Graph| g.nodes().filter(|(_, n)| rounds_once(g, n)).count();
        assert_eq!((halves(&g), halves(&wide)), (6, 0));
        let half = |v: [f32; 5]| Tensor::from_f32s(F16, &[5], v.to_vec()).unwrap();
        let feeds = Feeds::from([
            ("x".to_string(), half([0.3, 6e4, 1e-7, f32::NAN, -1.1]).into()),
            ("z".to_string(), half([1.7, 6e4, 3e-8, 1.0, f32::INFINITY]).into()),
            ("c".to_string(), Tensor::vector(vec![true, false, true, true, false]).into()),
        ]);
        let run = |g: &Graph| Reference.run(g, &feeds, &[]).unwrap().outputs;
        for (a, b) in run(&g).iter().zip(run(&wide)) {
            assert_eq!(a.tensor().unwrap().bytes(), b.tensor().unwrap().bytes());
        }
    }

    #[test]
    fn what_rounds_between_stays_as_it_is() {
        for body in ["y = Softmax (x)", "y = Sum (x, x, x)", "y = Mean (x, x)", "y = Cast <to = 10> (x)"] {
            let source = format!("g (float16[2] x) => (float16[2] y) {{ {body} }}");
            let mut g = ir::text::parse(&source, &ops::Standard).unwrap();
            ir::infer(&mut g).unwrap();
            assert!(widen(&g).unwrap().is_none(), "{body}");
        }
    }
}
