//! Every derivative against central differences, in double precision: for each operator that has one, a small random node.

use crate::rules::RULES;
use crate::{gradients, scalar};
use ir::{Attrs, DType, Evaluate, Feeds, Graph, Node, Reference, Tensor, Value, ValueId, ValueType};
use proptest::prelude::*;
use std::collections::BTreeSet;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }
    fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }
    fn flag(&mut self) -> i64 {
        self.below(2) as i64
    }
    fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }
    fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }
}

/// One node under test.
struct Case {
    graph: Graph,
    feeds: Feeds,
    /// Inputs that are differentiated.
    wanted: Vec<ValueId>,
    node: (Vec<Option<ValueId>>, Attrs),
    dtype: DType,
}

impl Case {
    fn new() -> Case {
        Case {
            graph: Graph::new("case"),
            feeds: Feeds::new(),
            wanted: Vec::new(),
            node: (Vec::new(), Attrs::new()),
            dtype: DType::F64,
        }
    }

    /// A float input in `low..high`; values keep away from kinks at round numbers and from each other.
    fn float(&mut self, r: &mut Random, shape: &[usize], low: f64, high: f64) -> &mut Case {
        let n: usize = shape.iter().product();
        let steps = ((high - low) / 0.02) as usize;
        let offset = low + 0.0031 + 3.7e-5 * self.node.0.len() as f64;
        let mut value = |i: usize| offset + 0.02 * r.below(steps) as f64 + 1e-4 * (i % 120) as f64;
        let data: Vec<f64> = (0..n).map(&mut value).collect();
        let name = format!("x{}", self.node.0.len());
        let v = self.graph.add_input(&name, ValueType::known(self.dtype, shape));
        self.feeds.insert(name, Value::Tensor(Tensor::from_f64s(self.dtype, shape, data).unwrap()));
        self.wanted.push(v);
        self.node.0.push(Some(v));
        self
    }

    fn normal(&mut self, r: &mut Random, shape: &[usize]) -> &mut Case {
        self.float(r, shape, -2.0, 2.0)
    }

    fn constant(&mut self, t: Tensor) -> &mut Case {
        let v = self.graph.add_initializer("c", t);
        self.node.0.push(Some(v));
        self
    }

    fn ints(&mut self, v: &[i64]) -> &mut Case {
        self.constant(Tensor::vector::<i64>(v.to_vec()))
    }

    fn absent(&mut self) -> &mut Case {
        self.node.0.push(None);
        self
    }

    fn attr(&mut self, name: &str, value: impl Into<ir::Attr>) -> &mut Case {
        self.node.1.set(name, value);
        self
    }

