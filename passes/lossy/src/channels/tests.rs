//! Groups found in small graphs, and what is left after channels went.

use super::remove::side;
use super::trace::{Edit, Group, groups};
use super::{cuts, kept, remove};
use crate::layer::layer;
use crate::stats::Stats;
use crate::testing::{Random, correlated};
use ir::{Evaluate, Feeds, Graph, Reference, Tensor, Value};
use proptest::prelude::*;

/// A graph with input `x` and output `y`; `fill:` constants have unit variance.
fn graph(inputs: &str, constants: &str, body: &str) -> Graph {
    let text = format!(
        "<ir_version: 10, opset_import: [\"\": 21]> g ({inputs}) => (float y) <{}> {{ {body} }}",
        constants.replace(" = ", " = [\"location\": \"fill:normal:").replace(';', "\"],")
            + "float one = {1.0}"
    );
    let mut g = ir::text::parse(&text, &ops::Standard).unwrap();
    ir::infer(&mut g).unwrap();
    g
}

/// Inputs whose channels are correlated.
fn input(shape: &[usize], seed: u64) -> Tensor {
    let n: usize = shape.iter().product();
    let data = correlated(n.div_ceil(8), 8, seed).mapv(|v| v * 0.5 + 0.1);
    Tensor::new(shape, data.iter().copied().take(n).collect()).unwrap()
}

fn run(g: &Graph, x: &Tensor, taps: &[ir::ValueId]) -> (Tensor, Vec<Value>) {
    let feeds: Feeds = [("x".to_string(), Value::Tensor(x.clone()))].into();
    let out = Reference.run(g, &feeds, taps).unwrap();
    (out.outputs[0].tensor().unwrap().clone(), out.taps)
}

/// Statistics of every consumer's input on these inputs.
fn stats(g: &Graph, group: &Group, xs: &[Tensor]) -> Vec<Stats> {
    let of = |weight| {
        let l = layer(g, weight).unwrap();
        let (value, extract) = &l.inputs[0];
        let mut s = Stats::new(1, l.view.cols, l.view.cols);
        for (phase, x) in xs.iter().enumerate() {
            s.push(run(g, x, &[*value]).1[0].tensor().unwrap(), extract, l.view.cols, phase).unwrap();
        }
        s
    };
    group.consumers.iter().map(|c| of(c.weight)).collect()
}

/// Cuts a group to `target` channels; the stated error of each consumer and the graph.
fn cut(g: &Graph, group: &Group, xs: &[Tensor], target: usize) -> (Vec<f64>, Graph) {
    let stats = stats(g, group, xs);
    let sides: Vec<_> = group
        .consumers
        .iter()
        .zip(&stats)
        .map(|(c, s)| side(&layer(g, c.weight).unwrap(), s).unwrap())
        .collect();
    let best = cuts(group.count, &sides, &[target], &|_| f64::INFINITY).unwrap().pop().unwrap();
    assert_eq!(best.keep.len(), target);
    let mut small = g.clone();
    remove(&mut small, group, &best.keep, &stats.iter().collect::<Vec<_>>()).unwrap();
    (best.errors, small.compacted().unwrap())
}

fn shape(g: &Graph, name: &str) -> Vec<usize> {
    g.constant(g.find(name).unwrap()).unwrap().shape().to_vec()
}

fn power(t: &Tensor) -> f64 {
    t.to_f32s().unwrap().iter().map(|&v| f64::from(v).powi(2)).sum()
}

fn distance(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.shape(), b.shape());
    let (a, b) = (a.to_f32s().unwrap(), b.to_f32s().unwrap());
    a.iter().zip(&b).map(|(p, q)| f64::from(p - q).powi(2)).sum()
}

fn refusals(g: &Graph) -> Vec<String> {
    groups(g).1.into_iter().map(|(_, r)| r.0).collect()
}

const CONV: &str = "float[16,3,3,3] w1 = 1; float[16] b1 = 2; float[16] s = 3; float[16] m = 4; \
                    float[20,16,3,3] w2 = 5; float[20] b2 = 6;";

