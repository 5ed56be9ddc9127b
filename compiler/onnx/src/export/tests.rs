use super::*;
use crate::import;
use crate::testing::Any;
use ir::{Attrs, Lookup};

fn op(name: &str) -> &'static dyn ir::Operator {
    Any.require("", name).unwrap()
}

/// x → Relu → MatMul(w) → y, with a second, equal weight.
fn small() -> Graph {
    let mut g = Graph::new("small");
    g.meta.opset = 13;
    g.meta.properties.insert("recipe".into(), "none".into());
    let x = g.add_input("x", ValueType::tensor(DType::F32, vec![Dim::symbol("N"), Dim::Known(64)]));
    let w = Tensor::new(&[64, 64], (0..4096).map(|i| i as f32).collect()).unwrap();
    let (a, b) = (g.add_initializer("a", w.clone()), g.add_initializer("b", w));
    let h = g.apply("h", op("Relu"), Attrs::new(), &[x]);
    let h = g.apply("m", op("MatMul"), Attrs::new(), &[h, a]);
    let y = g.apply("n", op("MatMul"), Attrs::new(), &[h, b]);
    g.add_output("y", y);
    g
}

#[test]
fn equal_weights_are_stored_once_and_bytes_repeat() {
    let bytes = to_bytes(&small(), &Any).unwrap();
    assert!(bytes.len() < 4096 * 4 + 512, "{}", bytes.len());
    assert_eq!(bytes, to_bytes(&small(), &Any).unwrap());
    let m = import::from_bytes(bytes.clone(), &Any).unwrap();
    assert_eq!(m.graph.meta.properties["recipe"], "none");
    assert_eq!(to_bytes(&m.graph, &Any).unwrap(), bytes);
}

#[test]
fn shared_outputs_and_passed_inputs_get_values_of_their_own() {
    let mut g = small();
    let (x, y) = (g.inputs()[0], g.outputs()[0].value);
    g.add_output("again", y);
    g.add_output("passed", x);
    let m = import::from_bytes(to_bytes(&g, &Any).unwrap(), &Any).unwrap().graph;
    let names: Vec<&str> = m.outputs().iter().map(|o| m.value_name(o.value)).collect();
    assert_eq!(names, ["y", "again", "passed"]);
}

/// A body whose output has no name and is what it was given: the node that copies it has a name from the first writing on.
#[test]
fn passed_inputs_without_a_name_are_written_alike_each_time() {
    let mut inner = Graph::new("inner");
    let v = inner.add_input("v", ValueType::Unknown);
    inner.add_output("", v);
    let mut g = small();
    let x = g.inputs()[0];
    let y = g.apply("loop", op("Loop"), Attrs::new().with("body", ir::Attr::Graph(inner.into())), &[x]);
    g.add_output("z", y);
    let bytes = to_bytes(&g, &Any).unwrap();
    let back = import::from_bytes(bytes.clone(), &Any).unwrap().graph;
    assert_eq!(to_bytes(&back, &Any).unwrap(), bytes);
}

#[test]
fn opset_rises_only_as_far_as_a_node_needs() {
    let mut g = small();
    let written = write(&g, &Any, &mut Vec::new()).unwrap();
    assert_eq!((written.opset, written.ir_version), (13, 7));
    let y = g.outputs()[0].value;
    let q = g.apply("q", op("DequantizeLinear"), Attrs::new().with("block_size", 32), &[y]);
    g.add_output("q", q);
    let written = write(&g, &Any, &mut Vec::new()).unwrap();
    assert_eq!((written.opset, written.ir_version), (21, 10));
}

#[test]
fn external_weights_come_back() {
    let dir = std::env::temp_dir().join(format!("compress-onnx-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let path = dir.join("m.onnx");
    let written = save_split(&small(), &Any, &path, 1000).unwrap();
    assert_eq!(written.external_bytes, 4096 * 4);
    let back = import::open(&path, &Any).unwrap().graph;
    assert_eq!(to_bytes(&back, &Any).unwrap(), to_bytes(&small(), &Any).unwrap());
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 2, "no temporary files stay");
    fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn internal_operators_are_written_out_in_subgraphs_too() {
    let twice = Any.require("ir.", "Twice").unwrap();
    let mut inner = Graph::new("inner");
    let c = inner.add_capture("x", ValueType::Unknown, 0);
    let v = inner.apply("t", twice, Attrs::new(), &[c]);
    inner.add_output("t", v);
    let mut g = small();
    let x = g.inputs()[0];
    let y = g.apply("y2", twice, Attrs::new(), &[x]);
    g.add_output("y2", y);
    let mut attrs = Attrs::new();
    attrs.set("then_branch", Attr::Graph(Box::new(inner)));
    let id = g.add_node("if", op("If"), attrs, &[Some(x)], &["z"]);
    g.set_captures(id, &[x]);
    let z = g.node(id).unwrap().output(0).unwrap();
    g.add_output("z", z);
    let back = import::from_bytes(to_bytes(&g, &Any).unwrap(), &Any).unwrap().graph;
    assert!(back.nodes().all(|(_, n)| n.op.domain().is_empty()));
    let (_, n) = back.nodes().find(|(_, n)| n.is("If")).unwrap();
    let names: Vec<&str> = n.attrs.graphs()[0].nodes().map(|(_, n)| n.op.name()).collect();
    assert_eq!(names, ["Add"]);
    assert_eq!(back.value_name(back.outputs()[1].value), "y2");
}

#[test]
fn an_internal_operator_without_expansion_is_named() {
    let mut g = small();
    let x = g.inputs()[0];
    let y = g.apply("odd", Any.require("ir.", "Odd").unwrap(), Attrs::new(), &[x]);
    g.add_output("odd", y);
    let e = to_bytes(&g, &Any).unwrap_err();
    assert_eq!((e.node.as_deref(), e.op.as_deref()), (Some("odd"), Some("ir.Odd")));
}