    fn done(&mut self, op: &str, outputs: usize) -> Case {
        let mut c = std::mem::replace(self, Case::new());
        let (inputs, attrs) = std::mem::take(&mut c.node);
        let names: Vec<String> = (0..outputs).map(|i| format!("y{i}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let id = c.graph.add_node("node", ops::standard(op).unwrap(), attrs, &inputs, &names);
        for i in 0..outputs {
            let v = c.graph.node(id).unwrap().output(i).unwrap();
            c.graph.add_output(&format!("out{i}"), v);
        }
        ir::infer(&mut c.graph).unwrap();
        c
    }
}

fn spatial(r: &mut Random, rank: usize, low: usize, high: usize) -> Vec<usize> {
    (0..rank).map(|_| r.between(low, high)).collect()
}

fn sizes(v: &[usize]) -> Vec<i64> {
    v.iter().map(|&d| d as i64).collect()
}

/// Strides, dilations, groups and paddings for a convolution-like operator.
fn windowed(c: &mut Case, r: &mut Random, rank: usize, dilated: bool) {
    c.attr("strides", (0..rank).map(|_| r.between(1, 3) as i64).collect::<Vec<i64>>());
    if dilated {
        c.attr("dilations", (0..rank).map(|_| r.between(1, 2) as i64).collect::<Vec<i64>>());
    }
    match r.below(3) {
        0 => {
            c.attr("auto_pad", r.of(&["SAME_UPPER", "SAME_LOWER", "VALID"]));
        }
        _ => {
            c.attr("pads", (0..2 * rank).map(|_| r.below(2) as i64).collect::<Vec<i64>>());
        }
    }
}

fn conv(r: &mut Random) -> Case {
    let (mut c, rank, groups) = (Case::new(), r.between(1, 2), r.between(1, 2));
    let (batch, inputs, outputs) = (r.between(1, 2), groups * r.between(1, 2), groups * r.between(1, 2));
    let kernel = if r.flag() == 0 { vec![1; rank] } else { spatial(r, rank, 1, 3) };
    let x = [vec![batch, inputs], spatial(r, rank, 5, 6)].concat();
    c.normal(r, &x).normal(r, &[vec![outputs, inputs / groups], kernel.clone()].concat());
    c.normal(r, &[outputs]).attr("group", groups as i64);
    if r.flag() == 0 || kernel.iter().any(|&k| k > 1) {
        windowed(&mut c, r, rank, true);
    }
    c.done("Conv", 1)
}

fn conv_transpose(r: &mut Random) -> Case {
    let (mut c, rank, groups) = (Case::new(), r.between(1, 2), r.between(1, 2));
    let (inputs, outputs) = (groups * r.between(1, 2), r.between(1, 2));
    let x = [vec![r.between(1, 2), inputs], spatial(r, rank, 3, 4)].concat();
    let w = [vec![inputs, outputs], spatial(r, rank, 2, 3)].concat();
    c.normal(r, &x).normal(r, &w);
    c.normal(r, &[groups * outputs]).attr("group", groups as i64);
    c.attr("strides", vec![2i64; rank]);
    match r.below(3) {
        0 => {
            c.attr("output_padding", vec![1i64; rank]);
        }
        1 => {
            c.attr("pads", vec![1i64; 2 * rank]);
        }
        _ => {
            c.attr("dilations", vec![2i64; rank]);
        }
    }
    c.done("ConvTranspose", 1)
}

fn pooled(r: &mut Random, op: &'static str) -> Case {
    let (mut c, rank) = (Case::new(), r.between(1, 2));
    let x = [vec![r.between(1, 2), 2], spatial(r, rank, 5, 6)].concat();
    c.normal(r, &x);
    c.attr("kernel_shape", sizes(&spatial(r, rank, 2, 3))).attr("ceil_mode", r.flag());
    windowed(&mut c, r, rank, false);
    if op == "AveragePool" {
        c.attr("count_include_pad", r.flag());
    }
    c.done(op, 1)
}

fn reduced(r: &mut Random, op: &'static str) -> Case {
    let (mut c, shape) = (Case::new(), [r.between(1, 3), 3, r.between(2, 3)]);
    let positive = matches!(op, "ReduceProd" | "ReduceLogSum");
    c.float(r, &shape, if positive { 0.5 } else { -2.0 }, 2.0);
    match r.below(3) {
        0 => {}
        1 => {
            c.ints(&[r.of(&[0, 1, 2, -1])]);
        }
        _ => {
            c.ints(&[0, -1]);
        }
    }
    c.attr("keepdims", r.flag()).done(op, 1)
}

/// The case of an operator; `None` for one that no row here knows.
fn case(op: &'static str, r: &mut Random) -> Option<Case> {
    let mut c = Case::new();
    let shape = [r.between(1, 3), r.between(2, 3), r.between(1, 4)];
    Some(match op {
        "MatMul" => {
            let (m, k, n) = (r.between(1, 3), r.between(1, 3), r.between(1, 3));
            let (a, b) = match r.below(5) {
                0 => (vec![k], vec![2, k, n]),
                1 => (vec![2, m, k], vec![k]),
                2 => (vec![2, 1, m, k], vec![3, k, n]),
                3 => (vec![k], vec![k]),
                _ => (vec![m, k], vec![k, n]),
            };
            c.normal(r, &a).normal(r, &b).done(op, 1)
        }
        "Gemm" => {
            let (m, k, n, ta, tb) = (r.between(1, 3), r.between(1, 3), r.between(1, 3), r.flag(), r.flag());
            c.normal(r, &if ta == 1 { [k, m] } else { [m, k] });
            c.normal(r, &if tb == 1 { [n, k] } else { [k, n] });
            c.normal(r, &[n])
                .attr("transA", ta)
                .attr("transB", tb)
                .attr("alpha", 0.5f32)
                .attr("beta", 2.0f32);
            c.done(op, 1)
        }
        "Einsum" => {
            c.normal(r, &[2, 3, 4]).normal(r, &[2, 4, 2]).attr("equation", "bij,bjk->bki").done(op, 1)
        }
        "Conv" => conv(r),
        "ConvTranspose" => conv_transpose(r),
        "AveragePool" | "MaxPool" => pooled(r, op),
        "GlobalAveragePool" | "GlobalMaxPool" => c.normal(r, &[2, 2, 3, 2]).done(op, 1),
        "BatchNormalization" => {
            c.normal(r, &[2, 3, 2]).normal(r, &[3]).normal(r, &[3]).normal(r, &[3]).float(r, &[3], 0.5, 2.0);
            c.done(op, 1)
        }
        "InstanceNormalization" => c.normal(r, &[2, 3, 4]).normal(r, &[3]).normal(r, &[3]).done(op, 1),
        "GroupNormalization" => {
            c.normal(r, &[2, 4, 3]).normal(r, &[4]).normal(r, &[4]).attr("num_groups", 2i64).done(op, 1)
        }
        "LayerNormalization" => {
            let axis = r.of(&[1i64, 2, -1]);
            let tail = if axis == 1 { vec![2, 5] } else { vec![5] };
            c.normal(r, &[2, 2, 5]).normal(r, &tail);
            if r.flag() == 1 {
                c.normal(r, &tail);
            }
            c.attr("axis", axis).done(op, 1)
        }
        "RMSNormalization" => c.normal(r, &[2, 2, 5]).normal(r, &[5]).done(op, 1),
        "MeanVarianceNormalization" => c.normal(r, &[2, 2, 3, 2]).done(op, 1),
        "LpNormalization" => c.normal(r, &[3, 4]).attr("p", r.of(&[1i64, 2])).done(op, 1),
        "Softmax" | "LogSoftmax" => c.normal(r, &shape).attr("axis", r.of(&[0i64, 1, -1])).done(op, 1),
        _ if op.starts_with("Reduce") => reduced(r, op),
        "CumSum" => {
            c.normal(r, &shape).constant(Tensor::scalar(r.of(&[0i64, 1, -1])));
            c.attr("reverse", r.flag()).attr("exclusive", r.flag()).done(op, 1)
        }
        "Identity" | "Dropout" => c.normal(r, &shape).done(op, 1),
        "Reshape" => c.normal(r, &[2, 3, 4]).ints(&[0, -1]).done(op, 1),
        "Flatten" => c.normal(r, &shape).done(op, 1),
        "Squeeze" => c.normal(r, &[2, 1, 3, 1]).ints(&[1, -1]).done(op, 1),
        "Unsqueeze" => c.normal(r, &[2, 3]).ints(&[0, -1]).done(op, 1),
        "Transpose" => {
            let perm = r.of(&[[2i64, 0, 1], [1, 2, 0], [0, 2, 1]]).to_vec();
            c.normal(r, &shape).attr("perm", perm).done(op, 1)
        }
        "Expand" => c.normal(r, &[3, 1]).ints(&[2, 1, 4]).done(op, 1),
        "Concat" => {
            c.normal(r, &[2, 3, 2])
                .normal(r, &[2, 1, 2])
                .normal(r, &[2, 2, 2])
                .attr("axis", r.of(&[1i64, -2]));
            c.done(op, 1)
        }
        "Split" => c.normal(r, &[2, 5]).ints(&[2, 3]).attr("axis", 1i64).done(op, 2),
        "Slice" => match r.below(3) {
            0 => c.normal(r, &[5, 4]).ints(&[1]).ints(&[-1]).done(op, 1),
            1 => c.normal(r, &[5, 4]).ints(&[-3, 0]).ints(&[9, 3]).ints(&[0, 1]).done(op, 1),
            _ => c.normal(r, &[5, 4]).ints(&[4, 0]).ints(&[-9, 4]).ints(&[0, 1]).ints(&[-2, 3]).done(op, 1),
        },
        "Pad" => {
            let mode = r.of(&["constant", "reflect", "edge", "wrap"]);
            c.normal(r, &[4, 3]).ints(&[1, 0, 2, 1]).attr("mode", mode).done(op, 1)
        }
        "Tile" => c.normal(r, &[2, 3]).ints(&[2, 3]).done(op, 1),
        "DepthToSpace" => {
            let mode = r.of(&["DCR", "CRD"]);
            c.normal(r, &[1, 8, 2, 3]).attr("blocksize", 2i64).attr("mode", mode).done(op, 1)
        }
        "SpaceToDepth" => c.normal(r, &[1, 2, 4, 2]).attr("blocksize", 2i64).done(op, 1),
        "Trilu" => c.normal(r, &[3, 4]).attr("upper", r.flag()).done(op, 1),
        "Gather" => {
            let t = Tensor::new(&[2, 2], vec![0i64, 2, -1, 0]).unwrap();
            c.normal(r, &[3, 4, 3]).constant(t).attr("axis", r.of(&[0i64, 1, -1])).done(op, 1)
        }
        "GatherElements" => {
            let t = Tensor::new(&[2, 3], vec![0i64, 2, -1, 1, 1, 1]).unwrap();
            c.normal(r, &[3, 3]).constant(t).done(op, 1)
        }
        "GatherND" => {
            let t = Tensor::new(&[3, 2], vec![0i64, 2, 1, 0, 0, 2]).unwrap();
            c.normal(r, &[2, 3, 2]).constant(t).done(op, 1)
        }
        "Resize" => {
            let mode = r.of(&["nearest", "linear", "cubic"]);
            let to = r.of(&["half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel"]);
            let x = [2, 2, r.between(2, 3), r.between(2, 3)];
            c.normal(r, &x).absent();
            if r.flag() == 0 {
                c.constant(Tensor::vector::<f32>(vec![1.0, 1.0, 2.0, 1.5]));
            } else {
                c.absent().ints(&[2, 2, 5, r.between(1, 4) as i64]);
            }
            c.attr("mode", mode).attr("coordinate_transformation_mode", to).done(op, 1)
        }
        "CastLike" => c.normal(r, &shape).constant(Tensor::scalar(0f64)).done(op, 1),
        "DequantizeLinear" => {
            let codes = Tensor::from_unpacked(DType::I8, &[2, 6], &(0..12).collect::<Vec<u8>>()).unwrap();
            // Its scales are of at most single precision.
            c.dtype = DType::F32;
            c.constant(codes);
            match r.below(3) {
                0 => c.float(r, &[], 0.5, 2.0).done(op, 1),
                1 => c.float(r, &[6], 0.5, 2.0).attr("axis", 1i64).done(op, 1),
                _ => c.float(r, &[2, 2], 0.5, 2.0).attr("axis", 1i64).attr("block_size", 3i64).done(op, 1),
            }
        }
        // Element-wise operators: where they are smooth, and broadcast where they take several inputs.
        "Log" | "Sqrt" | "Reciprocal" => c.float(r, &shape, 0.3, 2.0).done(op, 1),
        "Acosh" => c.float(r, &shape, 1.2, 3.0).done(op, 1),
        "Asin" | "Acos" | "Atanh" => c.float(r, &shape, -0.8, 0.8).done(op, 1),
        "Tan" => c.float(r, &shape, -1.2, 1.2).done(op, 1),
        "Add" | "Sub" | "Mul" | "PRelu" => c.normal(r, &[2, 3, 2]).normal(r, &r2(op)).done(op, 1),
        "Div" | "Pow" => c.float(r, &[2, 3, 2], 0.3, 2.0).float(r, &[3, 1], 0.3, 2.0).done(op, 1),
        "Mod" => {
            c.float(r, &[2, 3], 3.2, 6.0).constant(Tensor::new(&[3], vec![2.0f64; 3]).unwrap());
            c.attr("fmod", 1i64).done(op, 1)
        }
        "Sum" | "Mean" | "Max" | "Min" => {
            c.normal(r, &[2, 3]).normal(r, &[3]).float(r, &[2, 1], -1.0, 1.5).done(op, 1)
        }
        "Where" => {
            let t = Tensor::new(&[2, 1], vec![true, false]).unwrap();
            c.constant(t).normal(r, &[3]).normal(r, &[2, 3]).done(op, 1)
        }
        "Clip" => {
            c.normal(r, &shape);
            match r.below(3) {
                0 => c.float(r, &[], -1.5, -0.5).float(r, &[], 0.5, 1.5).done(op, 1),
                1 => c.absent().float(r, &[], 0.5, 1.5).done(op, 1),
                _ => c.float(r, &[], -1.5, -0.5).done(op, 1),
            }
        }
        "Cast" => c.normal(r, &shape).attr("to", i64::from(DType::F64.onnx())).done(op, 1),
        "SwiGLU" => c.normal(r, &[2, 3]).normal(r, &[2, 3]).done(op, 1),
        _ => {
            let one = ops::standard(op).ok()?.signature().inputs.len() == 1;
            one.then(|| c.float(r, &shape, -3.4, 3.4).done(op, 1))?
        }
    })
}

fn r2(op: &str) -> [usize; 2] {
    if op == "PRelu" { [3, 2] } else { [3, 1] }
}

/// Every operator with a derivative that is not zero: those with a row, and element-wise ones of floats.
fn differentiable() -> BTreeSet<&'static str> {
    let rows = RULES.iter().map(|r| r.0);
    let scalars = ops::FAMILIES.iter().flat_map(|f| f.iter()).filter(|o| o.domain().is_empty()).filter(|o| {
        let mut g = Graph::new("g");
        let inputs: Vec<Option<ValueId>> = (0..o.signature().inputs.len().max(1))
            .map(|i| Some(g.add_input(&format!("x{i}"), ValueType::known(DType::F64, &[2]))))
            .collect();
        let to = Attrs::new().with("to", i64::from(DType::F64.onnx()));
        let id = g.add_node("n", **o, to, &inputs, &["y"]);
        let node: &Node = g.node(id).unwrap();
        let floats = |f: &ir::Formal| match f.types {
            ir::Types::Any => true,
            ir::Types::Of(t) => t.contains(&DType::F32),
        };
        let takes =
            |i: usize| o.signature().inputs.get(i).or(o.signature().inputs.last()).is_some_and(floats);
        let expr = scalar::expression(node);
        expr.is_some_and(|e| (0..inputs.len()).any(|i| takes(i) && scalar::differentiate(&e, i).is_some()))
    });
    rows.chain(scalars.map(|o| o.name())).collect()
}

/// Σ of all outputs, each times its weights.
fn value(graph: &Graph, feeds: &Feeds, weights: &[Tensor]) -> f64 {
    let outputs = Reference.run(graph, feeds, &[]).unwrap().outputs;
    let dot = |(y, w): (&Value, &Tensor)| {
        let (y, w) = (y.tensor().unwrap().to_f64s().unwrap(), w.to_f64s().unwrap());
        y.iter().zip(&w).map(|(a, b)| a * b).sum::<f64>()
    };
    outputs.iter().zip(weights).map(dot).sum()
}

fn check(op: &'static str, seed: u64) {
    let r = &mut Random(seed);
    let c = case(op, r).unwrap();
    let plain = c.graph.clone();
    let (mut graph, mut feeds) = (c.graph, c.feeds.clone());
    let (mut cotangents, mut weights) = (Vec::new(), Vec::new());
    for (i, o) in plain.outputs().iter().enumerate() {
        let shape = plain.ty(o.value).concrete().unwrap();
        let data = (0..shape.iter().product()).map(|_| r.unit() - 0.5).collect::<Vec<f64>>();
        let dtype = plain.dtype(o.value).unwrap();
        let (t, name) = (Tensor::from_f64s(dtype, &shape, data).unwrap(), format!("g{i}"));
        cotangents.push((o.value, graph.add_input(&name, ValueType::known(dtype, &shape))));
        feeds.insert(name, Value::Tensor(t.clone()));
        weights.push(t);
    }
    let found = gradients(&graph, &cotangents, &c.wanted).unwrap_or_else(|e| panic!("{op}: {e}"));
    let taps: Vec<ValueId> =
        found.of.iter().map(|g| g.unwrap_or_else(|| panic!("{op}: no gradient"))).collect();
    let grads = Reference.run(&found.graph, &feeds, &taps).unwrap_or_else(|e| panic!("{op}: {e}")).taps;
    for (v, grad) in c.wanted.iter().zip(grads) {
        let name = plain.value_name(*v);
        let x = c.feeds[name].tensor().unwrap();
        let grad = grad.tensor().unwrap();
        assert_eq!(grad.shape(), x.shape(), "{op} {name}");
        let direction: Vec<f64> = (0..x.len()).map(|_| r.unit() - 0.5).collect();
        let at = |h: f64| {
            let data = x.to_f64s().unwrap().iter().zip(&direction).map(|(x, d)| x + h * d).collect();
            let mut feeds = c.feeds.clone();
            feeds.insert(
                name.to_string(),
                Value::Tensor(Tensor::from_f64s(x.dtype(), x.shape(), data).unwrap()),
            );
            value(&plain, &feeds, &weights)
        };
        // What is in single precision is linear, so far points are as good.
        let h = if x.dtype() == DType::F64 { 1e-5 } else { 0.25 };
        let measured = (at(h) - at(-h)) / (2.0 * h);
        let terms: Vec<f64> = grad.to_f64s().unwrap().iter().zip(&direction).map(|(g, d)| g * d).collect();
        let size = terms.iter().map(|t| t.abs()).sum::<f64>() + measured.abs() + 1e-3;
        let gap = (terms.iter().sum::<f64>() - measured).abs() / size;
        assert!(gap < 2e-5, "{op} in {name}: {} against {measured}, seed {seed}", terms.iter().sum::<f64>());
    }
}

#[test]
fn every_operator_with_a_derivative_has_a_case() {
    let missing: Vec<&str> =
        differentiable().into_iter().filter(|op| case(op, &mut Random(1)).is_none()).collect();
    assert!(missing.is_empty(), "no case for {missing:?}");
    assert!(differentiable().len() > 80, "{}", differentiable().len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn gradients_are_central_differences(seed in any::<u64>()) {
        for op in differentiable() {
            check(op, seed);
        }
    }
}

#[test]
fn a_value_that_is_used_twice_collects_both_gradients() {
    let mut g = Graph::new("g");
    let x = g.add_input("x", ValueType::known(DType::F64, &[3]));
    let e = g.apply("e", ops::standard("Exp").unwrap(), Attrs::new(), &[x]);
    let y = g.apply("y", ops::standard("Mul").unwrap(), Attrs::new(), &[e, x]);
    let axes = g.add_initializer("axes", Tensor::vector(vec![0i64]));
    let s =
        g.apply("s", ops::standard("ReduceSum").unwrap(), Attrs::new().with("keepdims", 0i64), &[y, axes]);
    g.add_output("s", s);
    ir::infer(&mut g).unwrap();
    let found = crate::of_scalar(&g, s, &[x, e]).unwrap();
    let data = vec![0.5f64, -1.0, 2.0];
    let feeds: Feeds = [("x".to_string(), Value::Tensor(Tensor::vector(data.clone())))].into();
    let taps: Vec<ValueId> = found.of.iter().map(|v| v.unwrap()).collect();
    let grads = Reference.run(&found.graph, &feeds, &taps).unwrap().taps;
    for (i, v) in data.iter().enumerate() {
        let at = |t: &Value| t.tensor().unwrap().to_f64s().unwrap()[i];
        assert!((at(&grads[0]) - v.exp() * (v + 1.0)).abs() < 1e-12);
        assert!((at(&grads[1]) - v).abs() < 1e-12);
    }
}

#[test]
fn what_has_no_derivative_is_named() {
    let mut g = Graph::new("g");
    let x = g.add_input("x", ValueType::known(DType::F32, &[2, 2]));
    let y = g.apply("volume", ops::standard("Det").unwrap(), Attrs::new(), &[x]);
    g.add_output("y", y);
    ir::infer(&mut g).unwrap();
    let e = crate::of_scalar(&g, y, &[x]).unwrap_err();
    assert_eq!((e.node.as_deref(), e.op.as_deref()), (Some("volume"), Some("Det")));
}

#[test]
fn roundings_and_integers_pass_nothing_back() {
    let mut g = Graph::new("g");
    let x = g.add_input("x", ValueType::known(DType::F32, &[]));
    let y = g.apply("round", ops::standard("Round").unwrap(), Attrs::new(), &[x]);
    g.add_output("y", y);
    ir::infer(&mut g).unwrap();
    assert_eq!(crate::of_scalar(&g, y, &[x]).unwrap().of, [None]);
}
