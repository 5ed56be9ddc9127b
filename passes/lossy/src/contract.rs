//! What every method promises: a candidate's fragment computes the layer with the error and the bytes it states.

use crate::basis::Basis;
use crate::candidate::{Candidate, Replaces, graph_bytes};
use crate::joint::{self, Joint};
use crate::layer::{Bias, Layer, layers};
use crate::method::{Context, Hopes, Method, Scope};
use crate::methods::METHODS;
use crate::stats::Stats;
use crate::testing::{correlated, matrix};
use ir::{Attrs, DType, Evaluate, Feeds, Graph, Reference, Tensor, Value, ValueType};

/// A graph of one node with weight shape `w`, and its input.
fn single(op: &str, attrs: Attrs, x: &[usize], w: &[usize], bias: Option<usize>) -> (Graph, Tensor) {
    let mut g = Graph::new("g");
    let n: usize = w.iter().product();
    let xv = g.add_input("x", ValueType::known(DType::F32, x));
    let data = matrix(1, n, 5).mapv(|v| v * 0.1).into_raw_vec_and_offset().0;
    let wv = g.add_initializer("w", Tensor::new(w, data).unwrap());
    let mut inputs = vec![xv, wv];
    if let Some(n) = bias {
        inputs.push(g.add_initializer("b", Tensor::vector(matrix(1, n, 6).into_raw_vec_and_offset().0)));
    }
    let y = g.apply("layer", ops::standard(op).unwrap(), attrs, &inputs);
    g.add_output("y", y);
    ir::infer(&mut g).unwrap();
    let size: usize = x.iter().product();
    let width = *x.last().unwrap();
    let data = correlated(size / width, width, 9).mapv(|v| v * 0.5 + 0.2).into_raw_vec_and_offset().0;
    (g, Tensor::new(x, data).unwrap())
}

/// As [`single`], one channel of the input being much larger than the others.
fn with_outlier((g, x): (Graph, Tensor), inner: usize) -> (Graph, Tensor) {
    let channels = x.shape()[if inner > 1 { 1 } else { x.rank() - 1 }];
    let data = x.to_f32s().unwrap().into_iter().enumerate();
    let data = data.map(|(i, v)| if i / inner % channels == 3 { v * 30.0 } else { v }).collect();
    (g, Tensor::new(x.shape(), data).unwrap())
}

fn cases() -> Vec<(Graph, Tensor)> {
    let pads = || Attrs::new().with("pads", vec![1i64; 4]);
    vec![
        with_outlier(single("MatMul", Attrs::new(), &[160, 64], &[64, 48], None), 1),
        with_outlier(single("Conv", pads(), &[2, 12, 8, 8], &[16, 12, 3, 3], Some(16)), 64),
        single("MatMul", Attrs::new(), &[160, 64], &[64, 48], None),
        single("Gemm", Attrs::new().with("transB", 1i64), &[160, 64], &[40, 64], Some(40)),
        single("Gemm", Attrs::new(), &[160, 64], &[64, 40], Some(40)),
        single("Conv", Attrs::new(), &[2, 32, 8, 8], &[48, 32, 1, 1], Some(48)),
        single("Conv", pads(), &[2, 12, 8, 8], &[16, 12, 3, 3], None),
        single("Conv", pads().with("group", 64i64), &[1, 64, 9, 9], &[64, 1, 3, 3], Some(64)),
        single("Conv", pads().with("group", 2i64), &[1, 16, 9, 9], &[16, 8, 3, 3], None),
    ]
}

fn stats(layer: &Layer, x: &Tensor) -> Stats {
    let mut s = Stats::new(layer.view.groups, layer.view.cols, layer.view.run);
    s.push(x, &layer.inputs[0].1, layer.view.cols, 0).unwrap();
    s
}

fn run(g: &Graph, x: &Tensor) -> Vec<f32> {
    let feeds: Feeds = [("x".to_string(), Value::Tensor(x.clone()))].into();
    let out = Reference.run(g, &feeds, &[]).unwrap();
    out.outputs[0].tensor().unwrap().to_f32s().unwrap()
}

