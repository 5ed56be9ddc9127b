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

/// Loops are generated for what rows have elements for: of all lengths, alone, several as one and in pieces, every element is
/// made, by short bodies and long ones.
#[test]
fn rows_of_every_length_are_whole() {
    let lengths = (1..=17).chain([31, 48, 63, 64, 68, 1000, 16_388, 40_000]);
    let cases = lengths.flat_map(|n| [1usize, 3, 300].map(|rows| (rows, n)));
    for (rows, n) in cases.filter(|(rows, n)| rows * n <= 120_000) {
        for steps in [1, 7] {
            let mut g = Graph::new("g");
            g.meta.opset = 21;
            let x = g.add_input("x", ValueType::known(DType::F32, &[rows, n]));
            let values = |n: usize, by: f32| (0..n).map(|i| (i as f32 * by).sin()).collect::<Vec<f32>>();
            let b = g.add_initializer("b", Tensor::new(&[n], values(n, 0.7)).unwrap());
            let s = g.add_initializer("s", Tensor::new(&[rows, 1], values(rows, 1.3)).unwrap());
            let y = (0..steps).fold(x, |y, _| {
                let sum = g.apply("", ops::standard("Add").unwrap(), Attrs::new(), &[y, b]);
                g.apply("", ops::standard("Mul").unwrap(), Attrs::new(), &[sum, s])
            });
            g.add_output("y", y);
            let t = Tensor::new(&[rows, n], values(rows * n, 0.01)).unwrap();
            let feeds: Feeds = [("x".to_string(), t.into())].into_iter().collect();
            let expected =
                Reference.run(&g, &feeds, &[]).unwrap().outputs[0].tensor().unwrap().to_f32s().unwrap();
            let found = Session::from_graph(&g, 2).unwrap().evaluate(&feeds).unwrap();
            let found = found[0].tensor().unwrap().to_f32s().unwrap();
            let close = expected.iter().zip(&found).all(|(e, f)| (e - f).abs() <= 1e-5 * (1.0 + e.abs()));
            assert!(close, "{rows} rows of {n}, {steps} steps");
        }
    }
}
