//! Batches in parts give what the definition gives for the whole, and models whose items meet stay whole.

use super::*;
use crate::Session;
use ir::{Evaluate, Feeds};

/// A model of `x : float[N,4,6]` from its constants and nodes; the output is `y`.
fn parse(constants: &str, nodes: &str) -> Graph {
    let head = "<ir_version: 10, opset_import: [\"\": 21]> g (float[N,4,6] x) => (y)";
    ir::text::parse(&format!("{head} <{constants}> {{ {nodes} }}"), &ops::Standard).unwrap()
}

fn input(shape: &[usize], seed: usize) -> Tensor {
    let n = shape.iter().product();
    Tensor::new(shape, (0..n).map(|i| ((i * 37 + seed * 11) % 23) as f32 / 7.0 - 1.5).collect()).unwrap()
}

fn separable(g: &Graph, batch: usize) -> bool {
    let key: Key = vec![(ir::DType::F32, vec![batch, 4, 6], None)];
    let symbol = Dim::symbol("items");
    along::separable(&symbolic(g, &key, &[true], &symbol).unwrap(), &symbol).unwrap()
}

/// Whether items are independent, the constants of a model and what it computes.
const MODELS: &[(bool, &str, &str)] = &[
    (true, "", "y = Relu (x)"),
    (true, "float[6,2] w = {1,2,3,4,5,6,7,8,9,1,2,3}", "y = MatMul (x, w)"),
    (true, "", "y = Softmax <axis = -1> (x)"),
    (false, "", "y = Softmax <axis = 0> (x)"),
    (
        true,
        "int64[1] a = {1}, int64[2] k = {-1,6}",
        "m = ReduceMean <keepdims = 0> (x, a) y = Reshape (m, k)",
    ),
    (false, "int64[1] a = {0}", "m = ReduceMean (x, a) y = Sub (x, m)"),
    (false, "", "m = ReduceMax (x) y = Div (x, m)"),
    // The number of items as a number.
    (false, "", "s = Shape <start = 0, end = 1> (x) n = Cast <to = 1> (s) y = Div (x, n)"),
    (false, "int64[2] k = {-1,6}", "y = Reshape (x, k)"),
    (true, "int64[3] k = {0,6,4}", "y = Reshape (x, k)"),
    (true, "", "t = Transpose <perm = [1,0,2]> (x) e = Exp (t) y = Transpose <perm = [1,0,2]> (e)"),
    (false, "", "y = Transpose <perm = [1,0,2]> (x)"),
    (true, "", "y = Concat <axis = 1> (x, x)"),
    (false, "", "y = Concat <axis = 0> (x, x)"),
    (true, "int64[6] p = {0,1,0,0,1,2}", "y = Pad (x, p)"),
    (false, "int64[6] p = {1,0,0,-1,0,0}", "y = Pad (x, p)"),
    (false, "int64 a = {0}", "y = CumSum (x, a)"),
    (true, "int64 a = {-1}", "y = CumSum (x, a)"),
    (false, "", "q, s, z = DynamicQuantizeLinear (x) y = DequantizeLinear (q, s, z)"),
    (true, "float[1,4,1] s = {1,2,3,4}", "y = Mul (x, s)"),
    (false, "int64[2] i = {1,0}", "y = Gather <axis = 0> (x, i)"),
    (true, "int64[2] i = {3,0}", "y = Gather <axis = 1> (x, i)"),
    // An output that no item made.
    (false, "", "y = Shape (x)"),
    (false, "int64[1] f = {0}, int64[1] t = {-1}", "y = Slice (x, f, t, f)"),
    (true, "int64[2] f = {0,1}, int64[2] t = {9223372036854775807,3}", "y = Slice (x, f, t)"),
    // Values repeated for each item.
    (
        true,
        "float[1,1,6] w = {1,2,3,4,5,6}, int64[2] k = {1,6}",
        "n = Shape <start = 0, end = 1> (x) s = Concat <axis = 0> (n, k) e = Expand (w, s) y = Add (x, e)",
    ),
    // Their positions are not.
    (
        false,
        "int64 o = {0}, int64 d = {1}, int64[2] a = {1,2}, int64[1] z = {0}",
        "m = Shape <start = 0, end = 1> (x) n = Squeeze (m, z) r = Range (o, n, d) \
         u = Unsqueeze (r, a) f = Cast <to = 1> (u) y = Add (x, f)",
    ),
    (
        true,
        "float[1,12,6] w = {W}, float[1,12,3] r = {R}, int64[1] z = {0}",
        "t = Transpose <perm = [1,0,2]> (x) s, h = LSTM <hidden_size = 3> (t, w, r) y = Squeeze (h, z)",
    ),
    (true, "float[2,4,3] w = {C}", "c = Conv <pads = [1,1]> (x, w) y = Relu (c)"),
    (true, "float[6] s = {1,2,3,4,5,6}", "y = LayerNormalization (x, s)"),
    (
        true,
        "int64[1] a = {1}, int64[4] k = {0,4,3,2}",
        "u = Unsqueeze (x, a) g = Reshape (x, k) s = GridSample (u, g) y = Squeeze (s, a)",
    ),
    // Places in another item.
    (
        false,
        "int64[1] a = {1}, int64[4] k = {0,4,3,2}, int64[3] p = {2,1,0}",
        "t = Transpose <perm = [0,2,1]> (x) b = Gather <axis = 0> (x, p) u = Unsqueeze (t, a) g = Reshape (b, k) \
         s = GridSample (u, g) y = Squeeze (s, a)",
    ),
    // A scale for each item.
    (false, "float[6,1,6] s = {R}", "y = LayerNormalization (x, s)"),
    // Items that are no whole bytes of their own.
    (false, "", "y = Cast <to = 8> (x)"),
    (false, "", "y = Cast <to = 22> (x)"),
];

