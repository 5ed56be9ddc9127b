//! Single element-wise operators on floats: generated code gives the reference's values.

use compress_runtime::Session;
use ir::{Attrs, DType, Evaluate, Feeds, Graph, Kind, Reference, Tensor, ValueType};

/// Every element-wise operator of one or two float inputs, over negative, zero, positive and not finite values.
#[test]
fn every_float_operator_agrees_with_the_reference() {
    let mut seen = 0;
    let x = [-5.5f32, -2.0, -1.0, -0.5, -0.0, 0.0, 0.25, 0.5, 1.0, 2.0, 3.5, f32::INFINITY, f32::NAN];
    for op in ops::FAMILIES.iter().flat_map(|f| f.iter()) {
        let inputs = op.signature().inputs.len();
        let elementwise = matches!(op.kind(&Attrs::new()), Kind::Elementwise(_)) && op.domain().is_empty();
        if !elementwise || inputs > 2 || op.name() == "Dropout" {
            continue;
        }
        let mut g = Graph::new("g");
        g.meta.opset = 21;
        let (mut feeds, mut read) = (Feeds::new(), Vec::new());
        for (i, name) in ["a", "b"].iter().take(inputs).enumerate() {
            read.push(g.add_input(name, ValueType::known(DType::F32, &[x.len()])));
            let mut data = x.to_vec();
            data.rotate_left(5 * i);
            feeds.insert(name.to_string(), Tensor::new(&[x.len()], data).unwrap().into());
        }
        let y = g.apply("", *op, Attrs::new(), &read);
        g.add_output("y", y);
        // Operators of other types, or with attributes that have no default.
        let Ok(expected) = Reference.run(&g, &feeds, &[]) else { continue };
        seen += 1;
        let found = Session::from_graph(&g, 1).unwrap().evaluate(&feeds).unwrap();
        let (e, f) = (expected.outputs[0].tensor().unwrap(), found[0].tensor().unwrap());
        assert_eq!(e.dtype(), f.dtype(), "{}", op.name());
        for (k, (e, f)) in e.to_f64s().unwrap().into_iter().zip(f.to_f64s().unwrap()).enumerate() {
            let close = (e - f).abs() <= 4e-6 * (1.0 + e.abs()) || e == f || (e.is_nan() && f.is_nan());
            assert!(close, "{} of element {k}: {e} is not {f}", op.name());
        }
    }
    assert!(seen > 40, "only {seen} operators ran");
}
