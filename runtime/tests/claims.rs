//! Declared shapes are claims: what a model computes may differ from them.

use compress_runtime::Session;
use ir::{Attrs, DType, Feeds, Graph, Tensor, Value, ValueType};

fn evaluate(g: &Graph, feeds: &[(&str, Tensor)]) -> Vec<Value> {
    let feeds: Feeds = feeds.iter().map(|(n, t)| (n.to_string(), t.clone().into())).collect();
    let out = Session::from_graph(g, 1).unwrap().evaluate(&feeds).unwrap();
    assert_eq!(out, ir::Evaluate::run(&ir::Reference, g, &feeds, &[]).unwrap().outputs);
    out
}

fn op(name: &str) -> &'static dyn ir::Operator {
    ops::standard(name).unwrap()
}

#[test]
fn a_size_that_depends_on_values_may_differ_from_the_declared_one() {
    let mut g = Graph::new("claims");
    g.meta.opset = 21;
    let x = g.add_input("x", ValueType::known(DType::F32, &[5]));
    let indices = g.apply("", op("NonZero"), Attrs::new(), &[x]);
    let y = g.apply("", op("Neg"), Attrs::new(), &[indices]);
    g.set_type(y, ValueType::known(DType::I64, &[1, 3]));
    g.add_output("y", y);
    let out = evaluate(&g, &[("x", Tensor::vector(vec![1.0f32, 0.0, 2.0, 3.0, 4.0]))]);
    assert_eq!(out[0].tensor().unwrap().shape(), [1, 4]);
}

#[test]
fn a_loop_may_give_another_rank_than_its_body_declares() {
    let mut body = Graph::new("body");
    body.add_input("i", ValueType::known(DType::I64, &[]));
    let go = body.add_input("go", ValueType::known(DType::Bool, &[]));
    let state = body.add_input("state", ValueType::known(DType::F32, &[]));
    // A rank that no type tells: in the first iteration 1, then 2.
    let one = body.add_initializer("one", Tensor::vector(vec![0i64]));
    let more = body.apply("", op("Unsqueeze"), Attrs::new(), &[state, one]);
    body.set_type(more, ValueType::known(DType::F32, &[]));
    body.add_output("go", go);
    body.add_output("more", more);
    let mut g = Graph::new("claims");
    g.meta.opset = 21;
    let x = g.add_input("x", ValueType::known(DType::F32, &[]));
    let n = g.add_initializer("n", Tensor::scalar(2i64));
    let yes = g.add_initializer("yes", Tensor::scalar(true));
    let y = g.apply("", op("Loop"), Attrs::new().with("body", ir::Attr::Graph(Box::new(body))), &[n, yes, x]);
    g.set_type(y, ValueType::known(DType::F32, &[]));
    let z = g.apply("", op("Neg"), Attrs::new(), &[y]);
    g.set_type(z, ValueType::known(DType::F32, &[]));
    g.add_output("z", z);
    let out = evaluate(&g, &[("x", Tensor::scalar(7.0f32))]);
    assert_eq!(out[0].tensor().unwrap().shape(), [1, 1]);
}
