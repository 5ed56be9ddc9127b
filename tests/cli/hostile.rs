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
