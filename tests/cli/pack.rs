//! `compress pack`, `compress unpack`, and containers as models.

use crate::harness::{Dir, arg, arrays, compress, model, one_input, samples};

#[test]
fn a_packed_model_is_smaller_comes_back_and_runs() {
    let d = Dir::new("pack");
    let (packed, back) = (d.path("m.cmpx"), d.path("m.onnx"));
    compress(&["pack", arg(model()), "-o", arg(&packed)]).ok();
    let (before, after) = (std::fs::read(model()).unwrap(), std::fs::read(&packed).unwrap());
    // Float weights: their exponents alone are predictable.
    assert!(after.len() * 100 < before.len() * 90, "{} → {}", before.len(), after.len());
    compress(&["unpack", arg(&packed), "-o", arg(&back)]).ok();
    assert!(std::fs::read(&back).unwrap() == before);
    let input = one_input(&d);
    let answer = |m: &str, o: &str| {
        let out = d.path(o);
        compress(&["run", m, "--inputs", arg(&input), "--outputs", arg(&out)]).ok();
        arrays(&out)
    };
    assert_eq!(answer(arg(model()), "a.npz"), answer(arg(&packed), "b.npz"));
    compress(&["inspect", arg(&packed)]).ok();
}

#[test]
fn a_search_for_a_container_ends_smaller_than_a_packed_file() {
    let d = Dir::new("pack-search");
    let data = samples(&d, 256);
    let (plain, container, repacked) = (d.path("p.onnx"), d.path("c.cmpx"), d.path("r.cmpx"));
    compress(&[arg(model()), "-o", arg(&plain), "--data", arg(&data), "--quiet"]).ok();
    compress(&["pack", arg(&plain), "-o", arg(&repacked), "--quiet"]).ok();
    let told = compress(&[arg(model()), "-o", arg(&container), "--data", arg(&data), "--json"]).ok().json();
    let size = |p: &std::path::Path| std::fs::metadata(p).unwrap().len();
    assert!(size(&container) < size(&repacked), "{} {}", size(&container), size(&repacked));
    assert_eq!(told["output"]["bytes"], size(&container));
    let run = compress(&["diff", arg(model()), arg(&container), "--data", arg(&data), "--json"]).ok().json();
    assert!(run["outputs"][0]["relative_error"].as_f64().unwrap() < 0.2, "{run}");
}

#[test]
fn what_is_no_container_is_refused() {
    let d = Dir::new("pack-bad");
    let packed = d.path("m.cmpx");
    compress(&["unpack", arg(model()), "-o", arg(&packed)]).refused(1, &["no .cmpx container"]);
    compress(&["pack", arg(model()), "-o", arg(&packed), "--quiet"]).ok();
    compress(&["pack", arg(&packed), "-o", arg(&d.path("n.cmpx"))]).refused(1, &["container already"]);
    compress(&["pack", arg(model()), "-o", arg(&packed)]).refused(2, &["exists already", "--force"]);
    let mut bytes = std::fs::read(&packed).unwrap();
    let half = bytes.len() / 2;
    bytes[half] ^= 1;
    let bad = d.write("bad.cmpx", &bytes);
    compress(&["inspect", arg(&bad)]).refused(1, &["damaged"]);
    compress(&["run", arg(&bad), "--inputs", "x.npz", "--outputs", arg(&d.path("o.npz"))])
        .refused(1, &["damaged"]);
    let short = d.write("short.cmpx", b"CMPX\x01\xff\xff\xff\xff\xff\xff\x7f");
    compress(&["inspect", arg(&short)]).refused(1, &["more than"]);
}
