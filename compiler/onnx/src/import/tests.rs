use super::*;
use crate::export::to_bytes;
use crate::rope::Rope;
use crate::testing::{Any, body, graph, int, ints, model, node, typed, value};
use ir::DType;
use std::time::Instant;

fn import(bytes: Vec<u8>) -> Result<Imported> {
    from_bytes(bytes, &Any)
}

fn chain() -> Vec<u8> {
    let nodes = vec![node("Relu", &["a"], &["y"], vec![]), node("Abs", &["x"], &["a"], vec![int("k", 1)])];
    model(13, graph(nodes, &[("x", &[2, 3])], &["y"]), vec![])
}

/// A function of the standard domain calling `calls` and returning its input through one node.
fn function(name: &str, calls: &[&str]) -> Rope {
    let mut f = Rope::new();
    f.text(1, name);
    f.text(4, "i");
    f.text(5, "o");
    let mut last = "i".to_string();
    for (k, c) in calls.iter().enumerate() {
        let out = if k + 1 == calls.len() { "o".to_string() } else { format!("t{k}") };
        let mut n = node(c, &[&last], &[&out], vec![]);
        n.text(7, if c.starts_with('F') { "local" } else { "" });
        f.message(7, n);
        last = out;
    }
    f.text(10, "local");
    f
}

fn calling(name: &str, functions: Vec<Rope>) -> Vec<u8> {
    let mut call = node(name, &["x"], &["y"], vec![]);
    call.text(7, "local");
    model(13, graph(vec![call], &[("x", &[2])], &["y"]), functions)
}

#[test]
fn nodes_in_any_order_are_sorted_and_names_stay() {
    let g = import(chain()).unwrap().graph;
    let names: Vec<String> =
        g.order().unwrap().into_iter().map(|id| g.node(id).unwrap().name.clone()).collect();
    assert_eq!(names, ["node_a", "node_y"]);
    assert_eq!(g.value_name(g.inputs()[0]), "x");
}

#[test]
fn cycles_are_errors_that_name_nodes() {
    let nodes = vec![node("Relu", &["b"], &["a"], vec![]), node("Relu", &["a"], &["b"], vec![])];
    let e = import(model(13, graph(nodes, &[], &["b"]), vec![])).unwrap_err();
    assert!(e.message.contains("node_a") && e.message.contains("node_b"), "{e}");
}

#[test]
fn undefined_and_doubly_defined_values_are_errors() {
    let nodes = vec![node("Add", &["x", "weight"], &["y"], vec![])];
    let e = import(model(13, graph(nodes, &[("x", &[1])], &["y"]), vec![])).unwrap_err();
    assert!(e.to_string().contains("'weight'"), "{e}");
    let nodes = vec![node("Abs", &["x"], &["y"], vec![]), node("Abs", &["x"], &["y"], vec![])];
    assert!(import(model(13, graph(nodes, &[("x", &[1])], &["y"]), vec![])).is_err());
}

#[test]
fn all_unknown_operators_are_reported_at_once() {
    let nodes = (0..3).map(|i| {
        let mut n = node("Unheard", &["x"], &[["y", "a", "b"][i]], vec![]);
        n.text(7, ["", "com.example", ""][i]);
        n
    });
    let e = import(model(13, graph(nodes.collect(), &[("x", &[1])], &["y"]), vec![])).unwrap_err();
    assert_eq!(e.blame, ir::Blame::Unsupported);
    assert!(e.message.contains("com.example.Unheard") && e.message.contains("2 nodes"), "{e}");
}

#[test]
fn operators_of_other_domains_that_are_functions_are_written_out() {
    let mut n = node("Twice", &["x"], &["y"], vec![]);
    n.text(7, "ir.");
    let g = import(model(13, graph(vec![n], &[("x", &[2])], &["y"]), vec![])).unwrap().graph;
    let ops: Vec<&str> = g.nodes().map(|(_, n)| n.op.name()).collect();
    assert_eq!(ops, ["Add"]);
    assert_eq!(g.value_name(g.outputs()[0].value), "y");
}

#[test]
fn subgraphs_capture_and_hide_names() {
    let inner = graph(vec![node("Abs", &["x"], &["late"], vec![])], &[], &["late"]);
    let nodes = vec![
        node("If", &["c"], &["a"], vec![body("then_branch", inner)]),
        // The same name as inside the branch: no cycle.
        node("Abs", &["a"], &["late"], vec![]),
    ];
    let g = import(model(13, graph(nodes, &[("x", &[1]), ("c", &[])], &["late"]), vec![])).unwrap().graph;
    let (_, n) = g.nodes().find(|(_, n)| n.op.name() == "If").unwrap();
    assert_eq!(n.captures(), [g.inputs()[0]]);
    let again = import(to_bytes(&g, &Any).unwrap()).unwrap().graph;
    assert_eq!(to_bytes(&again, &Any).unwrap(), to_bytes(&g, &Any).unwrap());
}

