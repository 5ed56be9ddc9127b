//! Operators that run subgraphs, written as text and walked by the reference.

use compress_ops::Standard;
use ir::{DType, Evaluate, Feeds, Graph, Reference, Result, Tensor, Value, ValueType, text};

fn graph(source: &str) -> Graph {
    let mut g = text::parse(source, &Standard).unwrap();
    ir::verify(&g).unwrap();
    ir::infer(&mut g).unwrap();
    g
}

fn run(g: &Graph, feeds: &[(&str, Tensor)]) -> Result<Vec<Value>> {
    let feeds: Feeds = feeds.iter().map(|(n, t)| (n.to_string(), t.clone().into())).collect();
    let outputs = Reference.run(g, &feeds, &[])?.outputs;
    for (o, v) in g.outputs().iter().zip(&outputs) {
        g.ty(o.value).merge(&v.value_type()).expect("inference covers what is computed");
    }
    Ok(outputs)
}

fn ints(v: &Value) -> Vec<i64> {
    v.tensor().unwrap().to_i64s().unwrap()
}

#[test]
fn a_branch_reads_outer_values() {
    let g = graph(
        r#"g (bool c, int64[N] x) => (int64[?] y) <int64[1] one = {1}> {
            y = If (c) <then_branch = a () => (r) { r = Add (x, one) },
                        else_branch = b () => (r) { r = Concat <axis = 0> (x, x) }>
        }"#,
    );
    let x = Tensor::vector(vec![5i64, 6]);
    let taken = |c: bool| ints(&run(&g, &[("c", Tensor::scalar(c)), ("x", x.clone())]).unwrap()[0]);
    assert_eq!(taken(true), [6, 7]);
    assert_eq!(taken(false), [5, 6, 5, 6]);
    let two = Tensor::vector(vec![true, false]);
    assert!(run(&g, &[("c", two), ("x", x)]).is_err());
}

#[test]
fn branches_of_two_types_are_refused() {
    let source = |to: i64| {
        format!(
            "g (bool c, float[2] x) => (y) {{
                y = If (c) <then_branch = a () => (r) {{ r = Relu (x) }},
                            else_branch = b () => (r) {{ r = Cast <to = {to}> (x) }}>
            }}"
        )
    };
    let infer = |to| ir::infer(&mut text::parse(&source(to), &Standard).unwrap());
    assert!(infer(1).is_ok());
    let e = infer(10).unwrap_err();
    assert!(e.blame == ir::Blame::Model && e.to_string().contains("float16"), "{e}");
}

/// Doubles `x` until it passes `limit`, collecting every step.
const DOUBLING: &str = r#"g (int64 n, int64 x, int64 limit) => (int64 last, int64[?] all) <bool yes = {1}> {
    last, all = Loop (n, yes, x) <body = step (int64 i, bool go, int64 v) => (bool more, int64 w, int64 seen) {
        w = Add (v, v)
        more = Less (w, limit)
        seen = Identity (w)
    }>
}"#;

#[test]
fn a_loop_stops_at_its_condition_or_its_count() {
    let g = graph(DOUBLING);
    let go = |n: i64, limit: i64| {
        let s = Tensor::scalar::<i64>;
        let out = run(&g, &[("n", s(n)), ("x", s(1)), ("limit", s(limit))]).unwrap();
        (ints(&out[0]), ints(&out[1]))
    };
    assert_eq!(go(100, 10), (vec![16], vec![2, 4, 8, 16]));
    assert_eq!(go(2, 10), (vec![4], vec![2, 4]));
    assert_eq!(go(0, 10), (vec![1], vec![]));
    assert_eq!(go(-5, 10), (vec![1], vec![]));
}

#[test]
fn an_endless_loop_reaches_its_limit() {
    ir::budget::set_step_limit(1000);
    let g = graph(
        r#"g (bool c) => (bool d) {
            d = Loop ("", c, c) <body = step (int64 i, bool go, bool v) => (bool go, bool v) { }>
        }"#,
    );
    let e = run(&g, &[("c", Tensor::scalar(true))]).unwrap_err();
    assert_eq!(e.blame, ir::Blame::Limit, "{e}");
}

