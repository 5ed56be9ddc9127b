//! Every rule has an instance here: a graph with random shapes and values on which it fires. After saturation each e-node
//! of each class must evaluate to the class's value in the reference semantics.

mod attention;
mod einsum;
mod epilogue;
mod lookup;
mod recognise;
mod statistics;
mod unit_dims;

use crate::facts::{Egraph, attrs_of, is_absent, operator};
use crate::language::Symbol;
use crate::{Rule, convert, rules, saturate};
use egg::Id;
use ir::{Attrs, DType, Error, EvalCx, Graph, Tensor, Value, ValueId, ValueType};
use proptest::test_runner::{RngAlgorithm, TestRng};
use rand_core::Draw;
use std::collections::{BTreeMap, BTreeSet};

/// Draws from proptest's generator without its strategies.
mod rand_core {
    use proptest::prelude::Rng;
    pub trait Draw {
        fn below(&mut self, n: usize) -> usize;
        fn uniform(&mut self) -> f32;
    }
    impl<R: Rng> Draw for R {
        fn below(&mut self, n: usize) -> usize {
            self.next_u32() as usize % n
        }
        fn uniform(&mut self) -> f32 {
            (self.next_u32() >> 8) as f32 / (1 << 24) as f32
        }
    }
}

mod quantized;

struct B {
    g: Graph,
    rng: TestRng,
}

impl B {
    fn dim(&mut self) -> usize {
        2 + self.rng.below(4)
    }
    fn random(&mut self, shape: &[usize], lo: f32, hi: f32) -> Tensor {
        let n = shape.iter().product();
        let data = (0..n).map(|_| lo + (hi - lo) * self.rng.uniform()).collect();
        Tensor::new(shape, data).unwrap()
    }
    fn input(&mut self, shape: &[usize]) -> ValueId {
        self.g.add_input("x", ValueType::known(DType::F32, shape))
    }
    fn weight(&mut self, shape: &[usize]) -> ValueId {
        let t = self.random(shape, -1.0, 1.0);
        self.g.add_initializer("w", t)
    }
    fn positive(&mut self, shape: &[usize]) -> ValueId {
        let t = self.random(shape, 0.5, 2.0);
        self.g.add_initializer("p", t)
    }
    fn scalar(&mut self, v: f32) -> ValueId {
        self.g.add_initializer("c", Tensor::scalar(v))
    }
    fn ints(&mut self, v: &[i64]) -> ValueId {
        self.g.add_initializer("i", Tensor::vector(v.to_vec()))
    }
    fn op(&mut self, name: &str, attrs: Attrs, inputs: &[ValueId]) -> ValueId {
        self.g.apply("", ops::standard(name).unwrap(), attrs, inputs)
    }
    fn plain(&mut self, name: &str, inputs: &[ValueId]) -> ValueId {
        self.op(name, Attrs::new(), inputs)
    }
    fn out(&mut self, v: ValueId) {
        let name = format!("y{}", self.g.outputs().len());
        self.g.add_output(&name, v);
    }
    /// A 4-D input and a convolution of it with bias.
    fn conv(&mut self, channels: usize) -> (ValueId, ValueId) {
        let (c, h) = (self.dim(), 4 + self.dim());
        let x = self.input(&[1, c, h, h]);
        let (w, b) = (self.weight(&[channels, c, 3, 3]), self.weight(&[channels]));
        let y = self.op("Conv", Attrs::new().with("pads", vec![1, 0, 1, 0]), &[x, w, b]);
        (x, y)
    }
    fn transposed(&mut self, shape: &[usize], perm: &[i64]) -> ValueId {
        let x = self.input(shape);
        self.op("Transpose", Attrs::new().with("perm", perm.to_vec()), &[x])
    }
}

type Instance = fn(&mut B);

/// Rules and a graph on which all of them fire.
fn instances() -> Vec<(&'static [&'static str], Instance)> {
    let mut all = general();
    all.extend(recognise::instances());
    all.extend(lookup::instances());
    all.extend(statistics::instances());
    all.extend(unit_dims::instances());
    all.extend(attention::instances());
    all.extend(einsum::instances());
    all.extend(quantized::instances());
    all.extend(epilogue::instances());
    all
}

