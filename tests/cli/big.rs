//! What large models need, on small ones: data in a file of its own, a bound on memory, going on after a kill.

use crate::harness::{Dir, arg, command, compress, model, write_graph};
use ir::{Attrs, DType, Graph, Tensor, ValueType};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A chain of `n` products with seeded weights.
fn chain(dir: &Dir, n: usize, side: usize) -> PathBuf {
    let mut g = Graph::new("chain");
    g.meta.opset = 21;
    let mut v = g.add_input("x", ValueType::known(DType::F32, &[1, side]));
    let mut state = 1u64;
    for k in 0..n {
        let mut value = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((state >> 40) as f32 / (1u64 << 24) as f32 - 0.5) * 0.2
        };
        let t = Tensor::new(&[side, side], (0..side * side).map(|_| value()).collect()).unwrap();
        let w = g.add_initializer(&format!("w{k}"), t);
        // Something between the products keeps them apart.
        v = g.apply(&format!("layer{k}"), ops::standard("MatMul").unwrap(), Attrs::new(), &[v, w]);
        v = g.apply("", ops::standard("Tanh").unwrap(), Attrs::new(), &[v]);
    }
    let y = g.apply("last", ops::standard("Relu").unwrap(), Attrs::new(), &[v]);
    g.add_output("y", y);
    write_graph(dir, "chain.onnx", &g)
}

/// The command with model files limited to `bytes`.
fn limited(args: &[&str], bytes: usize) -> Command {
    let mut c = command(args);
    c.env("COMPRESS_MAX_MODEL_FILE", bytes.to_string());
    c
}

#[test]
fn weights_go_beside_a_model_that_would_be_too_large() {
    let d = Dir::new("beside");
    let m = chain(&d, 4, 64);
    let split = d.path("split.onnx");
    let o = limited(&["optimize", arg(&m), "-o", arg(&split)], 20_000).output().unwrap();
    assert!(o.status.success(), "{}", String::from_utf8_lossy(&o.stderr));
    assert_eq!(d.files(), ["chain.onnx", "split.onnx", "split.onnx.data"]);
    assert!(std::fs::metadata(&split).unwrap().len() < 4000);
    let same = compress(&["diff", arg(&m), arg(&split), "--json"]).ok().json();
    assert_eq!(same["outputs"][0]["max_abs"], 0.0);
    // The files count together, as input and as output.
    let small = d.path("small.onnx");
    let args = [arg(&split), "-o", arg(&small), "--methods", "int8-weight", "--json"];
    let o = limited(&args, 1000).output().unwrap();
    let out = String::from_utf8_lossy(&o.stdout).into_owned();
    assert!(o.status.success(), "{out} {}", String::from_utf8_lossy(&o.stderr));
    assert!(d.path("small.onnx.data").is_file());
    compress(&["diff", arg(&m), arg(&small)]).ok();
    // Nothing is overwritten without being asked.
    let o = limited(&["optimize", arg(&m), "-o", arg(&d.path("new.onnx"))], 20_000);
    std::fs::write(d.path("new.onnx.data"), b"mine").unwrap();
    let mut o = o;
    assert_eq!(o.output().unwrap().status.code(), Some(2));
    assert_eq!(std::fs::read(d.path("new.onnx.data")).unwrap(), b"mine");
    assert!(!d.path("new.onnx").exists());
}

#[test]
fn more_memory_than_allowed_ends_the_run() {
    let d = Dir::new("memory");
    let r = compress(&[arg(model()), "-o", arg(&d.path("o.onnx")), "--max-memory", "1M"]);
    r.refused(1, &[]);
    assert_eq!(d.files(), Vec::<String>::new());
}

#[cfg(unix)]
#[test]
fn a_killed_run_is_continued_to_the_same_bytes() {
    let d = Dir::new("resume");
    let m = chain(&d, 24, 224);
    let (whole, out) = (d.path("whole.onnx"), d.path("out.onnx"));
    let methods = ["--methods", "int8-weight,int4,int3,codebook", "--threads", "1"];
    compress(&[&[arg(&m), "-o", arg(&whole)], &methods[..]].concat()).ok();
    let args = [&[arg(&m), "-o", arg(&out)], &methods[..]].concat();
    let mut child = command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let journal = d.path(".out.onnx.journal");
    let lines = |p: &Path| std::fs::read_to_string(p).map_or(0, |t| t.lines().count());
    let started = Instant::now();
    while lines(&journal) < 4 {
        assert!(child.try_wait().unwrap().is_none(), "the run was over before it could be killed");
        assert!(started.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!out.exists() && journal.exists());
    let r = compress(&[&args[..], &["--resume"]].concat()).ok();
    let used: usize = r.err.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!((1..24).contains(&used), "{}", r.err);
    assert!(std::fs::read(&out).unwrap() == std::fs::read(&whole).unwrap(), "other bytes");
    assert!(!d.files().iter().any(|f| f.starts_with('.')), "{:?}", d.files());
}
