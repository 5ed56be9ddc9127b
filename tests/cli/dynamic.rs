//! Open sizes, ragged samples, control flow and states through the whole pipeline.

use crate::harness::{Dir, Ran, arg, arrays, compress, write_feeds, write_graph};
use ir::{Dim, Graph, Tensor, Value};
use std::path::{Path, PathBuf};

/// Numbers that look random and are the same in every run, around zero.
fn numbers(n: usize, seed: u64) -> Vec<f32> {
    let mut s = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        s ^= s << 13;
        s ^= s >> 7;
        s ^= s << 17;
        (s >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    (0..n).map(|_| next()).collect()
}

fn tensor(shape: &[usize], seed: u64) -> Tensor {
    Tensor::new(shape, numbers(shape.iter().product(), seed)).unwrap()
}

/// A weight as text.
fn weight(name: &str, rows: usize, columns: usize, seed: u64) -> String {
    let values: Vec<String> = numbers(rows * columns, seed).iter().map(|x| format!("{x:?}")).collect();
    format!("float[{rows},{columns}] {name} = {{{}}}", values.join(", "))
}

fn graph(text: &str) -> Graph {
    let mut g = ir::text::parse(text, &ops::Standard).unwrap();
    g.meta.opset = 17;
    ir::infer(&mut g).unwrap();
    g
}

fn open(p: &Path) -> Graph {
    onnx::open(p, &ops::Standard).unwrap().graph
}

fn run(d: &Dir, model: &Path, feeds: &[(&str, Value)]) -> Tensor {
    let (i, o) = (write_feeds(d, "run-in.npz", feeds), d.path("run-out.npz"));
    compress(&["run", arg(model), "--inputs", arg(&i), "--outputs", arg(&o)]).ok();
    arrays(&o).remove("y").unwrap()
}

fn sizes(g: &Graph, v: ir::ValueId) -> Vec<Dim> {
    g.ty(v).shape().unwrap().to_vec()
}

/// Two dense layers over (batch, length, 32), whatever batch and length are.
fn layers() -> Graph {
    graph(&format!(
        "g (float[N, T, 32] x) => (float[N, T, 24] y) <{}, {}> {{
            h = MatMul (x, A)
            r = Relu (h)
            y = MatMul (r, B)
        }}",
        weight("A", 32, 48, 1),
        weight("B", 48, 24, 2)
    ))
}

/// Samples of every length in a folder.
fn ragged(d: &Dir, lengths: &[usize]) -> PathBuf {
    std::fs::create_dir_all(d.path("samples")).unwrap();
    for (i, &n) in lengths.iter().enumerate() {
        let x = tensor(&[1, n, 32], 10 + i as u64);
        write_feeds(d, &format!("samples/{i:02}.npz"), &[("x", x.into())]);
    }
    d.path("samples")
}

#[test]
fn open_sizes_stay_open_and_samples_may_differ_in_shape() {
    let d = Dir::new("ragged");
    let (model, out) = (write_graph(&d, "m.onnx", &layers()), d.path("small.onnx"));
    let data = ragged(&d, &[3, 5, 9, 4, 3, 7, 1, 2, 6, 5, 8, 11]);
    let r = compress(&[arg(&model), "-o", arg(&out), "--data", arg(&data), "--target-ratio", "2"]).ok();
    assert!(r.out.contains("held-back"), "{}", r.out);
    for file in [&out, &{
        let o = d.path("optimized.onnx");
        compress(&["optimize", arg(&model), "-o", arg(&o)]).ok();
        o
    }] {
        let g = open(file);
        let symbol = |name: &str| Dim::symbol(name);
        assert_eq!(sizes(&g, g.inputs()[0]), [symbol("N"), symbol("T"), Dim::Known(32)]);
        assert_eq!(sizes(&g, g.outputs()[0].value), [symbol("N"), symbol("T"), Dim::Known(24)]);
        // A size that no sample had.
        let x = tensor(&[2, 13, 32], 99);
        let (a, b) = (run(&d, &model, &[("x", x.clone().into())]), run(&d, file, &[("x", x.into())]));
        assert_eq!(b.shape(), [2, 13, 24]);
        assert!(crate::harness::difference(&a, &b) < 0.2);
    }
}