fn general() -> Vec<(&'static [&'static str], Instance)> {
    vec![
        (&["commute-add", "drop-add-zero"], |b| {
            let n = b.dim();
            let (x, c) = (b.input(&[n, 2]), b.scalar(0.0));
            let y = b.plain("Add", &[c, x]);
            b.out(y);
        }),
        (&["commute-mul", "drop-mul-one"], |b| {
            let n = b.dim();
            let (x, c) = (b.input(&[n, 2]), b.scalar(1.0));
            let y = b.plain("Mul", &[c, x]);
            b.out(y);
        }),
        (&["drop-sub-zero", "sub-constant-to-add"], |b| {
            let (x, c) = (b.input(&[3]), b.scalar(0.0));
            let y = b.plain("Sub", &[x, c]);
            b.out(y);
        }),
        (&["drop-div-one", "div-constant-to-mul"], |b| {
            let (x, c) = (b.input(&[3]), b.scalar(1.0));
            let y = b.plain("Div", &[x, c]);
            b.out(y);
        }),
        (&["drop-pow-one"], |b| {
            let (x, c) = (b.input(&[3]), b.scalar(1.0));
            let y = b.plain("Pow", &[x, c]);
            b.out(y);
        }),
        (&["cancel-double-neg"], |b| unary_twice(b, "Neg", "Neg")),
        (&["cancel-double-not"], |b| {
            let (x, c) = (b.input(&[5]), b.scalar(0.1));
            let less = b.plain("Less", &[x, c]);
            let n = b.plain("Not", &[less]);
            let y = b.plain("Not", &[n]);
            b.out(y);
        }),
        (&["merge-double-relu"], |b| unary_twice(b, "Relu", "Relu")),
        (&["drop-abs-of-relu"], |b| unary_twice(b, "Relu", "Abs")),
        (&["merge-constant-adds"], |b| {
            let n = b.dim();
            let (x, c, d) = (b.input(&[2, n]), b.weight(&[n]), b.weight(&[2, n]));
            let y = b.plain("Add", &[x, c]);
            let y = b.plain("Add", &[y, d]);
            b.out(y);
        }),
        (&["merge-constant-muls"], |b| {
            let n = b.dim();
            let (x, c, d) = (b.input(&[2, n]), b.weight(&[n]), b.scalar(3.0));
            let y = b.plain("Mul", &[x, c]);
            let y = b.plain("Mul", &[y, d]);
            b.out(y);
        }),
        (&["distribute-constant-mul"], |b| {
            let n = b.dim();
            let (x, c, d) = (b.input(&[2, n]), b.weight(&[n]), b.weight(&[n]));
            let y = b.plain("Add", &[x, c]);
            let y = b.plain("Mul", &[y, d]);
            b.out(y);
        }),
        (&["square-to-mul"], |b| power(b, 2.0)),
        (&["half-power-to-sqrt"], |b| power(b, 0.5)),
        (&["inverse-power-to-reciprocal"], |b| power(b, -1.0)),
        (&["min-of-max-to-clip"], |b| min_max(b, "Max", "Min", -0.25, 0.5)),
        (&["max-of-min-to-clip"], |b| min_max(b, "Min", "Max", 0.5, -0.25)),
        (&["clip-from-zero-to-relu"], |b| {
            let (x, lo) = (b.input(&[7]), b.scalar(0.0));
            let y = b.plain("Clip", &[x, lo]);
            b.out(y);
        }),
        (&["merge-relu-into-clip"], |b| {
            let (x, lo, hi) = (b.input(&[7]), b.scalar(-1.0), b.scalar(0.5));
            let y = b.plain("Relu", &[x]);
            let y = b.plain("Clip", &[y, lo, hi]);
            b.out(y);
        }),
        (&["merge-clip-into-relu"], |b| {
            let (x, lo, hi) = (b.input(&[7]), b.scalar(-1.0), b.scalar(0.5));
            let y = b.plain("Clip", &[x, lo, hi]);
            let y = b.plain("Relu", &[y]);
            b.out(y);
        }),
        (&["drop-cast-to-same-type"], |b| {
            let x = b.input(&[3]);
            let y = b.op("Cast", Attrs::new().with("to", 1), &[x]);
            b.out(y);
        }),
        (&["fuse-log-softmax"], |b| unary_twice(b, "Softmax", "Log")),
        (&["drop-full-expand"], |b| {
            let n = b.dim();
            let (x, s) = (b.input(&[n, 3]), b.ints(&[1, 3]));
            let y = b.plain("Expand", &[x, s]);
            b.out(y);
        }),
        (&["drop-single-concat"], |b| {
            let x = b.input(&[3]);
            let y = b.op("Concat", Attrs::new().with("axis", 0), &[x]);
            b.out(y);
        }),
        (&["drop-empty-pad"], |b| {
            let (x, p) = (b.input(&[3, 2]), b.ints(&[0, 0, 0, 0]));
            let y = b.plain("Pad", &[x, p]);
            b.out(y);
        }),
        (&["drop-full-slice"], |b| {
            let n = b.dim();
            let (x, s, e) = (b.input(&[n]), b.ints(&[0]), b.ints(&[1000]));
            let y = b.plain("Slice", &[x, s, e]);
            b.out(y);
        }),
        (&["merge-transposes", "drop-identity-transpose"], |b| {
            let (p, q) = (b.dim(), b.dim());
            let x = b.transposed(&[p, q, 3], &[2, 0, 1]);
            let y = b.op("Transpose", Attrs::new().with("perm", vec![1, 2, 0]), &[x]);
            b.out(y);
            let z = b.transposed(&[p, 2], &[0, 1]);
            b.out(z);
        }),
        (&["transpose-before-dims-of-1"], |b| {
            let (m, n) = (b.dim(), b.dim());
            let (x, s) = (b.input(&[1, m, n]), b.ints(&[m as i64, 1, n as i64, 1]));
            let x = b.plain("Reshape", &[x, s]);
            let y = b.op("Transpose", Attrs::new().with("perm", vec![3, 2, 0, 1]), &[x]);
            b.out(y);
        }),
        (&["unit-transpose-to-reshape"], |b| {
            let n = b.dim();
            let y = b.transposed(&[n, 1, 3], &[1, 0, 2]);
            b.out(y);
        }),
        (&["merge-reshapes", "drop-same-reshape"], |b| {
            let n = b.dim();
            let (x, s, t) = (b.input(&[n, 6]), b.ints(&[-1, 2]), b.ints(&[0, 2, 1]));
            let y = b.plain("Reshape", &[x, s]);
            let z = b.plain("Reshape", &[y, t]);
            b.out(z);
            let same = b.ints(&[n as i64, 6]);
            let z = b.plain("Reshape", &[x, same]);
            b.out(z);
        }),
        (&["flatten-to-reshape"], |b| {
            let n = b.dim();
            let x = b.input(&[n, 2, 3]);
            let y = b.op("Flatten", Attrs::new().with("axis", 2), &[x]);
            b.out(y);
        }),
        (&["squeeze-to-reshape", "unsqueeze-to-reshape", "cancel-squeeze-of-unsqueeze"], |b| {
            let n = b.dim();
            let (x, a) = (b.input(&[n, 2]), b.ints(&[1]));
            let y = b.plain("Unsqueeze", &[x, a]);
            let z = b.plain("Squeeze", &[y, a]);
            b.out(z);
        }),
        (&["batch-norm-to-scale-shift", "fold-mul-into-conv", "fold-add-into-conv"], |b| {
            let c = b.dim();
            let (_, y) = b.conv(c);
            let p = [b.weight(&[c]), b.weight(&[c]), b.weight(&[c]), b.positive(&[c])];
            let z = b.op("BatchNormalization", Attrs::new(), &[y, p[0], p[1], p[2], p[3]]);
            b.out(z);
        }),
        (&["fold-mul-into-conv-transpose", "fold-add-into-conv-transpose"], |b| {
            let (c, k) = (b.dim(), b.dim());
            let (x, w) = (b.input(&[1, c, 4, 4]), b.weight(&[c, k, 2, 2]));
            let (s, t) = (b.weight(&[1, k, 1, 1]), b.weight(&[k, 1, 1]));
            let y = b.op("ConvTranspose", Attrs::new().with("strides", vec![2, 2]), &[x, w]);
            let y = b.plain("Mul", &[y, s]);
            let y = b.plain("Add", &[y, t]);
            b.out(y);
        }),
        (&["fold-mul-before-conv"], |b| {
            let c = b.dim();
            let (x, s, w) = (b.input(&[1, c, 5, 5]), b.weight(&[1, c, 1, 1]), b.weight(&[3, c, 3, 3]));
            let y = b.plain("Mul", &[x, s]);
            let y = b.plain("Conv", &[y, w]);
            b.out(y);
        }),
        (&["fold-mul-into-matmul", "fold-mul-before-matmul"], |b| {
            let (k, n) = (b.dim(), b.dim());
            let (x, s, w, t) = (b.input(&[2, 3, k]), b.weight(&[k]), b.weight(&[k, n]), b.weight(&[n]));
            let y = b.plain("Mul", &[x, s]);
            let y = b.plain("MatMul", &[y, w]);
            let y = b.plain("Mul", &[y, t]);
            b.out(y);
        }),
        (&["matmul-add-to-gemm", "fold-add-into-gemm"], |b| {
            let (k, n) = (b.dim(), b.dim());
            let (x, w, t, u) = (b.input(&[3, k]), b.weight(&[k, n]), b.weight(&[n]), b.weight(&[1, n]));
            let y = b.plain("MatMul", &[x, w]);
            let y = b.plain("Add", &[y, t]);
            let y = b.plain("Add", &[y, u]);
            b.out(y);
        }),
        (&["fold-pad-into-conv"], |b| {
            let (x, p, w) =
                (b.input(&[1, 2, 4, 4]), b.ints(&[0, 0, 1, 0, 0, 0, 2, 1]), b.weight(&[3, 2, 3, 3]));
            let y = b.plain("Pad", &[x, p]);
            let y = b.plain("Conv", &[y, w]);
            b.out(y);
        }),
        (&["fold-wide-pad-into-conv", "state-no-pad-behind-wide-pad"], |b| {
            let (x, p, w) =
                (b.input(&[1, 2, 4, 4]), b.ints(&[0, 0, 9, 0, 0, 0, 2, 1]), b.weight(&[3, 2, 3, 3]));
            let y = b.plain("Pad", &[x, p]);
            let y = b.plain("Conv", &[y, w]);
            b.out(y);
        }),
        (&["fold-transpose-into-gemm"], |b| {
            let (k, n) = (b.dim(), b.dim());
            let (x, w) = (b.input(&[3, k]), b.input(&[n, k]));
            let t = b.op("Transpose", Attrs::new().with("perm", vec![1, 0]), &[w]);
            let y = b.plain("Gemm", &[x, t]);
            b.out(y);
        }),
    ]
}