#[test]
fn negative_dims_are_unknown_and_huge_ones_are_refused() {
    let relu = || vec![node("Relu", &["x"], &["y"], vec![])];
    let g = import(model(13, graph(relu(), &[("x", &[-1, 3])], &["y"]), vec![])).unwrap().graph;
    assert_eq!(g.ty(g.inputs()[0]).shape().unwrap()[0], ir::Dim::Unknown);
    assert!(import(model(13, graph(relu(), &[("x", &[1 << 40, 1 << 40])], &["y"]), vec![])).is_err());
    let mut t = Rope::new();
    t.ints(1, &[1 << 40]);
    t.int(2, 1);
    t.text(8, "x");
    t.text(9, "abcd");
    let mut g = graph(relu(), &[], &["y"]);
    g.message(5, t);
    let e = import(model(13, g, vec![])).unwrap_err();
    assert_eq!(e.tensor.as_deref(), Some("x"));
}

#[test]
fn functions_are_inlined_with_their_own_names() {
    let m = import(calling("F", vec![function("F", &["Abs", "Relu"])])).unwrap().graph;
    let names: Vec<&str> = m.nodes().map(|(_, n)| n.op.name()).collect();
    assert_eq!(names, ["Abs", "Relu"]);
    assert_eq!(m.value_name(m.outputs()[0].value), "y");
}

#[test]
fn a_function_that_returns_its_input_leaves_the_input_its_name() {
    let mut f = Rope::new();
    f.text(1, "F");
    f.text(4, "i");
    f.text(5, "i");
    f.text(10, "local");
    let g = import(calling("F", vec![f])).unwrap().graph;
    assert_eq!(g.value_name(g.inputs()[0]), "x");
    assert_eq!(g.outputs()[0].value, g.inputs()[0]);
}

#[test]
fn function_bombs_are_refused_in_time() {
    let start = Instant::now();
    assert!(import(calling("F", vec![function("F", &["F"])])).is_err());
    // Each function calls the next eight times.
    let names: Vec<String> = (0..20).map(|i| format!("F{i}")).collect();
    let list = names.windows(2).map(|w| function(&w[0], &[w[1].as_str(); 8]));
    let list = list.chain([function("F19", &["Abs"])]).collect();
    assert_eq!(import(calling("F0", list)).unwrap_err().blame, ir::Blame::Limit);
    assert!(start.elapsed().as_secs() < 10);
}

#[test]
fn declared_shapes_that_are_wrong_do_no_harm() {
    let mut g = graph(vec![node("Relu", &["x"], &["y"], vec![])], &[("x", &[2])], &["y"]);
    g.message(13, value("y", &[7, 7]));
    assert!(import(model(13, g, vec![])).is_ok());
}

#[test]
fn damaged_files_never_panic() {
    let bytes = chain();
    for n in 0..bytes.len() {
        drop(import(bytes[..n].to_vec()));
        for bit in 0..8 {
            let mut b = bytes.clone();
            b[n] ^= 1 << bit;
            drop(import(b));
        }
    }
}

/// Shape arithmetic, a window and a loop, at an opset that is upgraded.
fn rich() -> Vec<u8> {
    let mut inner = graph(
        vec![node("Add", &["s", "x"], &["t"], vec![]), node("Identity", &["c"], &["d"], vec![])],
        &[],
        &["d", "t"],
    );
    inner.message(11, typed("i", DType::I64, &[]));
    inner.message(11, typed("c", DType::Bool, &[]));
    inner.message(11, value("s", &[1, 2, 4, 4]));
    let nodes = vec![
        node("Shape", &["x"], &["shape"], vec![]),
        node("Reshape", &["x", "shape"], &["same"], vec![]),
        node("Softmax", &["same"], &["p"], vec![int("axis", 1)]),
        node("MaxPool", &["p"], &["m"], vec![ints("kernel_shape", &[2, 2]), ints("strides", &[2, 2])]),
        node("Pad", &["m"], &["q"], vec![ints("pads", &[0, 0, 1, 1, 0, 0, 1, 1])]),
        node("Transpose", &["q"], &["r"], vec![ints("perm", &[0, 2, 3, 1])]),
        node("Loop", &["n", "", "x"], &["l"], vec![body("body", inner)]),
        node("ReduceMean", &["l"], &["y"], vec![ints("axes", &[2, 3])]),
        node("TopK", &["r"], &["z", ""], vec![int("k", 1)]),
    ];
    let mut g = graph(nodes, &[("x", &[1, 2, 4, 4])], &["y", "z"]);
    g.message(11, typed("n", DType::I64, &[]));
    model(9, g, vec![])
}

#[test]
fn damaged_files_never_panic_in_real_operators() {
    let bytes = rich();
    from_bytes(bytes.clone(), &ops::Standard).unwrap();
    for n in 0..bytes.len() {
        for v in [0, 1, 0x7f, 0xff, bytes[n] ^ 4, bytes[n].wrapping_add(1)] {
            let mut b = bytes.clone();
            b[n] = v;
            if let Err(e) = from_bytes(b, &ops::Standard) {
                assert_ne!(e.blame, ir::Blame::Internal, "byte {n} = {v}: {e}");
            }
        }
    }
}

#[test]
fn strings_that_are_not_models_are_errors() {
    for bytes in [&b""[..], b"hello", &[0; 64], &[0xff; 64]] {
        assert!(import(bytes.to_vec()).is_err());
    }
}
