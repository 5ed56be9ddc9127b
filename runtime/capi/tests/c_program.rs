//! A C program that uses the library as strangers do, against the session it wraps. Needs a C compiler.

use runtime::ndarray::Array4;
use runtime::{Session, inputs};
use std::path::{Path, PathBuf};
use std::process::Command;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/models/mnist-cnn.onnx");
const IMAGE: usize = 28 * 28;

/// Numbers like those of an image, the same every time.
fn images() -> Vec<f32> {
    (0..3 * IMAGE).map(|i| ((i * 2_654_435_761) >> 7 & 255) as f32 / 255.0).collect()
}

fn expected(x: &[f32]) -> Vec<u8> {
    let session = Session::options().threads(1).open(MODEL).unwrap();
    let mut bytes = Vec::new();
    for part in [&x[..2 * IMAGE], &x[2 * IMAGE..]] {
        let a = Array4::from_shape_vec((part.len() / IMAGE, 1, 28, 28), part.to_vec()).unwrap();
        let out = session.run(&inputs! { "image" => &a }).unwrap();
        bytes.extend(out.view::<f32>("logits").unwrap().iter().flat_map(|x| x.to_le_bytes()));
    }
    bytes
}

/// The libraries lie beside the test.
fn libraries() -> PathBuf {
    std::env::current_exe().unwrap().parent().unwrap().to_path_buf()
}

fn check(name: &str, link: &[&str]) {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&folder).unwrap();
    let [program, numbers, results] = ["mnist", "numbers", "results"].map(|f| folder.join(f));
    let compiler = std::env::var("CC").unwrap_or("cc".into());
    let mut cc = Command::new(&compiler);
    cc.args(["-std=c99", "-Wall", "-Wextra", "-Werror", "-I"]).arg(here.join("../../include"));
    cc.arg(here.join("tests/mnist.c")).args(link).args(["-lm", "-lpthread", "-ldl", "-o"]).arg(&program);
    match cc.output() {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            println!("skipped: there is no C compiler '{compiler}'");
            return;
        }
        r => {
            let r = r.unwrap();
            assert!(r.status.success(), "{}", String::from_utf8_lossy(&r.stderr));
        }
    }
    let x = images();
    std::fs::write(&numbers, x.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>()).unwrap();
    let run = Command::new(&program).arg(MODEL).arg(&numbers).arg(&results).output().unwrap();
    assert!(run.status.success(), "{:?}: {}", run.status, String::from_utf8_lossy(&run.stderr));
    assert_eq!(std::fs::read(&results).unwrap(), expected(&x));
}

#[test]
fn shared_library() {
    let dir = libraries();
    let dir = dir.to_str().unwrap();
    check("shared", &["-L", dir, "-lcompress_c", &format!("-Wl,-rpath,{dir}")]);
}

#[test]
fn static_library() {
    check("static", &[libraries().join("libcompress_c.a").to_str().unwrap()]);
}