#[test]
fn convolutions_lose_channels_with_all_between_and_the_error_is_the_stated_one() {
    let mut g = graph(
        "float[1,3,8,8] x",
        CONV,
        "a = Conv <pads = [1,1,1,1]> (x, w1, b1) v = Mul (s, s) n = BatchNormalization (a, s, b1, m, v) \
         r = Relu (n) y = Conv (r, w2, b2)",
    );
    // The variance is a constant only once it is folded.
    let v = g.find("v").unwrap();
    let t = Tensor::vector(vec![0.7f32; 16]);
    let c = g.add_initializer("variance", t);
    g.replace_uses(v, c);
    g.prune();
    let (found, refused) = groups(&g);
    assert_eq!((found.len(), refused.len()), (1, 1));
    let xs: Vec<Tensor> = (0..6).map(|i| input(&[1, 3, 8, 8], i)).collect();
    let (errors, small) = cut(&g, &found[0], &xs, 12);
    assert_eq!(shape(&small, "w1"), [12, 3, 3, 3]);
    assert_eq!(shape(&small, "w2"), [20, 12, 3, 3]);
    assert_eq!((shape(&small, "s"), shape(&small, "variance")), (vec![12], vec![12]));
    let found: f64 = xs.iter().map(|x| distance(&run(&g, x, &[]).0, &run(&small, x, &[]).0)).sum();
    let vectors = 6.0 * 36.0;
    assert!((found / vectors - errors[0]).abs() < 0.01 * errors[0], "{} {}", found / vectors, errors[0]);
}

#[test]
fn the_chosen_channels_and_the_refit_beat_the_first_ones_and_plain_removal() {
    let g = graph(
        "float[4,3,8,8] x",
        "float[16,3,3,3] w1 = 1; float[20,16,1,1] w2 = 5;",
        "a = Conv <pads = [1,1,1,1]> (x, w1) r = Relu (a) y = Conv (r, w2)",
    );
    let group = &groups(&g).0[0];
    let xs = [input(&[4, 3, 8, 8], 3)];
    let (_, best) = cut(&g, group, &xs, 8);
    let y = run(&g, &xs[0], &[]).0;
    let of = |small: &Graph| distance(&y, &run(small, &xs[0], &[]).0);
    let all = stats(&g, group, &xs);
    let mut first = g.clone();
    remove(&mut first, group, &(0..8).collect::<Vec<_>>(), &[&all[0]]).unwrap();
    let white = Stats::of(vec![crate::gram::Gram::identity(16)]);
    let mut plain = g.clone();
    remove(&mut plain, group, &(0..8).collect::<Vec<_>>(), &[&white]).unwrap();
    assert!(of(&best) < of(&first) && of(&first) < of(&plain), "{} {} {}", of(&best), of(&first), of(&plain));
}

#[test]
fn depthwise_convolutions_carry_channels_with_their_group_attribute() {
    let g = graph(
        "float[1,3,8,8] x",
        "float[16,3,1,1] w1 = 1; float[32,1,3,3] d = 2; float[32] e = 3; float[12,32,1,1] w2 = 4;",
        "a = Conv (x, w1) c = Clip (a, one) b = Conv <group = 16, pads = [1,1,1,1]> (c, d, e) y = Conv (b, w2)",
    );
    let (found, _) = groups(&g);
    assert_eq!(found[0].count, 16);
    assert_eq!(found[0].carriers(&g).count(), 1);
    assert!(found[0].edits.iter().any(|e| matches!(e, Edit::Group { .. })));
    let xs: Vec<Tensor> = (0..4).map(|i| input(&[1, 3, 8, 8], i)).collect();
    let (_, small) = cut(&g, &found[0], &xs, 10);
    assert_eq!((shape(&small, "d"), shape(&small, "e")), (vec![20, 1, 3, 3], vec![20]));
    assert_eq!(shape(&small, "w2"), [12, 20, 1, 1]);
    let group = small.nodes().find_map(|(_, n)| n.attrs.int("group").unwrap());
    assert_eq!(group, Some(10));
    run(&small, &xs[0], &[]);
}

#[test]
fn a_residual_sum_ties_its_producers_and_its_readers() {
    let g = graph(
        "float[1,3,8,8] x",
        "float[16,3,1,1] w1 = 1; float[16,16,3,3] w2 = 2; float[9,16,1,1] w3 = 3;",
        "a = Conv (x, w1) r = Relu (a) b = Conv <pads = [1,1,1,1]> (r, w2) q = Relu (b) s = Add (r, q) y = Conv (s, w3)",
    );
    let (found, _) = groups(&g);
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].producers.len(), found[0].consumers.len()), (2, 2));
    let xs: Vec<Tensor> = (0..4).map(|i| input(&[1, 3, 8, 8], i)).collect();
    let (_, small) = cut(&g, &found[0], &xs, 12);
    assert_eq!((shape(&small, "w1"), shape(&small, "w2")), (vec![12, 3, 1, 1], vec![12, 12, 3, 3]));
    assert_eq!(shape(&small, "w3"), [9, 12, 1, 1]);
    run(&small, &xs[0], &[]);
}

