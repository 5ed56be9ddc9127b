//! `compress inspect`.

use crate::harness::{Dir, arg, compress, model};
use onnx::wire::put_delimited;

#[test]
fn lists_what_the_model_is_made_of() {
    let r = compress(&["inspect", arg(model()), "--json"]).ok();
    let j = r.json();
    assert_eq!(j["inputs"][0]["name"], "image");
    assert_eq!(j["unsupported"].as_array().unwrap().len(), 0);
    assert!(j["parameters"].as_u64().unwrap() > 200_000 && j["macs"].as_u64().unwrap() > 1_000_000);
    let text = compress(&["inspect", arg(model())]).ok().out;
    assert!(text.contains("Conv") && text.contains("total:"), "{text}");
}

#[test]
fn lists_all_that_is_not_supported_at_once() {
    let d = Dir::new("unknown");
    let mut graph = Vec::new();
    for (i, op) in ["Frobnicate", "Twiddle"].iter().enumerate() {
        let mut node = Vec::new();
        put_delimited(2, format!("v{i}").as_bytes(), &mut node);
        put_delimited(4, op.as_bytes(), &mut node);
        put_delimited(1, &node, &mut graph);
    }
    let mut opset = Vec::new();
    put_delimited(1, b"", &mut opset);
    opset.extend([0x10, 17]);
    let mut model = vec![0x08, 8];
    put_delimited(7, &graph, &mut model);
    put_delimited(8, &opset, &mut model);
    let m = d.write("m.onnx", &model);
    let j = compress(&["inspect", arg(&m), "--json"]).ok().json();
    let list = j["unsupported"].to_string();
    assert!(list.contains("Frobnicate") && list.contains("Twiddle"), "{list}");
    let r = compress(&["run", arg(&m), "--inputs", arg(&m), "--outputs", arg(&d.path("o.npz"))]);
    r.refused(1, &["Frobnicate", "Twiddle"]);
}

/// A reader that leaves early, as `head` does, is no error.
#[cfg(unix)]
#[test]
fn a_closed_pipe_is_quiet() {
    let script = "\"$@\" | :";
    let o = std::process::Command::new("sh")
        .args(["-c", script, "sh", env!("CARGO_BIN_EXE_compress"), "inspect", arg(model())])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&o.stderr), "");
}