fn unary_twice(b: &mut B, first: &str, second: &str) {
    let n = b.dim();
    let x = b.input(&[n, 3]);
    let y = b.plain(first, &[x]);
    let z = b.plain(second, &[y]);
    b.out(z);
}

fn power(b: &mut B, e: f32) {
    let (x, c) = (b.input(&[6]), b.scalar(e));
    let y = b.plain("Abs", &[x]);
    let y = b.plain("Pow", &[y, c]);
    b.out(y);
}

fn min_max(b: &mut B, first: &str, second: &str, p: f32, q: f32) {
    let (x, c, d) = (b.input(&[9]), b.scalar(p), b.scalar(q));
    let y = b.plain(first, &[x, c]);
    let y = b.plain(second, &[y, d]);
    b.out(y);
}

/// The generated instances of the families of sinking rules.
fn sinking(name: &str) -> Option<Graph> {
    let mut b = new_builder(name.len() as u64);
    let n = b.dim();
    if let Some(op) = name.strip_prefix("sink-transposes-below-") {
        let (x, y) = (b.transposed(&[n, 2, 3], &[2, 0, 1]), b.transposed(&[n, 2, 3], &[2, 0, 1]));
        let z = b.plain(op, &[x, y]);
        b.out(z);
    } else if let Some(op) = name.strip_prefix("sink-transpose-below-constant-") {
        let (x, c) = (b.transposed(&[n, 2, 3], &[2, 0, 1]), b.positive(&[n, 2]));
        let z = b.plain(op, &[x, c]);
        b.out(z);
    } else if let Some(op) = name.strip_prefix("sink-reshapes-below-") {
        let (x, y, s) = (b.input(&[n, 6]), b.input(&[n, 6]), b.ints(&[2, -1, 3]));
        let (x, y) = (b.plain("Exp", &[x]), b.plain("Exp", &[y]));
        let (x, y) = (b.plain("Reshape", &[x, s]), b.plain("Reshape", &[y, s]));
        let z = b.plain(op, &[x, y]);
        b.out(z);
    } else if let Some(op) = name.strip_prefix("sink-depth-to-space-below-constant-") {
        let x = b.input(&[1, 4 * n, 2, 3]);
        for (mode, of) in [("DCR", n), ("CRD", n), ("CRD", 1)] {
            let attrs = Attrs::new().with("blocksize", 2i64).with("mode", mode);
            let c = b.weight(&[of, 1, 1]);
            let y = b.op("DepthToSpace", attrs, &[x]);
            let z = b.plain(op, &[y, c]);
            b.out(z);
        }
    } else if let Some(op) = name.strip_prefix("sink-depth-to-space-below-") {
        let x = b.input(&[1, 4 * n, 2, 3]);
        let x = b.op("DepthToSpace", Attrs::new().with("blocksize", 2i64), &[x]);
        let z = b.plain(op, &[x]);
        b.out(z);
    } else {
        let op = name.strip_prefix("sink-transpose-below-")?;
        let x = b.transposed(&[n, 2, 3], &[2, 0, 1]);
        let attrs = if op == "Cast" { Attrs::new().with("to", 11) } else { Attrs::new() };
        let z = b.op(op, attrs, &[x]);
        b.out(z);
    }
    Some(b.g)
}