#[test]
fn products_with_a_vector_added_and_gelu() {
    let g = graph(
        "float[1,5,12] x",
        "float[12,48] w1 = 1; float[48] b1 = 2; float[48,12] w2 = 3; float[12] b2 = 4;",
        "a = MatMul (x, w1) c = Add (b1, a) h = Gelu (c) d = MatMul (h, w2) y = Add (d, b2)",
    );
    let (found, _) = groups(&g);
    let xs: Vec<Tensor> = (0..40).map(|i| input(&[1, 5, 12], i)).collect();
    let (errors, small) = cut(&g, &found[0], &xs, 36);
    assert_eq!((shape(&small, "w1"), shape(&small, "b1")), (vec![12, 36], vec![36]));
    assert_eq!(shape(&small, "w2"), [36, 12]);
    let found: f64 = xs.iter().map(|x| distance(&run(&g, x, &[]).0, &run(&small, x, &[]).0)).sum();
    assert!((found / 200.0 - errors[0]).abs() < 0.02 * errors[0] + 1e-6, "{} {}", found / 200.0, errors[0]);
}

#[test]
fn flattened_maps_keep_the_channels_traceable() {
    let w = "float[16,3,3,3] w1 = 1; float[64,10] w2 = 2;";
    let flat = graph("float[1,3,4,4] x", w, "a = Conv (x, w1) r = Relu (a) f = Flatten (r) y = Gemm (f, w2)");
    let xs: Vec<Tensor> = (0..80).map(|i| input(&[1, 3, 4, 4], i)).collect();
    let (_, small) = cut(&flat, &groups(&flat).0[0], &xs, 12);
    assert_eq!(shape(&small, "w2"), [48, 10]);
    run(&small, &xs[0], &[]);
    let mut shaped = graph("float[1,3,4,4] x", w, "a = Conv (x, w1) f = Reshape (a, one) y = Gemm (f, w2)");
    let reshape = shaped.nodes().find(|(_, n)| n.is("Reshape")).unwrap().0;
    let dims = shaped.add_initializer("dims", Tensor::vector(vec![1i64, 64]));
    shaped.set_input(reshape, 1, Some(dims));
    ir::infer(&mut shaped).unwrap();
    let (_, small) = cut(&shaped, &groups(&shaped).0[0], &xs, 12);
    assert_eq!(small.constant(small.find("dims").unwrap()).unwrap().to_i64s().unwrap(), [1, 48]);
    run(&small, &xs[0], &[]);
}

#[test]
fn a_reshape_that_splits_or_mixes_channels_is_refused() {
    let mut g = graph(
        "float[2,6,12] x",
        "float[12,16] w1 = 1; float[8,16] w2 = 2;",
        "a = MatMul (x, w1) f = Reshape (a, one) y = MatMul (f, w2)",
    );
    let reshape = g.nodes().find(|(_, n)| n.is("Reshape")).unwrap().0;
    let dims = g.add_initializer("dims", Tensor::vector(vec![2i64, 6, 2, 8]));
    g.set_input(reshape, 1, Some(dims));
    ir::infer(&mut g).unwrap();
    assert!(groups(&g).0.is_empty());
    assert!(refusals(&g)[0].contains("lost in Reshape"), "{:?}", refusals(&g));
}

#[test]
fn what_cannot_lose_channels_is_left_alone() {
    let cases = [
        ("float[16,8,1,1] w2 = 2;", "y = Conv <group = 2> (r, w2)", "ties channels to groups"),
        ("float[16] s = 2;", "y = LayerNormalization <axis = 1> (r, s)", "mixes or reads"),
        ("float[9,16,1,1] w2 = 2;", "b = Conv (r, w2) c = Conv (r, w2) y = Add (b, c)", "is shared"),
        (
            "float[9,16,1,1] w2 = 2;",
            "b = Conv (r, w2) t = Transpose <perm = [0,2,3,1]> (r) y = Softmax (t)",
            "mixes",
        ),
        ("float[9,32,1,1] w2 = 2;", "b = Concat <axis = 1> (r, a) y = Conv (b, w2)", "joins the channels"),
        ("float[9,16,1,1] w2 = 2;", "y = Relu (r)", "output of the model"),
    ];
    for (constants, tail, why) in cases {
        let all = format!("float[16,3,1,1] w1 = 1; {constants}");
        let g = graph("float[1,3,4,4] x", &all, &format!("a = Conv (x, w1) r = Relu (a) {tail}"));
        assert!(groups(&g).0.is_empty(), "{tail}");
        assert!(refusals(&g).iter().any(|r| r.contains(why)), "{tail}: {:?}", refusals(&g));
    }
}

