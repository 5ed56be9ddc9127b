//! Goals of speed, the file of times, and limits on time.

use crate::harness::{Dir, arg, compress, model, samples};

#[test]
fn the_fastest_is_measured_and_its_recipe_repeats_it() {
    let d = Dir::new("fastest");
    let (data, out, costs) = (samples(&d, 160), d.path("fast.onnx"), d.path("costs.jsonl"));
    let goal = ["--data", arg(&data), "--fastest", "--max-drop", "5%", "--costs", arg(&costs)];
    let r = compress(&[&[arg(model()), "-o", arg(&out), "--json"], &goal[..]].concat());
    let known = std::fs::read_to_string(&costs).unwrap();
    assert!(known.lines().count() > 4 && known.contains("\"recipe\":\"keep\""), "{known}");
    if r.code == 3 {
        // A CPU whose integers are not faster: nothing is written.
        assert!(!out.exists() && r.err.contains("no file written"), "{}", r.err);
        return;
    }
    let r = r.ok().json();
    assert_eq!(r["goal"], "fastest, max drop 5%");
    let ms = |which: &str| r["latency"][which]["median_ms"].as_f64().unwrap();
    assert!(ms("compressed") <= ms("original"), "{}", r["latency"]);
    let layers = r["layers"].as_array().unwrap();
    assert!(layers.iter().any(|l| l["ns_after"].as_f64() < l["ns_before"].as_f64()), "{layers:?}");
    let html = std::fs::read_to_string(d.path("fast.report.html")).unwrap();
    assert!(html.contains("ns before") && html.contains("Measured in this run"));
    let explained = compress(&["explain", arg(&d.path("fast.report.json"))]).ok().out;
    assert!(explained.contains("one run"), "{explained}");
    // Nothing is measured again: not by the recipe, and layers not by a second run.
    let (again, none) = (d.path("again.onnx"), d.path("none.jsonl"));
    let report = d.path("fast.report.json");
    let args = [
        arg(model()),
        "-o",
        arg(&again),
        "--data",
        arg(&data),
        "--recipe",
        arg(&report),
        "--costs",
        arg(&none),
    ];
    compress(&args).ok();
    assert!(std::fs::read(&out).unwrap() == std::fs::read(&again).unwrap() && !none.exists());
    compress(&[&[arg(model()), "--dry-run", "--quiet"], &goal[..]].concat());
    assert_eq!(std::fs::read_to_string(&costs).unwrap(), known);
}

#[test]
fn a_latency_that_cannot_be_reached_is_refused() {
    let d = Dir::new("latency");
    let (data, out, costs) = (samples(&d, 48), d.path("x.onnx"), d.path("costs.jsonl"));
    let base =
        [arg(model()), "-o", arg(&out), "--data", arg(&data), "--costs", arg(&costs), "--methods", "int8"];
    compress(&[&base[..], &["--target-latency", "1%"]].concat())
        .refused(3, &["target latency 1%", "no file written"]);
    compress(&[&base[..], &["--target-latency", "900%"]].concat()).refused(3, &["nothing gained"]);
    compress(&[&base[..], &["--target-latency", "5s"]].concat()).refused(2, &["5ms or 60%"]);
    compress(&[arg(model()), "--fastest"]).refused(2, &["--data"]);
    assert_eq!(compress(&[&base[..], &["--fastest", "--target-size", "30%"]].concat()).code, 2);
    assert!(!out.exists());
}

#[test]
fn the_smallest_is_the_default() {
    let d = Dir::new("smallest");
    let data = samples(&d, 48);
    let run = |name: &str, more: &[&str]| {
        let out = d.path(name);
        compress(
            &[&[arg(model()), "-o", arg(&out), "--data", arg(&data), "--methods", "int4,int8-weight"], more]
                .concat(),
        )
        .ok();
        std::fs::read(out).unwrap()
    };
    assert!(run("a.onnx", &[]) == run("b.onnx", &["--smallest"]));
}

#[test]
fn a_limit_on_time_is_kept_and_told() {
    let d = Dir::new("time");
    let (data, out) = (samples(&d, 256), d.path("x.onnx"));
    let r = compress(&[arg(model()), "-o", arg(&out), "--data", arg(&data), "--time", "0.6s", "--json"]);
    match r.code {
        0 => {
            let j = r.json();
            let told = |n: &serde_json::Value| n.as_str().unwrap().contains("--time");
            assert!(j["notes"].as_array().unwrap().iter().any(told), "{}", j["notes"]);
            assert!(j["metric"]["held_back"]["drop"].as_f64().unwrap() <= 0.01);
            assert!(j["repro"]["seconds"].as_f64().unwrap() < 6.0, "{}", j["repro"]);
        }
        _ => r.refused(3, &["--time"]),
    }
    let r = compress(&[arg(model()), "--time", "soon"]);
    assert!(r.code == 2 && r.err.contains("60s or 2m"), "{} {}", r.code, r.err);
}
