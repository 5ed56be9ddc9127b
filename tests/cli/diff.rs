//! `compress diff`.

use crate::harness::{Dir, arg, compress, model, samples};

#[test]
fn a_model_equals_itself_and_a_compressed_one_nearly() {
    let d = Dir::new("diff");
    let data = samples(&d, 32);
    let j = compress(&["diff", arg(model()), arg(model()), "--json", "--data", arg(&data)]).ok().json();
    assert_eq!(j["outputs"][0]["relative_error"], 0.0);
    assert!(j["first_divergence"].is_null());
    let out = d.path("x.onnx");
    compress(&[arg(model()), "-o", arg(&out), "--methods", "int8-weight", "--quiet"]).ok();
    let j = compress(&["diff", arg(model()), arg(&out), "--json", "--data", arg(&data)]).ok().json();
    let e = j["outputs"][0]["relative_error"].as_f64().unwrap();
    assert!(e > 0.0 && e < 0.1, "{e}");
    assert!(j["first_divergence"]["value"].is_string(), "{j}");
}
