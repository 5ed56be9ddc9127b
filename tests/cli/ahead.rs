//! `compress build`: a C program with the compiled model gives, bit for bit, what `compress run` gives.

use crate::harness::{Dir, arg, arrays, compress, model, write_feeds, write_graph};
use ir::{Attrs, DType, Graph, Tensor, ValueType};
use std::path::Path;
use std::process::Command;

const IMAGE: usize = 28 * 28;

/// Numbers like those of three images, the same every time.
fn images() -> Vec<f32> {
    (0..3 * IMAGE).map(|i| ((i * 2_654_435_761) >> 7 & 255) as f32 / 255.0).collect()
}

/// What generated code gives for each image alone.
fn expected(d: &Dir) -> Vec<u8> {
    let mut bytes = Vec::new();
    for x in images().chunks(IMAGE) {
        let t = Tensor::new(&[1, 1, 28, 28], x.to_vec()).unwrap();
        let (i, o) = (write_feeds(d, "i.npz", &[("image", t.into())]), d.path("o.npz"));
        compress(&["run", arg(model()), "--inputs", arg(&i), "--outputs", arg(&o)]).ok();
        bytes.extend(arrays(&o)["logits"].bytes());
    }
    bytes
}

fn check(emit: &str, file: &str) {
    let d = Dir::new(&format!("build-{emit}"));
    let compiler = std::env::var("CC").unwrap_or("cc".into());
    if Command::new(&compiler).arg("--version").output().is_err() {
        println!("skipped: there is no C compiler '{compiler}'");
        return;
    }
    let artefact = d.path(file);
    compress(&["build", arg(model()), "--emit", emit, "--header", "-o", arg(&artefact)]).ok();
    // The header is named as the library is.
    let header = artefact.with_extension("h");
    std::fs::rename(&header, d.path("mnist.h")).unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/ahead/mnist.c");
    let program = d.path("program");
    let mut cc = Command::new(&compiler);
    cc.args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-I"]).arg(d.path("")).arg(&source).arg(&artefact);
    let built = cc.args(["-lm", "-lpthread", "-o"]).arg(&program).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let numbers = d.write("numbers", &images().iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>());
    let results = d.path("results");
    let run = Command::new(&program).args([&numbers, &results]).output().unwrap();
    assert!(run.status.success(), "{:?} {}", run.status, String::from_utf8_lossy(&run.stderr));
    assert_eq!(std::fs::read(&results).unwrap(), expected(&d));
}

#[test]
fn an_object_computes_what_a_session_computes() {
    check("obj", "mnist.o");
}

#[test]
fn a_static_library_computes_what_a_session_computes() {
    check("lib", "libmnist.a");
}

#[test]
fn a_shared_library_computes_what_a_session_computes() {
    check("cdylib", "libmnist.so");
}

#[test]
fn what_needs_more_than_kernels_is_refused_by_name() {
    let d = Dir::new("build-refused");
    let mut g = Graph::new("g");
    g.meta.opset = 17;
    let x = g.add_input("x", ValueType::known(DType::F32, &[4]));
    let y = g.apply("where", ops::standard("NonZero").unwrap(), Attrs::new(), &[x]);
    g.add_output("y", y);
    let m = write_graph(&d, "m.onnx", &g);
    let o = d.path("m.o");
    compress(&["build", arg(&m), "--emit", "obj", "-o", arg(&o)]).refused(1, &["'where'", "NonZero"]);
    assert!(!o.exists());
    compress(&["build", arg(&m), "--emit", "obj", "--shape", "z=4", "-o", arg(&o)]).refused(1, &["'z'"]);
}