/// The graph with the candidate in place.
fn applied(g: &Graph, layer: &Layer, c: &Candidate) -> Graph {
    let mut g = g.clone();
    match (layer.bias, &c.bias) {
        (Some(Bias::Constant(v)), Some(add)) => {
            let sum: Vec<f32> =
                g.constant(v).unwrap().to_f32s().unwrap().iter().zip(add).map(|(a, b)| a + b).collect();
            g.set_constant(v, Tensor::vector(sum));
        }
        (Some(Bias::Absent(i)), Some(add)) => {
            let b = g.add_initializer("nb", Tensor::vector(add.clone()));
            g.set_input(layer.node, i, Some(b));
        }
        _ => {}
    }
    match c.replaces {
        Replaces::Weight => {
            let w = c.fragment.inline_into(&mut g, &[], &[]).unwrap()[0];
            g.replace_uses(layer.value, w);
        }
        Replaces::Node => {
            let node = g.node(layer.node).unwrap();
            let inputs: Vec<_> =
                node.inputs().iter().flatten().copied().filter(|&v| v != layer.value).collect();
            let old = node.output(0).unwrap();
            let new = c.fragment.inline_into(&mut g, &inputs, &[]).unwrap()[0];
            g.replace_uses(old, new);
        }
    }
    g.prune();
    ir::infer(&mut g).unwrap();
    g
}

/// Factors that the layer shares with none.
fn bases(layer: &Layer, stats: Option<&Stats>) -> Vec<Basis> {
    if Joint.applies(layer, true).is_ok() { joint::bases(&[(layer, stats)]).unwrap() } else { Vec::new() }
}

fn candidates(method: &dyn Method, g: &Graph, layer: &Layer, stats: Option<&Stats>) -> Vec<Candidate> {
    let m = layer.view.matrix(&layer.tensor).unwrap();
    let measure = if layer.bias.is_some() { stats.map(Stats::centered) } else { stats };
    let bases = bases(layer, stats);
    let (compensate, hopes) = (true, Hopes::ALL);
    let cx = Context { graph: g, layer, matrix: &m, stats, measure, compensate, hopes, bases: &bases };
    match method.applies(layer, stats.is_some()) {
        Ok(()) => method.candidates(&cx).unwrap(),
        Err(_) => Vec::new(),
    }
}

#[test]
fn candidates_have_the_error_they_state() {
    let mut offered = std::collections::BTreeSet::new();
    for (g, x) in cases() {
        let layer = layers(&g).remove(0);
        let s = stats(&layer, &x);
        let base = run(&g, &x);
        let vectors = s.count() as f64;
        for method in METHODS {
            for c in candidates(*method, &g, &layer, Some(&s)) {
                offered.extend([method.name().to_string(), c.recipe.clone()]);
                let y = run(&applied(&g, &layer, &c), &x);
                let e: f64 =
                    base.iter().zip(&y).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>() / vectors;
                // Rounding of activations is an estimate; all else is exact up to single precision.
                let slack = if ["int8", "int8-dynamic"].contains(&c.method) { 0.6 } else { 0.02 };
                let power: f64 = base.iter().map(|a| f64::from(*a).powi(2)).sum::<f64>() / vectors;
                assert!(
                    (e - c.error).abs() <= slack * e.max(c.error) + 1e-9 * power,
                    "{} of {}: stated {}, found {e}",
                    c.recipe,
                    layer.op,
                    c.error
                );
            }
        }
    }
    let single = METHODS.iter().filter(|m| m.scope() == Scope::Layer);
    let all: Vec<&str> =
        single.map(|m| m.name()).chain(["int8 smoothed", "codebook 4 entries 4 groups"]).collect();
    assert!(all.iter().all(|&n| offered.contains(n)), "{offered:?} of {all:?}");
}

