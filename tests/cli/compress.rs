//! The main job.

use crate::harness::{Dir, arg, compress, model, one_input, samples, write_feeds, write_graph};
use ir::{Attrs, DType, Graph, Tensor, Value, ValueType};

#[test]
fn writes_a_smaller_file_inside_the_budget_with_its_reports() {
    let d = Dir::new("main");
    let (data, out) = (samples(&d, 160), d.path("small.onnx"));
    let r = compress(&[arg(model()), "-o", arg(&out), "--data", arg(&data), "--max-drop", "1%"]).ok();
    assert!(r.out.contains("smaller"), "{}", r.out);
    assert_eq!(d.files(), ["samples.npz", "small.onnx", "small.report.html", "small.report.json"]);
    let (before, after) = (std::fs::metadata(model()).unwrap().len(), std::fs::metadata(&out).unwrap().len());
    assert!(after * 3 < before, "{before} → {after}");
    let report: serde_json::Value =
        serde_json::from_slice(&std::fs::read(d.path("small.report.json")).unwrap()).unwrap();
    assert_eq!(report["verdict"], "met");
    assert_eq!(report["output"]["bytes"], after);
    assert!(report["layers"].as_array().unwrap().len() >= 5);
    for l in report["layers"].as_array().unwrap() {
        assert!(l["pin"].as_str().unwrap().contains('='), "{l}");
    }
    let html = std::fs::read_to_string(d.path("small.report.html")).unwrap();
    assert!(html.contains("<svg") && !html.contains("<script") && !html.contains("http"), "self-contained");
    let back = onnx::open(&out, &ops::Standard).unwrap().graph;
    assert!(back.meta.properties["compress.recipe"].contains("max drop 1%"));
    assert_eq!(back.meta.properties["compress.input_blake3"].len(), 64);
}

#[test]
fn same_bytes_for_any_thread_count_and_any_run() {
    let d = Dir::new("bytes");
    let data = samples(&d, 64);
    let run = |name: &str, threads: &str| {
        let out = d.path(name);
        compress(&[arg(model()), "-o", arg(&out), "--data", arg(&data), "--threads", threads, "--quiet"])
            .ok();
        std::fs::read(out).unwrap()
    };
    let first = run("a.onnx", "1");
    assert!(first == run("b.onnx", "2"), "one thread against two");
    assert!(first == run("c.onnx", "1"), "the same command twice");
}

#[test]
fn a_dry_run_writes_nothing() {
    let d = Dir::new("dry");
    let data = samples(&d, 48);
    let r =
        compress(&[arg(model()), "-o", arg(&d.path("x.onnx")), "--data", arg(&data), "--dry-run", "--json"])
            .ok();
    assert_eq!(r.json()["schema"], 1);
    assert_eq!(d.files(), ["samples.npz"]);
}

#[test]
fn without_data_the_report_says_so() {
    let d = Dir::new("blind");
    let out = d.path("x.onnx");
    let r = compress(&[arg(model()), "-o", arg(&out)]).ok();
    assert!(r.out.contains("no data given"), "{}", r.out);
    assert!(std::fs::metadata(out).unwrap().len() < std::fs::metadata(model()).unwrap().len());
}

#[test]
fn a_size_goal_is_met_or_refused() {
    let d = Dir::new("size");
    let (data, out) = (samples(&d, 64), d.path("x.onnx"));
    compress(&[arg(model()), "-o", arg(&out), "--data", arg(&data), "--target-size", "30%", "--quiet"]).ok();
    assert!(std::fs::metadata(&out).unwrap().len() * 10 <= std::fs::metadata(model()).unwrap().len() * 3);
    let none = d.path("none.onnx");
    let r = compress(&[arg(model()), "-o", arg(&none), "--data", arg(&data), "--target-size", "600"]);
    r.refused(3, &["no file written"]);
    assert!(!none.exists());
}

