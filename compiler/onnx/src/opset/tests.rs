use super::*;
use crate::import::from_bytes;
use crate::testing::{Any, floats, graph, int, model, node, value};
use ir::Graph;

/// The graph of one node with input `x` of a shape, at an opset.
fn one(opset: i64, op: &str, shape: &[i64], attrs: Vec<crate::rope::Rope>) -> Graph {
    let g = graph(vec![node(op, &["x"], &["y"], attrs)], &[("x", shape)], &["y"]);
    from_bytes(model(opset, g, vec![]), &Any).unwrap().graph
}

fn ops(g: &Graph) -> Vec<&'static str> {
    g.order().unwrap().into_iter().map(|id| g.node(id).unwrap().op.name()).collect()
}

#[test]
fn steps_ascend_by_version_for_each_operator() {
    assert!(STEPS.windows(2).all(|w| w[0].1 <= w[1].1 || w[1].0.iter().all(|o| !w[0].0.contains(o))));
    for (i, (names, version, _)) in STEPS.iter().enumerate() {
        for (later, next, _) in &STEPS[i..] {
            assert!(names.iter().all(|n| !later.contains(n)) || next >= version, "{names:?}");
        }
    }
}

#[test]
fn upsample_with_scales_becomes_resize() {
    let g = one(7, "Upsample", &[1, 1, 2, 2], vec![floats("scales", &[1.0, 1.0, 2.0, 2.0])]);
    assert_eq!(ops(&g), ["Resize"]);
    let (_, n) = g.nodes().next().unwrap();
    assert_eq!(g.constant(n.input(2).unwrap()).unwrap().to_f32s().unwrap(), [1.0, 1.0, 2.0, 2.0]);
    assert_eq!(n.attrs.str("coordinate_transformation_mode").unwrap(), Some("asymmetric"));
}

#[test]
fn softmax_of_the_last_axis_stays_and_others_are_flattened() {
    assert_eq!(ops(&one(11, "Softmax", &[2, 3], vec![])), ["Softmax"]);
    let g = one(11, "Softmax", &[2, 3, 4], vec![int("axis", 1)]);
    let mut names = ops(&g);
    names.sort_unstable();
    assert_eq!(names, ["Flatten", "Reshape", "Shape", "Softmax"]);
    assert_eq!(g.value_name(g.outputs()[0].value), "y");
    assert_eq!(ops(&one(13, "Softmax", &[2, 3, 4], vec![int("axis", 1)])), ["Softmax"]);
}

#[test]
fn old_dropout_has_no_ratio_and_old_topk_has_its_count_as_input() {
    let g = one(9, "Dropout", &[2], vec![]);
    assert!(g.nodes().next().unwrap().1.attrs.is_empty());
    let g = one(1, "TopK", &[8], vec![int("k", 3)]);
    let n = g.nodes().next().unwrap().1;
    assert_eq!(g.constant(n.input(1).unwrap()).unwrap().to_i64s().unwrap(), [3]);
}

/// A computed operand may be known to be empty at one reading and not at the next: whatever a file declares, it stays.
#[test]
fn empty_operands_of_resize_are_absent_where_they_are_initializers() {
    let read = |computed: bool| {
        let resize = node("Resize", &["x", "", "e"], &["y"], vec![]);
        let nodes = if computed { vec![node("Some", &["x"], &["e"], vec![]), resize] } else { vec![resize] };
        let mut g = graph(nodes, &[("x", &[1, 1, 2, 2])], &["y"]);
        if computed {
            g.message(12, value("e", &[0]));
        } else {
            let mut t = crate::rope::Rope::new();
            t.int(1, 0);
            t.int(2, 1);
            t.text(8, "e");
            g.message(5, t);
        }
        let g = from_bytes(model(18, g, vec![]), &Any).unwrap().graph;
        let n = g.nodes().find(|(_, n)| n.op.name() == "Resize").unwrap().1;
        n.input(2).is_some()
    };
    assert!(read(true));
    assert!(!read(false));
}