#[test]
fn weights_that_branches_share_are_compressed_once() {
    let d = Dir::new("shared");
    let g = graph(&format!(
        "g (bool c, float[N, 32] x) => (float[N, 32] y) <{}> {{
            h = MatMul (x, W)
            y = If (c) <then_branch = a () => (r) {{ r = MatMul (h, W) }},
                        else_branch = b () => (r) {{ p = MatMul (h, W) r = Neg (p) }}>
        }}",
        weight("W", 32, 32, 3)
    ));
    let (model, out) = (write_graph(&d, "m.onnx", &g), d.path("small.onnx"));
    compress(&[arg(&model), "-o", arg(&out), "--methods", "int8-weight", "--target-ratio", "2"]).ok();
    let g = open(&out);
    let large: Vec<usize> = g.initializers().map(|(_, t)| t.len()).filter(|&n| n >= 1024).collect();
    assert_eq!(large, [1024], "one copy of the codes");
    let bodies = g.nodes().flat_map(|(_, n)| n.attrs.graphs());
    for body in bodies {
        assert!(body.initializers().all(|(_, t)| t.len() < 1024), "a branch with a copy of its own");
    }
    for c in [true, false] {
        let feeds = || [("c", Tensor::scalar(c).into()), ("x", tensor(&[5, 32], 4).into())];
        let (a, b) = (run(&d, &model, &feeds()), run(&d, &out, &feeds()));
        assert!(crate::harness::difference(&a, &b) < 0.02);
    }
}

/// A recurrence whose state goes round outside: (x, h) to (y, hn).
fn recurrence() -> Graph {
    graph(&format!(
        "g (float[N, 32] x, float[N, 32] h) => (float[N, 32] y, float[N, 32] hn) <{}, {}, {}> {{
            a = MatMul (x, W)
            b = MatMul (h, R)
            s = Add (a, b)
            hn = Tanh (s)
            y = MatMul (hn, V)
        }}",
        weight("W", 32, 32, 5),
        weight("R", 32, 32, 6),
        weight("V", 32, 32, 7)
    ))
}

fn stateful(d: &Dir, extra: &[(&str, Value)], flags: &[&str]) -> Ran {
    let model = write_graph(d, "m.onnx", &recurrence());
    let mut feeds = vec![("x", Value::from(tensor(&[64, 32], 8)))];
    feeds.extend(extra.iter().cloned());
    let data = write_feeds(d, "steps.npz", &feeds);
    let out = d.path("small.onnx");
    let mut args = vec![arg(&model), "-o", arg(&out), "--data", arg(&data), "--target-ratio", "2", "--force"];
    args.extend(flags);
    compress(&args)
}

#[test]
fn states_are_carried_from_step_to_step() {
    let d = Dir::new("states");
    // Without the link the data would have to hold every state.
    stateful(&d, &[], &[]).refused(1, &["'h'"]);
    let r = stateful(&d, &[], &["--state", "hn=h"]).ok();
    assert!(r.out.contains("own states through all 64 steps"), "{}", r.out);
    let (m, small, steps) = (d.path("m.onnx"), d.path("small.onnx"), d.path("steps.npz"));
    let eval = |other: &Path, more: &[&str]| {
        compress(&[&["eval", arg(&m), arg(other), "--data", arg(&steps)], more].concat())
    };
    eval(&small, &[]).refused(1, &["'h'"]);
    let r = eval(&small, &["--state", "hn=h"]).ok();
    assert!(
        r.out.contains("on 64 samples") && r.out.contains("own states through all 64 steps"),
        "{}",
        r.out
    );
    let r = eval(&m, &["--state", "hn=h", "--json"]).ok();
    assert!(r.out.contains("\"last_tenth\": 0.0"), "{}", r.out);
    let marks: Vec<i64> = (0..64).map(|i| i64::from(i % 16 == 0)).collect();
    stateful(&d, &[("reset", Tensor::vector(marks).into())], &["--state", "hn=h"]).ok();
    let first = tensor(&[64, 32], 9);
    stateful(&d, &[("h", first.into())], &["--state", "hn=h"]).ok();
    stateful(&d, &[], &["--state", "q=h"]).refused(2, &["no output 'q'", "hn"]);
    stateful(&d, &[], &["--state", "hn=q"]).refused(2, &["no input 'q'", "\"h\""]);
    stateful(&d, &[], &["--state", "hn"]).refused(2, &["OUTPUT=INPUT"]);
}