/// What a file says of how it was made is part of it.
#[test]
fn a_size_is_that_of_the_whole_file() {
    let d = Dir::new("whole");
    let wave = |n: usize, step: f32| (0..n).map(|i| (i as f32 * step).sin() * 1.5).collect::<Vec<f32>>();
    let mut g = Graph::new("g");
    let x = g.add_input("x", ValueType::known(DType::F32, &[1, 16]));
    let w = g.add_initializer("w", Tensor::new(&[16, 72], wave(16 * 72, 12.9)).unwrap());
    let y = g.apply("y", ops::standard("MatMul").unwrap(), Attrs::new(), &[x, w]);
    g.add_output("y", y);
    let m = write_graph(&d, "m.onnx", &g);
    let x = Value::Tensor(Tensor::new(&[64, 1, 16], wave(64 * 16, 0.37)).unwrap());
    let data = write_feeds(&d, "x.npz", &[("x", x)]);
    let mut written = 0;
    for (name, most) in
        ["x.cmpx", "x.onnx"].into_iter().flat_map(|n| (1000..2000u64).step_by(80).map(move |s| (n, s)))
    {
        let (out, size) = (d.path(name), most.to_string());
        let r = compress(&[
            arg(&m),
            "-o",
            arg(&out),
            "--data",
            arg(&data),
            "--target-size",
            &size,
            "--quiet",
            "--force",
        ]);
        match std::fs::metadata(&out) {
            Ok(file) => assert!(r.code == 0 && file.len() <= most, "{name}: {} of {most}", file.len()),
            Err(_) => r.refused(3, &["no file written"]),
        }
        written += u32::from(out.exists());
        std::fs::remove_file(&out).ok();
    }
    assert!(written > 8, "{written} files");
}

#[test]
fn layers_can_be_pinned_and_methods_chosen() {
    let d = Dir::new("pin");
    let (data, out) = (samples(&d, 48), d.path("x.onnx"));
    let r = compress(&[
        arg(model()),
        "-o",
        arg(&out),
        "--data",
        arg(&data),
        "--methods",
        "int8-weight",
        "--layer",
        "Conv=keep",
        "--json",
    ])
    .ok();
    for l in r.json()["layers"].as_array().unwrap() {
        let conv = l["op"] == "Conv";
        let method = l["method"].as_str().unwrap();
        assert!(if conv { method == "keep" } else { ["keep", "int8-weight"].contains(&method) }, "{l}");
    }
    let nothing = d.path("y.onnx");
    compress(&[arg(model()), "-o", arg(&nothing), "--data", arg(&data), "--layer", ".*=keep"])
        .refused(3, &["no file written"]);
    assert!(!nothing.exists());
}

#[test]
fn channels_leave_the_tensors() {
    let d = Dir::new("channels");
    let (data, out) = (samples(&d, 96), d.path("x.onnx"));
    let base =
        [arg(model()), "-o", arg(&out), "--data", arg(&data), "--methods", "channels", "--json", "--force"];
    let check = |extra: &[&str]| {
        let r = compress(&[&base, extra].concat()).ok().json();
        let back = onnx::open(&out, &ops::Standard).unwrap().graph;
        let elements = |g: &ir::Graph| g.initializers().map(|(_, t)| t.len()).sum::<usize>();
        let whole = onnx::open(model(), &ops::Standard).unwrap().graph;
        assert!(elements(&back) < elements(&whole));
        assert!(std::fs::metadata(&out).unwrap().len() < std::fs::metadata(model()).unwrap().len());
        assert!(back.initializers().all(|(_, t)| t.dtype() != ir::DType::I8), "nothing else was done");
        let one = one_input(&d);
        compress(&["run", arg(&out), "--inputs", arg(&one), "--outputs", arg(&d.path("y.npz"))]).ok();
        let cut = |l: &&serde_json::Value| {
            l["channels"]["outputs"][0].as_u64() < l["channels"]["outputs"][1].as_u64()
        };
        r["layers"].as_array().unwrap().iter().filter(cut).count()
    };
    assert!(check(&["--max-drop", "2%"]) > 0);
    assert_eq!(
        check(&["--max-drop", "100%", "--layer", "/e/e.0/Conv=channels 3/4", "--layer", "/[abc]/=keep"]),
        2
    );
    let help = compress(&["--help"]).out;
    assert!(search::names().iter().all(|n| help.contains(n)), "{help}");
    compress(&[arg(model()), "--layer", "x=channels 5/4"]).refused(2, &["3/4"]);
}