#[test]
fn a_constant_shared_with_another_layer_is_not_cut_for_it() {
    let g = graph(
        "float[1,16,4,4] x",
        "float[16,16,1,1] w1 = 1; float[16] b = 2; float[16,16,1,1] w2 = 3;",
        "a = Conv (x, w1, b) r = Relu (a) y = Conv (r, w2, b)",
    );
    let xs: Vec<Tensor> = (0..4).map(|i| input(&[1, 16, 4, 4], i)).collect();
    let (_, small) = cut(&g, &groups(&g).0[0], &xs, 12);
    let biases: Vec<usize> =
        small.nodes().filter_map(|(_, n)| Some(small.constant(n.input(2)?)?.len())).collect();
    assert_eq!(biases, [12, 16]);
    run(&small, &xs[0], &[]);
}

#[test]
fn gates_of_squeeze_and_excitation_go_with_what_they_scale() {
    let g = graph(
        "float[1,3,6,6] x",
        "float[16,3,1,1] w1 = 1; float[4,16,1,1] p = 2; float[16,4,1,1] q = 3; float[9,16,1,1] w2 = 4;",
        "a = Conv (x, w1) m = GlobalAveragePool (a) s = Conv (m, p) t = Conv (s, q) g = HardSigmoid (t) \
         r = Mul (a, g) u = Transpose <perm = [0,2,1,3]> (r) v = Transpose <perm = [0,2,1,3]> (u) y = Conv (v, w2)",
    );
    let (found, _) = groups(&g);
    let group = found.iter().find(|g| g.producers.len() == 2).unwrap();
    let xs: Vec<Tensor> = (0..30).map(|i| input(&[1, 3, 6, 6], i)).collect();
    let (_, small) = cut(&g, group, &xs, 12);
    assert_eq!((shape(&small, "p"), shape(&small, "q")), (vec![4, 12, 1, 1], vec![12, 4, 1, 1]));
    run(&small, &xs[0], &[]);
}

#[test]
fn what_stays_is_a_share_that_kernels_like() {
    assert_eq!(kept(1536, (7, 8)), 1344);
    assert_eq!(kept(24, (7, 8)), 21);
    assert_eq!(kept(96, (5, 8)), 60);
    assert_eq!(kept(8, (15, 16)), 8);
}

/// Makes channel `to` of the first layer a copy of channel `from`, or zero.
fn tie(g: &mut Graph, from: Option<usize>, to: usize) {
    for (name, run) in [("w1", 27), ("b1", 1)] {
        let v = g.find(name).unwrap();
        let t = g.constant(v).unwrap();
        let mut data = t.to_f32s().unwrap();
        for i in 0..run {
            data[to * run + i] = from.map_or(0.0, |f| data[f * run + i]);
        }
        let t = Tensor::new(t.shape(), data).unwrap();
        g.set_constant(v, t);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn copied_and_zero_channels_go_without_a_trace(seed in 0u64..1000, n in 1usize..5, residual: bool) {
        let tail = if residual {
            "b = Conv <pads = [1,1,1,1]> (r, w3) s = Add (r, one) y = Conv (s, w2, b2) z = ReduceMean (b)"
        } else {
            "y = Conv (r, w2, b2)"
        };
        let constants = "float[16,3,3,3] w1 = 1; float[16] b1 = 2; float[20,16,3,3] w2 = 5; float[20] b2 = 6; \
                         float[4,16,3,3] w3 = 9;";
        let mut g = graph(
            "float[1,3,8,8] x",
            constants,
            &format!("a = Conv <pads = [1,1,1,1]> (x, w1, b1) r = Relu (a) {tail}"),
        );
        let mut r = Random(seed);
        // Copies of channel 0, and dead ones.
        for i in 0..n {
            tie(&mut g, r.bits().is_multiple_of(2).then_some(0), 3 * i + 1);
        }
        let xs: Vec<Tensor> = (0..10).map(|i| input(&[1, 3, 8, 8], seed + i)).collect();
        let group = &groups(&g).0[0];
        let (_, small) = cut(&g, group, &xs, 16 - n);
        for x in &xs {
            let (a, b) = (run(&g, x, &[]).0, run(&small, x, &[]).0);
            prop_assert!((distance(&a, &b) / power(&a)).sqrt() < 1e-5, "{}", (distance(&a, &b) / power(&a)).sqrt());
        }
        // Without being told how many, the search for exact removals finds at least these.
        let s = stats(&g, group, &xs);
        let sides: Vec<_> =
            group.consumers.iter().zip(&s).map(|(c, s)| side(&layer(&g, c.weight).unwrap(), s).unwrap()).collect();
        let found = cuts(16, &sides, &[8], &|_| f64::INFINITY).unwrap();
        prop_assert!(found[0].keep.len() <= 16 - n, "{:?}", found[0].keep);
    }
}