#[test]
fn recipes_are_found_again_and_rows_are_rescaled() {
    for (g, x) in cases() {
        let layer = layers(&g).remove(0);
        let s = stats(&layer, &x);
        let m = layer.view.matrix(&layer.tensor).unwrap();
        let measure = if layer.bias.is_some() { s.centered() } else { &s };
        let bases = bases(&layer, Some(&s));
        let cx = Context {
            graph: &g,
            layer: &layer,
            matrix: &m,
            stats: Some(&s),
            measure: Some(measure),
            compensate: true,
            hopes: Hopes::ALL,
            bases: &bases,
        };
        let factors: Vec<f32> = (0..layer.view.rows).map(|r| 1.0 + r as f32 / 64.0).collect();
        for method in METHODS.iter().filter(|m| m.applies(&layer, true).is_ok()) {
            for c in candidates(*method, &g, &layer, Some(&s)) {
                let again = method.candidate(&cx, &c.recipe).unwrap().unwrap();
                assert!(again.fragment == c.fragment && again.error == c.error, "{}", c.recipe);
                let Some(scaled) = c.rescaled(&layer, &factors) else { continue };
                let rows = |c: &Candidate| layer.view.matrix(&c.decode().unwrap()).unwrap();
                let (before, after) = (rows(&c), rows(&scaled));
                for ((r, j), v) in before.indexed_iter() {
                    // Scales may be stored in half precision.
                    let wanted = v * factors[r];
                    assert!((after[[r, j]] - wanted).abs() <= 1e-3 * wanted.abs(), "{}", c.recipe);
                }
            }
            assert!(method.scope() == Scope::Group || method.candidate(&cx, "none").unwrap().is_none());
        }
        let int4 = candidates(crate::methods::find("int4").unwrap(), &g, &layer, Some(&s));
        assert!(int4.iter().all(|c| c.rescaled(&layer, &[]).is_some()));
    }
}

#[test]
fn candidates_state_their_bytes_and_work_without_data() {
    for (g, x) in cases() {
        let layer = layers(&g).remove(0);
        for method in METHODS {
            for c in candidates(*method, &g, &layer, None) {
                assert_eq!(c.bytes, graph_bytes(&c.fragment), "{}", c.recipe);
                assert!(c.bias.is_none());
                let y = run(&applied(&g, &layer, &c), &x);
                assert!(y.iter().all(|v| v.is_finite()), "{}", c.recipe);
            }
        }
    }
}

#[test]
fn grouped_transposed_convolutions_are_priced_by_their_own_inputs() {
    let attrs = Attrs::new().with("group", 2i64);
    let (g, x) = single("ConvTranspose", attrs, &[1, 16, 6, 6], &[16, 8, 2, 2], None);
    let layer = layers(&g).remove(0);
    assert_eq!((layer.view.rows, layer.view.cols, layer.view.run), (32, 16, 8));
    let s = stats(&layer, &x);
    for c in candidates(crate::methods::find("int4").unwrap(), &g, &layer, Some(&s)) {
        assert!(run(&applied(&g, &layer, &c), &x).iter().all(|v| v.is_finite()));
        assert!(c.error > 0.0);
    }
}

#[test]
fn recurrent_and_embedded_weights_are_layers() {
    let mut g = Graph::new("g");
    let ids = g.add_input("ids", ValueType::known(DType::I64, &[5]));
    let table = g.add_initializer("table", Tensor::new(&[40, 16], vec![0.5f32; 640]).unwrap());
    let e = g.apply("embed", ops::standard("Gather").unwrap(), Attrs::new(), &[table, ids]);
    g.add_output("e", e);
    let x = g.add_input("x", ValueType::known(DType::F32, &[3, 1, 16]));
    let w = g.add_initializer("w", Tensor::new(&[1, 64, 16], vec![0.1f32; 1024]).unwrap());
    let r = g.add_initializer("r", Tensor::new(&[1, 64, 16], vec![0.1f32; 1024]).unwrap());
    let lstm = ops::standard("LSTM").unwrap();
    let y = g.apply("rnn", lstm, Attrs::new().with("hidden_size", 16i64), &[x, w, r]);
    g.add_output("y", y);
    let found = layers(&g);
    let roles: Vec<_> = found.iter().map(|l| (l.role, l.view.rows, l.view.cols, l.inputs.len())).collect();
    use crate::layer::Role::*;
    assert_eq!(roles, [(Embedding, 40, 16, 0), (Recurrent, 64, 16, 1), (Recurrent, 64, 16, 0)]);
}

#[test]
fn moments_that_overflow_end_no_search() {
    let pads = Attrs::new().with("pads", vec![1i64; 4]);
    let (g, x) = single("Conv", pads, &[2, 12, 8, 8], &[16, 12, 3, 3], Some(16));
    let large = x.to_f32s().unwrap().into_iter().map(|v| v * 1e25).collect();
    let x = Tensor::new(x.shape(), large).unwrap();
    let layer = layers(&g).remove(0);
    let s = stats(&layer, &x);
    METHODS.iter().for_each(|method| drop(candidates(*method, &g, &layer, Some(&s))));
}