#[test]
fn a_model_without_weights_ends_before_it_is_run() {
    let d = Dir::new("weightless");
    let mut relu =
        ir::text::parse("g (float[N, 4] x) => (float[N, 4] y) { y = Relu (x) }", &ops::Standard).unwrap();
    relu.meta.opset = 17;
    let m = crate::harness::write_graph(&d, "relu.onnx", &relu);
    let x = ir::Tensor::new(&[8, 4], vec![-1f32; 32]).unwrap();
    let data = crate::harness::write_feeds(&d, "x.npz", &[("x", x.into())]);
    let out = d.path("y.onnx");
    compress(&[arg(&m), "-o", arg(&out), "--data", arg(&data)])
        .refused(3, &["nothing to compress", "no file written"]);
    assert_eq!(d.files(), ["relu.onnx", "x.npz"]);
}

#[test]
fn outputs_are_guarded() {
    let d = Dir::new("guard");
    let data = samples(&d, 16);
    let taken = d.write("taken.onnx", b"precious");
    compress(&[arg(model()), "-o", arg(&taken), "--data", arg(&data)]).refused(2, &["--force"]);
    assert_eq!(std::fs::read(&taken).unwrap(), b"precious");
    let copy = d.write("copy.onnx", &std::fs::read(model()).unwrap());
    compress(&[arg(&copy), "-o", arg(&copy), "--force"]).refused(2, &["is the input"]);
    assert_eq!(std::fs::read(&copy).unwrap(), std::fs::read(model()).unwrap());
    compress(&[arg(model()), "-o", "/dev/null", "--force"]).refused(2, &["regular file"]);
    compress(&[arg(model()), "-o", arg(&d.path("no/such/x.onnx"))]).refused(1, &["does not exist"]);
    assert_eq!(d.files(), ["copy.onnx", "samples.npz", "taken.onnx"]);
}

#[test]
fn usage_errors_teach() {
    for args in [
        &["--max-drop", "soon"][..],
        &["--target-size", "big"],
        &["--target-ratio", "0.5"],
        &["--methods", "magic"],
        &["--layer", "(=keep"],
    ] {
        let all = [&[arg(model())], args].concat();
        compress(&all).refused(2, &[]);
    }
    assert_eq!(compress(&[]).code, 2);
    assert_eq!(compress(&["--help"]).code, 0);
    assert_eq!(compress(&[arg(model()), "--max-drop", "1%", "--target-size", "5MB"]).code, 2);
}

#[test]
fn data_that_does_not_fit_is_named() {
    let d = Dir::new("data");
    let wrong = crate::harness::write_feeds(
        &d,
        "wrong.npz",
        &[("picture", ir::Tensor::vector(vec![1f32; 4]).into())],
    );
    compress(&[arg(model()), "-o", arg(&d.path("x.onnx")), "--data", arg(&wrong)]).refused(1, &["image"]);
    let shape = ir::Tensor::new(&[2, 3], vec![0f32; 6]).unwrap();
    let wrong = crate::harness::write_feeds(&d, "shape.npz", &[("image", shape.into())]);
    compress(&[arg(model()), "-o", arg(&d.path("x.onnx")), "--data", arg(&wrong)]).refused(1, &["image"]);
    let garbage = d.write("garbage.npz", b"PK nothing");
    compress(&[arg(model()), "-o", arg(&d.path("x.onnx")), "--data", arg(&garbage)])
        .refused(1, &["garbage.npz"]);
}

#[cfg(unix)]
#[test]
fn an_interrupt_leaves_nothing_behind() {
    let d = Dir::new("interrupt");
    let data = samples(&d, 256);
    let mut child =
        crate::harness::command(&[arg(model()), "-o", arg(&d.path("x.onnx")), "--data", arg(&data)])
            .stderr(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
    std::thread::sleep(std::time::Duration::from_millis(400));
    std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(130), "{status:?}");
    assert_eq!(d.files(), ["samples.npz"]);
}
