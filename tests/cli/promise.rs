//! What is promised of a file: bounds from outside, on degraded images, and with too few data.

use crate::harness::{Dir, arg, arrays, compress, model, one_input, samples};
use ir::{DType, Tensor};
use std::path::{Path, PathBuf};

/// The bundled digits from the 600th on, which no test compresses with.
fn unseen(d: &Dir, n: usize, labels: bool) -> PathBuf {
    let all = arrays(Path::new("tests/models/mnist-calib.npz"));
    let part = |name: &str, inner: &[usize]| {
        let t = &all[name];
        let width = t.dtype().storage_bytes(inner.iter().product::<usize>().max(1));
        let shape: Vec<usize> = std::iter::once(n).chain(inner.iter().copied()).collect();
        let bytes = t.bytes()[600 * width..(600 + n) * width].to_vec();
        (name.to_string(), Tensor::from_bytes(t.dtype(), &shape, bytes).unwrap())
    };
    let mut arrays = vec![part("image", &[1, 28, 28])];
    arrays.extend(labels.then(|| part("labels", &[])));
    let p = d.path(if labels { "labelled.npz" } else { "unlabelled.npz" });
    data::npz::write(&mut std::fs::File::create(&p).unwrap(), &arrays).unwrap();
    p
}

#[test]
fn a_file_is_judged_beside_another_and_by_labels() {
    let d = Dir::new("eval");
    let (data, out) = (samples(&d, 64), d.path("small.onnx"));
    let make = [
        arg(model()),
        "-o",
        arg(&out),
        "--data",
        arg(&data),
        "--methods",
        "int3",
        "--target-size",
        "15%",
        "-q",
    ];
    compress(&make).ok();
    let (labelled, plain) = (unseen(&d, 100, true), unseen(&d, 100, false));
    let one = compress(&["eval", arg(model()), "--data", arg(&labelled), "--json"]).ok().json();
    let value = |j: &serde_json::Value| j["value"].as_f64().unwrap();
    let q = &one["clean"]["original"];
    assert!(
        value(q) > 0.9 && q["low"].as_f64().unwrap() < value(q) && one["clean"]["drop"].is_null(),
        "{one}"
    );
    compress(&["eval", arg(model()), "--data", arg(&plain)]).refused(2, &["labels"]);
    let same = compress(&["eval", arg(model()), arg(model()), "--data", arg(&plain), "--json"]).ok().json();
    assert_eq!(same["clean"]["drop"], 0.0);
    // No loss among 100 still allows 3 % at 95 %.
    assert!((same["clean"]["bound"].as_f64().unwrap() - 0.0295).abs() < 1e-3, "{same}");
    let ways = "noise,blur,contrast,jpeg";
    let args = ["eval", arg(model()), arg(&out), "--data", arg(&labelled), "--robust", ways];
    let both = compress(&[&args[..], &["--json"]].concat()).ok().json();
    let robust = both["robust"].as_array().unwrap();
    assert_eq!((robust.len(), both["metric"].as_str()), (4, Some("top-1 accuracy")));
    for r in robust {
        let (a, b) = (value(&r["quality"]["original"]), value(&r["quality"]["compressed"]));
        assert!((r["quality"]["drop"].as_f64().unwrap() - (a - b)).abs() < 1e-9, "{r}");
    }
    assert_eq!(both, compress(&[&args[..], &["--json"]].concat()).ok().json());
    let shown = compress(&args).ok().out;
    for part in
        ["clean", "noise, σ 0.08", "blur, σ 1", "contrast × 0.4", "jpeg, quality 25", "at 95 % at most"]
    {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    compress(&["eval", arg(model()), arg(&out), "--data", arg(&plain), "--robust", "fog"])
        .refused(2, &["jpeg"]);
}

#[test]
fn calibration_may_see_degraded_images() {
    let d = Dir::new("robust");
    let (data, out) = (samples(&d, 96), d.path("x.onnx"));
    let args = [arg(model()), "-o", arg(&out), "--data", arg(&data), "--methods", "int4,int3", "--json"];
    let goal = ["--max-drop", "3%", "--robust", "noise,jpeg"];
    let report = compress(&[&args[..], &goal].concat()).ok().json();
    assert_eq!(report["repro"]["robust"].as_array().unwrap().len(), 2);
    let held = report["metric"]["samples"]["held_back"].as_u64().unwrap();
    // Both versions of a sample are on one side of the split, and count as one.
    assert!((44..=52).contains(&held), "{held}");
    assert_eq!(report["metric"]["held_back"]["samples"].as_u64().unwrap() * 2, held);
    let words = [arg(model()), "-o", arg(&out), "--robust", "noise"];
    assert_eq!(compress(&words).code, 2);
}

#[test]
fn too_few_data_support_no_promise_and_say_how_many_would() {
    let d = Dir::new("few");
    let out = d.path("x.onnx");
    let run = |data: &Path, extra: &[&str]| {
        let base =
            [arg(model()), "-o", arg(&out), "--data", arg(data), "--methods", "int8-weight", "--quiet"];
        compress(&[&base, extra].concat())
    };
    for n in [1, 5, 20] {
        run(&samples(&d, n), &[])
            .refused(3, &["cannot support the promise", "would be needed for 1.00 pt", "no file"]);
    }
    assert!(!out.exists());
    // Copies count once.
    let one = arrays(&one_input(&d))["image"].clone();
    let many = one.bytes().repeat(200);
    let many = Tensor::from_bytes(DType::F32, &[200, 1, 28, 28], many).unwrap();
    let copies = crate::harness::write_feeds(&d, "copies.npz", &[("image", many.into())]);
    run(&copies, &[]).refused(3, &["1 samples (of 200, the rest copies)"]);
    run(&samples(&d, 5), &["--unproven"]).ok();
    run(&samples(&d, 5), &["--target-size", "30%", "--force"]).ok();
    run(&samples(&d, 64), &["--force"]).ok();
}

#[test]
fn a_sparsity_is_shared_among_layers() {
    let d = Dir::new("sparsity");
    let (data, out) = (samples(&d, 64), d.path("x.onnx"));
    let run = |extra: &[&str]| {
        let base = [
            arg(model()),
            "-o",
            arg(&out),
            "--data",
            arg(&data),
            "--target-sparsity",
            "80%",
            "--json",
            "--force",
        ];
        compress(&[&base, extra].concat()).ok().json()
    };
    let (best, even) = (run(&[]), run(&["--ablate", "uniform"]));
    let recipes = |j: &serde_json::Value| {
        let all = j["layers"].as_array().unwrap().iter().map(|l| l["recipe"].as_str().unwrap().to_string());
        all.collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(recipes(&even), ["sparse 80%".to_string()].into());
    assert!(recipes(&best).len() > 1, "{:?}", recipes(&best));
    let predicted = |j: &serde_json::Value| j["predicted_distortion"].as_f64().unwrap();
    assert!(predicted(&best) < predicted(&even));
    run(&["--ablate", "global,no-compensation"]);
    let args = [arg(model()), "--data", arg(&data), "--ablate"];
    compress(&[&args[..], &["global"]].concat()).refused(2, &["--target-sparsity"]);
    compress(&[&args[..], &["everything"]].concat()).refused(2, &["greedy"]);
}