fn models() -> impl Iterator<Item = (bool, Graph, &'static str)> {
    let list =
        |n: usize| (0..n).map(|i| ((i * 7 % 11) as f32 / 9.0).to_string()).collect::<Vec<_>>().join(",");
    MODELS.iter().map(move |(cut, constants, nodes)| {
        let sized = [("W", 72), ("R", 36), ("C", 24)];
        let filled = |s: String, (name, n): (&str, usize)| {
            s.replace(&format!("{{{name}}}"), &format!("{{{}}}", list(n)))
        };
        (*cut, parse(&sized.into_iter().fold(constants.to_string(), filled), nodes), *nodes)
    })
}

#[test]
fn models_are_cut_where_no_item_depends_on_another() {
    for (cut, g, nodes) in models() {
        assert_eq!(separable(&g, 6), cut, "{nodes}");
    }
}

#[test]
fn parts_give_what_the_whole_gives() {
    for (_, g, nodes) in models().filter(|m| m.0) {
        let x = Value::Tensor(input(&[6, 4, 6], 1));
        let want = ir::Reference.run(&g, &Feeds::from([("x".to_string(), x.clone())]), &[]).unwrap().outputs;
        let key: Key = vec![(ir::DType::F32, vec![6, 4, 6], None)];
        for items in [1, 2, 3] {
            let parts = Parts { batch: 6, items, cut: vec![true] };
            let part = crate::prepare::specialise(&g, &parts.key(&key)).unwrap();
            let program = codegen::compile(&part).unwrap();
            for threads in [1, 2] {
                let pool = crate::pool::ThreadPool::new(threads);
                let got = parts.run(&program, std::slice::from_ref(&x), &pool).unwrap();
                for (got, want) in got.iter().zip(&want) {
                    let (got, want) = (got.tensor().unwrap(), want.tensor().unwrap());
                    assert_eq!(got.shape(), want.shape());
                    let pairs = got.to_f32s().unwrap().into_iter().zip(want.to_f32s().unwrap());
                    pairs.for_each(|(a, b)| assert!((a - b).abs() < 1e-5, "{nodes}: {a} {b}"));
                }
            }
        }
    }
}

/// A convolution whose values for eight items leave the caches, for four do not.
#[test]
fn a_session_cuts_large_batches() {
    let mut g = Graph::new("t");
    g.meta.opset = 21;
    let dims = vec![Dim::symbol("N"), 2.into(), 64.into(), 64.into()];
    let x = g.add_input("x", ValueType::tensor(ir::DType::F32, dims));
    let w = g.add_initializer("w", input(&[24, 2, 3, 3], 2));
    let attrs = ir::Attrs::new().with("pads", vec![1i64; 4]);
    let y = g.apply("c", ops::standard("Conv").unwrap(), attrs, &[x, w]);
    g.add_output("y", y);
    let s = Session::from_graph(&g, 1).unwrap();
    let key: Key = vec![(ir::DType::F32, vec![64, 2, 64, 64], None)];
    let parts = Parts::of(s.graph().unwrap(), &key, 1).unwrap();
    assert!(parts.count() > 1 && parts.key(&key)[0].1[0] * parts.count() == 64);
    let x = Value::Tensor(input(&[64, 2, 64, 64], 3));
    let all = s.evaluate(&Feeds::from([("x".to_string(), x.clone())])).unwrap();
    let one = Value::Tensor(x.tensor().unwrap().leading(63, 1).unwrap());
    let last = s.evaluate(&Feeds::from([("x".to_string(), one)])).unwrap();
    let all = all[0].tensor().unwrap();
    assert_eq!(all.shape(), [64, 24, 64, 64]);
    let (all, last) = (all.to_f32s().unwrap(), last[0].tensor().unwrap().to_f32s().unwrap());
    assert!(all[all.len() - last.len()..].iter().zip(&last).all(|(a, b)| (a - b).abs() < 1e-4));
}

#[test]
fn threads_take_sequences_of_their_own_and_do_not_meet_behind_each_step_in_time() {
    let (_, g, _) = models().find(|m| m.2.contains("LSTM")).unwrap();
    let key: Key = vec![(ir::DType::F32, vec![16, 4, 6], None)];
    assert_eq!(Parts::of(&g, &key, 2).map(|p| p.count()), Some(2));
    assert!(Parts::of(&g, &key, 1).is_none(), "a single thread meets nobody");
}
