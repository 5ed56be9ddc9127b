//! Arrays in and out: borrowed, strided, passed through, wrong.

use compress_runtime::ndarray::{Array2, Axis, arr2};
use compress_runtime::{Blame, DType, Graph, Session, Tensor, inputs};
use ir::ValueType;

/// `y = x + x`, and `x` itself as an output.
fn doubled() -> Session {
    let mut g = Graph::new("doubled");
    g.meta.opset = 21;
    let x = g.add_input("x", ValueType::tensor(DType::F32, vec![ir::Dim::symbol("n"), 3.into()]));
    let y = g.apply("", ops::standard("Add").unwrap(), ir::Attrs::new(), &[x, x]);
    g.add_output("y", y);
    g.add_output("x", x);
    Session::options().threads(1).graph(&g)
}

#[test]
fn views_of_any_layout_give_the_same() {
    let (s, a) = (doubled(), arr2(&[[1f32, 2.0, 3.0], [4.0, 5.0, 6.0]]));
    let transposed = a.t().as_standard_layout().into_owned();
    for out in [
        s.run(&inputs! { "x" => &a }).unwrap(),
        s.run(&inputs! { "x" => a.view() }).unwrap(),
        s.run(&inputs! { "x" => transposed.t() }).unwrap(),
        s.run(&inputs! { "x" => Tensor::new(&[2, 3], a.iter().copied().collect()).unwrap() }).unwrap(),
    ] {
        assert_eq!(out.view::<f32>("y").unwrap(), (&a * 2.0).into_dyn());
        assert_eq!(out.view::<f32>(1).unwrap(), a.view().into_dyn());
    }
    // Rows of three floats start anywhere.
    let mut rows = a.clone();
    rows.slice_axis_inplace(Axis(0), (1..2).into());
    let out = s.run(&inputs! { "x" => &rows }).unwrap();
    assert_eq!(out.view::<f32>("y").unwrap(), arr2(&[[8f32, 10.0, 12.0]]).into_dyn());
}

#[test]
fn an_input_that_is_an_output_outlives_the_array() {
    let s = doubled();
    let out = {
        let a = Array2::<f32>::ones((4, 3));
        s.run(&inputs! { "x" => &a }).unwrap()
    };
    assert_eq!(out.view::<f32>("x").unwrap().sum(), 12.0);
    assert_eq!(out.len(), 2);
}

#[test]
fn wrong_inputs_are_named() {
    let (s, a) = (doubled(), Array2::<f32>::ones((4, 3)));
    let blame = |r: compress_runtime::Result<compress_runtime::Outputs>| r.map(drop).unwrap_err();
    let e = blame(s.run(&inputs! { "z" => &a }));
    assert!(e.blame == Blame::Data && e.message.contains("'z'"), "{e}");
    let e = blame(s.run(&[]));
    assert!(e.blame == Blame::Data && e.message.contains("'x' is missing"), "{e}");
    let e = blame(s.run(&inputs! { "x" => &Array2::<i64>::ones((4, 3)) }));
    assert!(e.blame == Blame::Data && e.tensor.as_deref() == Some("x"), "{e}");
    let out = s.run(&inputs! { "x" => &a }).unwrap();
    assert!(out.view::<i64>("y").is_err() && out.view::<f32>("z").is_err() && out.get(2).is_err());
}

#[test]
fn sessions_are_shared_between_threads() {
    let s = &doubled();
    let sums: Vec<f32> = std::thread::scope(|scope| {
        let runs = (0..4).map(|i| {
            scope.spawn(move || {
                let a = Array2::<f32>::from_elem((5, 3), i as f32);
                s.run(&inputs! { "x" => &a }).unwrap().view::<f32>("y").unwrap().sum()
            })
        });
        runs.collect::<Vec<_>>().into_iter().map(|h| h.join().unwrap()).collect()
    });
    assert_eq!(sums, [0.0, 30.0, 60.0, 90.0]);
}