fn new_builder(seed: u64) -> B {
    let mut bytes = [7u8; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    B { g: Graph::new("instance"), rng: TestRng::from_seed(RngAlgorithm::ChaCha, &bytes) }
}

fn saturated(graph: &Graph) -> Egraph {
    let mut g = graph.clone();
    ir::infer(&mut g).unwrap();
    let rules: Vec<&'static Rule> = rules().collect();
    let mut egraph = convert::enter(&g, usize::MAX).unwrap().egraph;
    saturate::saturate(&mut egraph, &rules, 12, 20_000).unwrap();
    egraph
}

fn check_sound(egraph: &Egraph, seed: u64) {
    assert!(egraph.analysis.conflicts.is_empty(), "types changed: {:?}", egraph.analysis.conflicts);
    let mut b = new_builder(seed + 1000);
    let mut values: BTreeMap<Id, Tensor> = BTreeMap::new();
    let mut classes: Vec<Id> = egraph.classes().map(|c| c.id).collect();
    classes.sort();
    loop {
        let before = values.len();
        for &c in &classes {
            for n in &egraph[c].nodes {
                let Some(t) = evaluate(egraph, n, &values, &mut b) else { continue };
                match values.get(&c) {
                    None => drop(values.insert(c, t)),
                    Some(v) if n.children.is_empty() && matches!(n.symbol, Symbol::Value(_)) => {
                        drop(v.clone())
                    }
                    Some(v) => assert_close(v, &t, &format!("{n} in class {c}")),
                }
            }
        }
        if values.len() == before {
            return;
        }
    }
}

fn evaluate(
    egraph: &Egraph,
    n: &crate::language::ENode,
    values: &BTreeMap<Id, Tensor>,
    b: &mut B,
) -> Option<Tensor> {
    match &n.symbol {
        Symbol::Tensor(i) => Some(egraph.analysis.tensor(*i).clone()),
        Symbol::Value(i) => {
            let shape = egraph.analysis.values[*i as usize].1.concrete()?;
            Some(b.random(&shape, -2.0, 2.0))
        }
        Symbol::Op(..) => {
            let op = operator(n)?;
            let inputs: Option<Vec<Option<Value>>> = n.children[1..]
                .iter()
                .map(|&c| {
                    let c = egraph.find(c);
                    if is_absent(egraph, c) {
                        Some(None)
                    } else {
                        Some(Some(Value::Tensor(values.get(&c)?.clone())))
                    }
                })
                .collect();
            let attrs = attrs_of(egraph, n)?;
            let none = |_: &Graph, _: Vec<Value>| Err(Error::internal("none"));
            let inputs = inputs?;
            let cx = EvalCx {
                node: "",
                attrs: &attrs,
                inputs: &inputs,
                captures: &[],
                outputs: 1,
                subgraph: &none,
            };
            op.eval(&cx).unwrap_or_else(|e| panic!("{n}: {e}")).into_iter().next()?.tensor().ok().cloned()
        }
        _ => None,
    }
}

fn assert_close(a: &Tensor, b: &Tensor, what: &str) {
    assert_eq!((a.dtype(), a.shape()), (b.dtype(), b.shape()), "{what}");
    for (x, y) in a.to_f64s().unwrap().into_iter().zip(b.to_f64s().unwrap()) {
        let close = (x - y).abs() <= 2e-4 * (1.0 + x.abs()) || (x.is_nan() && y.is_nan()) || x == y;
        assert!(close, "{what}: {x} against {y}");
    }
}

#[test]
fn every_rule_has_a_sound_instance() {
    let mut fired = BTreeSet::new();
    for seed in 0..3 {
        for (i, (names, build)) in instances().into_iter().enumerate() {
            let mut b = new_builder(seed * 100 + i as u64);
            build(&mut b);
            let egraph = saturated(&b.g);
            for n in names {
                assert!(egraph.analysis.fired.contains_key(n), "instance {i} does not fire {n}");
                fired.insert(*n);
            }
            check_sound(&egraph, seed);
        }
    }
    for r in rules() {
        let families = [sinking, epilogue::fusing, lookup::moving, unit_dims::activating];
        if let Some(g) = families.iter().find_map(|family| family(r.name)) {
            let egraph = saturated(&g);
            assert!(egraph.analysis.fired.contains_key(r.name), "{} does not fire", r.name);
            check_sound(&egraph, 5);
            fired.insert(r.name);
        }
    }
    let missing: Vec<&str> = rules().map(|r: &Rule| r.name).filter(|n| !fired.contains(n)).collect();
    assert!(missing.is_empty(), "rules without an instance: {missing:?}");
}

#[test]
fn optimizing_keeps_outputs_and_lowers_node_count() {
    for (i, (names, build)) in instances().into_iter().enumerate() {
        let mut b = new_builder(i as u64);
        build(&mut b);
        let (g, _) =
            crate::optimize(&b.g, crate::Options::RUNTIME).unwrap_or_else(|e| panic!("{names:?}: {e}"));
        ir::verify(&g).unwrap();
        let mut feeds = ir::Feeds::new();
        for &v in b.g.inputs() {
            let shape = b.g.ty(v).concrete().unwrap();
            let t = {
                let n: usize = shape.iter().product();
                Tensor::new(&shape, (0..n).map(|i| (i as f32 * 0.37).sin()).collect()).unwrap()
            };
            feeds.insert(b.g.value_name(v).to_string(), t.into());
        }
        use ir::Evaluate;
        let before = ir::Reference.run(&b.g, &feeds, &[]).unwrap();
        let after = ir::Reference.run(&g, &feeds, &[]).unwrap();
        for (x, y) in before.outputs.iter().zip(&after.outputs) {
            assert_close(x.tensor().unwrap(), y.tensor().unwrap(), &format!("{names:?}"));
        }
        // Operators that have no kernel come apart on purpose.
        let expands = names.iter().any(|n| n.starts_with("expand-"));
        assert!(expands || g.node_count() <= b.g.node_count(), "{names:?} grew");
    }
}

/// Regression: a divisor with zeros or huge elements is not moved into weights, where it would make infinities and, with
/// them, NaN sums that the original did not have.
#[test]
fn extreme_constants_stay_where_they_are() {
    let text = "<ir_version: 10, opset_import: [\"\": 21]>
        case (float[2,3] x) => (float[2,2] y, float[2,2] z)
        <float[3] c = {1.0, 0.0, 3e30}, float[3,2] w = {1.0, 2.0, 3.0, -4.0, 5.0, 3e30}> {
            d = Div (x, c)
            p = MatMul (d, w)
            y = Tanh (p)
            m = Mul (x, c)
            q = MatMul (m, w)
            z = Tanh (q)
        }";
    let g = ir::text::parse(text, &ops::Standard).unwrap();
    let (h, _) = crate::optimize(&g, crate::Options::RUNTIME).unwrap();
    let finite = |g: &ir::Graph| {
        g.initializers().filter_map(|(_, t)| t.to_f64s().ok()).all(|v| v.iter().all(|x| x.is_finite()))
    };
    assert!(finite(&g) && finite(&h), "{}", ir::text::print(&h).unwrap());
}

/// Zeros are zeros whatever scales them: expressions became parts of themselves, up to the limit of nodes (14 s for nine
/// operators).
#[test]
fn constants_that_stay_what_they_are_saturate() {
    let zeros = "m = MatMul (x, w)\n a = Mul (m, c)\n n = Neg (a)\n s = Sub (d, n)\n y = Sub (n, s)";
    let factor = "m = Mul (x, w)\n a = Mul (m, c)\n s = Sub (d, a)\n y = Sub (a, s)";
    for body in [zeros, factor] {
        let constants = "float[1, 1] w = {0.0}, float[1] c = {0.3}, float d = {-0.2}";
        let text = format!("g (float[2, 1] x) => (float[2, 1] y) <{constants}> {{\n {body}\n}}");
        let mut graph = ir::text::parse(&text, &ops::Standard).unwrap();
        graph.prune();
        for options in [crate::Options::RUNTIME, crate::Options::PORTABLE] {
            let (_, trace) = crate::optimize(&graph, options).unwrap();
            assert_eq!(trace.stopped, None, "{body}");
        }
    }
}
