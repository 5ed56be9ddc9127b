//! `compress optimize`.

use crate::harness::{Dir, arg, arrays, compress, difference, model, one_input};

#[test]
fn keeps_the_answers_and_does_not_grow() {
    let d = Dir::new("optimize");
    let (m, i) = (d.path("m.onnx"), one_input(&d));
    let r = compress(&["optimize", arg(model()), "-o", arg(&m), "--json"]).ok();
    assert!(r.json()["nodes_after"].as_u64() <= r.json()["nodes_before"].as_u64());
    assert!(std::fs::metadata(&m).unwrap().len() <= std::fs::metadata(model()).unwrap().len());
    let (a, b) = (d.path("a.npz"), d.path("b.npz"));
    compress(&["run", arg(model()), "--inputs", arg(&i), "--outputs", arg(&a), "--reference"]).ok();
    compress(&["run", arg(&m), "--inputs", arg(&i), "--outputs", arg(&b), "--reference"]).ok();
    let (x, y) = (arrays(&a), arrays(&b));
    assert!(x.iter().all(|(k, t)| difference(t, &y[k]) < 1e-5));
    compress(&["optimize", arg(model()), "-o", arg(&m)]).refused(2, &["--force"]);
}