#[test]
fn a_loop_over_large_values_reaches_its_limit_too() {
    ir::budget::set_work_limit(1 << 20);
    let g = graph(
        r#"g (bool c, float[100000] x) => (y) {
            d, y = Loop ("", c, c, x) <body = step (int64 i, bool go, bool v, float[100000] s) => (go, v, t) {
                t = Relu (s)
            }>
        }"#,
    );
    let e = run(&g, &[("c", Tensor::scalar(true)), ("x", Tensor::vector(vec![1f32; 100_000]))]).unwrap_err();
    assert!(e.blame == ir::Blame::Limit && e.message.contains("elements"), "{e}");
}

/// Each value takes the shape of the next one, and the last grows: no shape is known, though the first iterations do not
/// show it, nor what the body claims.
#[test]
fn shapes_that_change_late_are_not_believed() {
    let names = ["a", "b", "c", "d", "e", "f"];
    let ins: Vec<String> = names.iter().map(|n| format!("int64[1] {n}")).collect();
    let outs: Vec<String> = (1..6).map(|i| format!("o{i} = {}", names[i])).collect();
    let g = graph(&format!(
        "g (int64 n, int64[1] x) => (u, v, w, y, z, last) <bool yes = {{1}}> {{
            u, v, w, y, z, last = Loop (n, yes, x, x, x, x, x, x)
                <body = step (int64 i, bool go, {}) => (go, {}, grown) {{ grown = Concat <axis = 0> (f, f) }}>
        }}",
        ins.join(", "),
        outs.join(", ")
    ));
    let out = run(&g, &[("n", Tensor::scalar(7i64)), ("x", Tensor::vector(vec![1i64]))]).unwrap();
    assert_eq!(ints(&out[0]), [1, 1, 1, 1]);
}

#[test]
fn nested_loops_are_inferred_in_bounded_time() {
    let mut text = "r0 = Concat <axis = 0> (v, v)".to_string();
    for depth in 1..=20 {
        text = format!(
            "r{depth}, s{depth} = Loop (n, go, v, v) <body = b{depth} (int64 i, bool go, int64[1] v, int64[1] w) =>
                (go, w, r{}) {{ {text} }}>",
            depth - 1
        );
    }
    let text = format!("g (int64 n, bool go, int64[1] v) => (r20) {{ {text} }}");
    let mut g = text::parse(&text, &Standard).unwrap();
    let start = std::time::Instant::now();
    let _ = ir::infer(&mut g);
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}

#[test]
fn a_loop_may_carry_sequences() {
    let g = graph(
        r#"g (int64 n) => (int64[?] y) <bool yes = {1}, int64[1] shape = {1}> {
            empty = SequenceEmpty <dtype = 7> ()
            all = Loop (n, yes, empty) <body = step (int64 i, bool go, seq(int64) s) => (bool go, seq(int64) t) {
                v = Reshape (i, shape)
                t = SequenceInsert (s, v)
            }>
            y = ConcatFromSequence <axis = 0> (all)
        }"#,
    );
    assert_eq!(ints(&run(&g, &[("n", Tensor::scalar(4i64))]).unwrap()[0]), [0, 1, 2, 3]);
}

#[test]
fn a_scan_walks_its_inputs_in_their_directions() {
    let g = graph(
        r#"g (int64 s, int64[2, 3] x) => (int64 sum, int64[?, ?] partial) {
            sum, partial = Scan <num_scan_inputs = 1, scan_input_axes = [1], scan_input_directions = [1],
                                 scan_output_axes = [1],
                body = add (int64 a, int64[2] v) => (int64 b, int64[2] w) <int64[1] axes = {0}> {
                    r = ReduceSum <keepdims = 0> (v, axes)
                    b = Add (a, r)
                    w = Add (v, b)
                }> (s, x)
        }"#,
    );
    let x = Tensor::new::<i64>(&[2, 3], vec![1, 2, 3, 4, 5, 6]).unwrap();
    let out = run(&g, &[("s", Tensor::scalar(0i64)), ("x", x)]).unwrap();
    assert_eq!(ints(&out[0]), [21]);
    assert_eq!(out[1].tensor().unwrap().shape(), [2, 3]);
    assert_eq!(ints(&out[1]), [12, 18, 22, 15, 21, 25]);
}

