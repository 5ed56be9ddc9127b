//! Fronts, recipes, settings from files, explanations, and judges from outside.

use crate::harness::{Dir, arg, compress, model, samples};
use std::fs::{read, read_to_string, write};

#[test]
fn a_front_falls_and_a_point_of_it_can_be_had() {
    let d = Dir::new("front");
    let (data, out) = (samples(&d, 128), d.path("m.onnx"));
    let methods = ["--methods", "int8-weight,int4,int2"];
    let pareto = [&[arg(model()), "--pareto", "--data", arg(&data), "-o", arg(&out)], &methods[..]].concat();
    let shown = compress(&pareto).ok();
    assert!(shown.out.contains("predicted error"), "{}", shown.out);
    compress(&pareto).refused(2, &["exists already"]);
    let front: serde_json::Value = serde_json::from_slice(&read(d.path("m.front.json")).unwrap()).unwrap();
    let points = front["points"].as_array().unwrap();
    let bytes: Vec<u64> = points.iter().map(|p| p["bytes"].as_u64().unwrap()).collect();
    assert!(bytes.len() > 3 && bytes.windows(2).all(|w| w[0] > w[1]), "{bytes:?}");
    assert!(read_to_string(d.path("m.front.html")).unwrap().contains("<polyline"));
    let file = arg(&d.path("m.front.json")).to_string();
    compress(&["pick", &file, "2", "-o", arg(&out), "--quiet"]).ok();
    let got = std::fs::metadata(&out).unwrap().len() as f64;
    assert!((got / bytes[1] as f64 - 1.0).abs() < 0.05, "{got} {bytes:?}");
    compress(&["pick", &file, "99"]).refused(2, &["points 1 to"]);
    compress(&["pick", &file, "--target-size", "10"]).refused(3, &["no point"]);
}

#[test]
fn a_report_repeats_its_run_to_the_byte_and_explains_it() {
    let d = Dir::new("recipe");
    let data = samples(&d, 128);
    let (a, b) = (d.path("a.onnx"), d.path("b.onnx"));
    let all = ["--data", arg(&data), "--max-drop", "2%", "--methods=-channels", "--quiet"];
    compress(&[&[arg(model()), "-o", arg(&a)], &all[..]].concat()).ok();
    let report = d.path("a.report.json");
    compress(&[arg(model()), "-o", arg(&b), "--data", arg(&data), "--recipe", arg(&report), "--quiet"]).ok();
    assert!(read(&a).unwrap() == read(&b).unwrap());
    let told = compress(&["explain", arg(&report), "--layer", "Gemm"]).ok();
    assert!(told.out.contains("fix it: --layer") && told.out.contains("candidate"), "{}", told.out);
    compress(&["explain", arg(&report), "--layer", "no such layer"]).refused(1, &["no layer matches"]);
    compress(&["explain", arg(model())]).refused(1, &["not a .report.json"]);
}

#[test]
fn settings_come_from_a_file_and_arguments_go_before_them() {
    let d = Dir::new("config");
    let (data, out, toml) = (samples(&d, 64), d.path("m.onnx"), d.path("c.toml"));
    let text = format!(
        "data = {:?}\noutput = {:?}\nmax-drop = \"3%\"\nmethods = [\"int8-weight\"]\nlayer = [\"Gemm=keep\"]\n",
        arg(&data),
        arg(&out)
    );
    write(&toml, text).unwrap();
    let j = compress(&[arg(model()), "--config", arg(&toml), "--json", "--max-drop", "4%"]).ok().json();
    assert_eq!(j["goal"], "max drop 4%");
    let methods: Vec<&str> =
        j["layers"].as_array().unwrap().iter().map(|l| l["method"].as_str().unwrap()).collect();
    assert!(methods.contains(&"int8-weight") && methods.contains(&"keep"), "{methods:?}");
    write(&toml, "max-dorp = \"3%\"\n").unwrap();
    compress(&[arg(model()), "--config", arg(&toml)]).refused(2, &["max-dorp"]);
}

#[cfg(unix)]
#[test]
fn a_command_may_judge() {
    let d = Dir::new("judge");
    let (data, out) = (samples(&d, 64), d.path("m.onnx"));
    // Prefers files of more than 600 kB: what is left is about that.
    let judge =
        d.write("judge.sh", b"b=$(wc -c < \"$1\"); echo bytes $b; [ $b -gt 600000 ] && echo 1 || echo 0.5\n");
    let command = format!("cmd:sh {}", arg(&judge));
    let base = [arg(model()), "-o", arg(&out), "--data", arg(&data), "--methods", "int8-weight,int4,int2"];
    let j = compress(&[&base[..], &["--metric", &command, "--json"]].concat()).ok().json();
    assert_eq!(j["metric"]["name"], "score of the judge");
    assert!(std::fs::metadata(&out).unwrap().len() > 600_000);
    assert_eq!(d.files().iter().filter(|f| f.contains("candidate")).count(), 0);
    compress(&[&base[..], &["--metric", "cmd:true", "--force"]].concat()).refused(1, &["printed no number"]);
    compress(&[&base[..], &["--metric", "best", "--force"]].concat()).refused(2, &["top5"]);
}
