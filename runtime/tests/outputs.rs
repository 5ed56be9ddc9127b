//! One value may be several outputs.

use compress_runtime::Session;
use ir::{DType, Feeds, Graph, Tensor, ValueType};

#[test]
fn a_value_of_unknown_size_is_two_outputs() {
    let mut g = Graph::new("twice");
    g.meta.opset = 21;
    let x = g.add_input("x", ValueType::known(DType::F32, &[3]));
    let y = g.apply("", ops::standard("NonZero").unwrap(), ir::Attrs::new(), &[x]);
    g.add_output("y", y);
    g.add_output("z", y);
    let feeds = Feeds::from([("x".to_string(), Tensor::vector(vec![1.0f32, 0.0, 2.0]).into())]);
    let out = Session::from_graph(&g, 1).unwrap().evaluate(&feeds).unwrap();
    assert_eq!(out[0].tensor().unwrap().to_i64s().unwrap(), [0, 2]);
    assert_eq!(out[0], out[1]);
}
