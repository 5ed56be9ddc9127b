//! `compress fuzz` and `compress reduce`.

use crate::harness::{Dir, arg, compress, model};

#[test]
fn fuzzing_a_sound_pipeline_finds_nothing() {
    let d = Dir::new("fuzz");
    let p = d.write("p.toml", b"[[pass]]\nname = \"exact\"\nlevel = \"runtime\"\n[[pass]]\nname = \"run\"\n");
    let o = d.path("findings");
    let r = compress(&[
        "fuzz",
        "--time",
        "30s",
        "--executions",
        "60",
        "--pipeline",
        arg(&p),
        "--json",
        "-o",
        arg(&o),
    ])
    .ok();
    let j = r.json();
    assert!(j["graphs"].as_u64() > Some(30) && j["features"].as_u64() > Some(100), "{j}");
    assert_eq!(j["findings"].as_array().map(Vec::len), Some(0));
    assert!(!o.exists());
    for target in ["prescan_import", "container", "runtime_quant"] {
        compress(&["fuzz", "--target", target, "--executions", "200", "--time", "30s", "-o", arg(&o)]).ok();
    }
    let r = compress(&["fuzz", "--executions", "3", "--model", arg(model()), "--time", "60s", "-o", arg(&o)])
        .ok();
    assert!(r.out.contains("3 executions"), "{}", r.out);
}

#[test]
fn what_is_no_pipeline_is_refused() {
    let d = Dir::new("fuzz-refused");
    let p = d.write("p.toml", b"[[pass]]\nname = \"magic\"\n");
    compress(&["fuzz", "--pipeline", arg(&p)]).refused(1, &["p.toml", "magic"]);
    compress(&["fuzz", "--target", "nothing"]).refused(2, &["nothing"]);
    compress(&["reduce", arg(model()), "--pipeline", arg(&p)]).refused(1, &["magic"]);
    let p = d.write("q.toml", b"[[pass]]\nname = \"file\"\n");
    let o = d.path("min.onnx");
    compress(&["reduce", arg(model()), "--pipeline", arg(&p), "-o", arg(&o)])
        .refused(3, &["nothing to reduce"]);
    assert!(!o.exists());
}
