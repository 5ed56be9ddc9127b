use super::*;
use crate::import::from_bytes;
use crate::testing::{Any, floats, graph, int, model, node};
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
