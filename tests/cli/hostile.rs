//! Files from a bad world: one clear line, exit 1, soon.

use crate::harness::{Dir, arg, compress, model};
use std::time::{Duration, Instant};

fn refuse(d: &Dir, name: &str, bytes: &[u8]) {
    let m = d.write(name, bytes);
    let t = Instant::now();
    for args in [
        &["inspect", arg(&m)][..],
        &["optimize", arg(&m), "-o", arg(&d.path("o.onnx"))],
        &[arg(&m), "-o", arg(&d.path("c.onnx"))],
    ] {
        let r = compress(args);
        assert!([0, 1].contains(&r.code), "{name} {args:?}: {} {}", r.code, r.err);
        if r.code == 1 {
            r.refused(1, &[]);
        }
        assert!(!r.err.contains("internal error"), "{name} {args:?}: {}", r.err);
        drop(std::fs::remove_file(d.path("o.onnx")));
        for f in ["c.onnx", "c.report.html", "c.report.json"] {
            drop(std::fs::remove_file(d.path(f)));
        }
    }
    assert!(t.elapsed() < Duration::from_secs(30), "{name} took {:?}", t.elapsed());
}

#[test]
fn nested_groups_are_refused() {
    let d = Dir::new("groups");
    let m = d.write("bomb.onnx", &[0xa3u8, 0x06].repeat(200_000));
    compress(&["inspect", arg(&m)]).refused(1, &["group"]);
}

#[test]
fn truncated_models_are_refused() {
    let d = Dir::new("truncated");
    let whole = std::fs::read(model()).unwrap();
    for n in [0, 1, 7, 100, whole.len() / 2, whole.len() - 1] {
        refuse(&d, &format!("cut{n}.onnx"), &whole[..n]);
    }
}

#[test]
fn flipped_bits_do_no_harm() {
    let d = Dir::new("flipped");
    let whole = std::fs::read(model()).unwrap();
    let mut state = 1u64;
    for i in 0..6 {
        let mut bytes = whole.clone();
        for _ in 0..3 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            // Structure sits at the start and the end; the middle is weights.
            let at = (state >> 33) as usize % 2000;
            let at = if i % 2 == 0 { at } else { bytes.len() - 1 - at };
            bytes[at] ^= 1 << (state % 8);
        }
        refuse(&d, &format!("flip{i}.onnx"), &bytes);
    }
}

#[test]
fn missing_and_odd_inputs_are_refused() {
    let d = Dir::new("odd");
    compress(&["inspect", arg(&d.path("nothing.onnx"))]).refused(1, &["nothing.onnx"]);
    compress(&["inspect", "/"]).refused(1, &["regular file"]);
    compress(&["inspect", "/dev/zero"]).refused(1, &["regular file"]);
}

/// A file-size limit refuses the write as a full disk does. Writing must not kill the process, so the signal is ignored.
#[cfg(unix)]
#[test]
fn a_full_disk_leaves_nothing_behind() {
    let d = Dir::new("full");
    let out = d.path("out.onnx");
    let script = "trap '' XFSZ; ulimit -f 64; exec \"$@\"";
    let o = std::process::Command::new("sh")
        .args(["-c", script, "sh", env!("CARGO_BIN_EXE_compress"), "optimize", arg(model()), "-o", arg(&out)])
        .output()
        .unwrap();
    let err = String::from_utf8_lossy(&o.stderr);
    assert_eq!(o.status.code(), Some(1), "{err}");
    assert!(err.contains("out.onnx") && err.trim_end().lines().count() == 1, "{err}");
    assert_eq!(d.files(), Vec::<String>::new());
}

#[test]
fn names_from_files_are_no_commands_for_the_terminal() {
    let d = Dir::new("names");
    let mut g = ir::Graph::new("g");
    g.meta.opset = 17;
    let ty = ir::ValueType::tensor(ir::DType::F32, vec![ir::Dim::symbol("n\x1b[31m"), ir::Dim::Known(4)]);
    let x = g.add_input("x\x1b[2J", ty);
    let w = g.add_initializer("w\x07", ir::Tensor::new(&[4, 40], vec![1f32; 160]).unwrap());
    let mul = ops::standard("MatMul").unwrap();
    let y = g.apply("a\x1b[1m\nb", mul, ir::Attrs::new(), &[x, w]);
    g.add_output("y\r", y);
    let m = crate::harness::write_graph(&d, "m.onnx", &g);
    let i = crate::harness::write_feeds(&d, "i.npz", &[("z", ir::Tensor::scalar(1f32).into())]);
    for args in [
        &["inspect", arg(&m)][..],
        &[arg(&m), "-o", arg(&d.path("c.onnx")), "--target-ratio", "2"],
        &["diff", arg(&m), arg(&m)],
        &["run", arg(&m), "--inputs", arg(&i), "--outputs", arg(&d.path("o.npz"))],
    ] {
        let r = compress(args);
        let bad = |s: &str| s.chars().any(|c| c.is_control() && c != '\n');
        assert!(!bad(&r.out) && !bad(&r.err), "{args:?}: {:?} {:?}", r.out, r.err);
    }
}