#[test]
fn a_sequence_maps_element_by_element() {
    let g = graph(
        r#"g (int64[2, 2] x) => (int64[?, ?] y) <int64 ten = {10}> {
            rows = SplitToSequence <axis = 0> (x)
            sums = SequenceMap (rows, x) <body = add (int64[?, ?] r, int64[?, ?] all) => (int64[?, ?] s) {
                t = Add (r, all)
                s = Mul (t, ten)
            }>
            y = ConcatFromSequence <axis = 0> (sums)
        }"#,
    );
    let x = Tensor::new::<i64>(&[2, 2], vec![1, 2, 3, 4]).unwrap();
    let out = run(&g, &[("x", x)]).unwrap();
    assert_eq!(ints(&out[0]), [20, 40, 40, 60, 40, 60, 60, 80]);
}

#[test]
fn optionals_hold_a_value_or_none() {
    let g = graph(
        r#"g (float[2] x) => (bool full, bool blank, float[2] y) {
            some = Optional (x)
            none = Optional <type: type_proto = float[2]> ()
            full = OptionalHasElement (some)
            blank = OptionalHasElement (none)
            y = OptionalGetElement (some)
        }"#,
    );
    let x = Tensor::vector(vec![1f32, 2.0]);
    let out = run(&g, &[("x", x.clone())]).unwrap();
    assert_eq!((ints(&out[0]), ints(&out[1]), out[2].tensor().unwrap()), (vec![1], vec![0], &x));
}

/// Shape arithmetic keeps names: [N, 3, H, W] flattened by Shape → Slice → Concat → Reshape is [N, ?] and back.
#[test]
fn names_survive_shape_arithmetic() {
    let g = graph(
        r#"g (float[N, 3, H, 4] x) => (y, z) <int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2},
                int64[1] three = {3}, int64[1] rest = {-1}, int64 last = {3}, int64[1] first = {0}> {
            s = Shape (x)
            n = Slice (s, zero, one)
            h = Slice (s, two, three)
            wide = Gather <axis = 0> (s, last)
            w = Unsqueeze (wide, first)
            target = Concat <axis = 0> (n, h, w, rest)
            y = Reshape (x, target)
            back = Concat <axis = 0> (n, rest, h)
            z = Reshape (x, back)
        }"#,
    );
    let d = ir::Dim::symbol;
    let ty = |name: &str| g.ty(g.find(name).unwrap()).clone();
    assert_eq!(ty("y"), ValueType::tensor(DType::F32, vec![d("N"), d("H"), 4.into(), 3.into()]));
    assert_eq!(ty("z"), ValueType::tensor(DType::F32, vec![d("N"), 12.into(), d("H")]));
}

/// What no iteration gives had another rank before the types of the body were inferred than after.
#[test]
fn what_no_iteration_gives_has_the_inferred_shape() {
    let source = r#"g (int64 n, float[2,3] x) => (last, all) <bool yes = {1}> {
        last, all = Loop (n, yes, x) <body = step (int64 i, bool go, float[?,?] v) => (go, w, seen) {
            w = Relu (v)
            seen = Identity (w)
        }>
    }"#;
    let feeds: Feeds = [
        ("n".to_string(), Tensor::scalar(0i64).into()),
        ("x".to_string(), Tensor::new(&[2, 3], vec![1f32; 6]).unwrap().into()),
    ]
    .into();
    let mut g = text::parse(source, &Standard).unwrap();
    for _ in 0..2 {
        let out = Reference.run(&g, &feeds, &[]).unwrap().outputs;
        assert_eq!(out[1].tensor().unwrap().shape(), [0, 2, 3]);
        ir::infer(&mut g).unwrap();
    }
}

#[test]
fn a_body_with_too_few_results_is_the_models_fault() {
    let g = graph(
        r#"g (int64 n, int64 x) => (int64 y, a, b) <bool yes = {1}> {
            y, a, b = Loop (n, yes, x) <body = step (int64 i, bool go, int64 v) => (bool more, int64 w) {
                w = Add (v, v)
                more = Identity (go)
            }>
        }"#,
    );
    let e = run(&g, &[("n", Tensor::scalar(2i64)), ("x", Tensor::scalar(3i64))]).unwrap_err();
    assert_eq!(e.blame, ir::Blame::Model, "{e}");
}
