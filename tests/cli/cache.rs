//! `--cache`: the same answers with and without, whatever happens to the files.

use crate::harness::{Dir, arg, arrays, command, compress, model, one_input, write_feeds, write_graph};
use ir::{Attrs, DType, Graph, Tensor, ValueType};
use std::path::{Path, PathBuf};

/// Bytes of all outputs of a run, with a cache or without.
fn answer(d: &Dir, model: &Path, inputs: &Path, cache: Option<&Path>) -> Vec<u8> {
    let out = d.path("out.npz");
    let mut args = vec!["run", arg(model), "--inputs", arg(inputs), "--outputs", arg(&out)];
    if let Some(c) = cache {
        args.extend(["--cache", arg(c)]);
    }
    compress(&args).ok();
    arrays(&out).values().flat_map(|t| t.bytes().to_vec()).collect()
}

fn kept(cache: &Path, kind: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(cache) else { return Vec::new() };
    let mut all: Vec<PathBuf> =
        entries.map(|e| e.unwrap().path()).filter(|p| p.extension().is_some_and(|e| e == kind)).collect();
    all.sort();
    all
}

#[test]
fn answers_from_the_cache_are_the_same_to_the_bit() {
    let d = Dir::new("cache-same");
    let (cache, inputs) = (d.path("cache"), one_input(&d));
    let want = answer(&d, model(), &inputs, None);
    assert_eq!(answer(&d, model(), &inputs, Some(&cache)), want);
    let programs = kept(&cache, "program");
    assert_eq!((programs.len(), kept(&cache, "card").len()), (1, 1));
    let written = std::fs::metadata(&programs[0]).unwrap().modified().unwrap();
    assert_eq!(answer(&d, model(), &inputs, Some(&cache)), want);
    assert_eq!(std::fs::metadata(&programs[0]).unwrap().modified().unwrap(), written);
    // By content, not by name.
    let copy = d.path("copy.onnx");
    std::fs::copy(model(), &copy).unwrap();
    assert_eq!(answer(&d, &copy, &inputs, Some(&cache)), want);
    assert_eq!(kept(&cache, "program"), programs);
    // The environment names a cache too.
    let (other, out) = (d.path("other"), d.path("out.npz"));
    let args = ["run", arg(model()), "--inputs", arg(&inputs), "--outputs", arg(&out)];
    assert!(command(&args).env("COMPRESS_CACHE", &other).output().unwrap().status.success());
    assert_eq!(kept(&other, "program").len(), 1);
}

#[test]
fn each_precision_has_programs_of_its_own() {
    let d = Dir::new("cache-precision");
    let (cache, inputs, out) = (d.path("cache"), one_input(&d), d.path("out.npz"));
    let run = |options: &[&str]| {
        let args = ["run", arg(model()), "--inputs", arg(&inputs), "--outputs", arg(&out)];
        compress(&[&args[..], options].concat()).ok();
        arrays(&out)["logits"].bytes().to_vec()
    };
    let bf16 = ["--precision", "bf16"];
    let kept_too = ["--precision", "bf16", "--cache", arg(&cache)];
    let (float, half) = (run(&[]), run(&bf16));
    assert_ne!(float, half);
    for _ in 0..2 {
        assert_eq!(run(&["--cache", arg(&cache)]), float);
        assert_eq!(run(&kept_too), half);
    }
    assert_eq!(kept(&cache, "program").len(), 2);
}

#[test]
fn damaged_files_are_replaced() {
    let d = Dir::new("cache-damaged");
    let (cache, inputs) = (d.path("cache"), one_input(&d));
    let want = answer(&d, model(), &inputs, Some(&cache));
    for kind in ["program", "card"] {
        let file = kept(&cache, kind).remove(0);
        let whole = std::fs::read(&file).unwrap();
        let flipped = |at: usize| {
            let mut b = whole.clone();
            b[at] ^= 1;
            b
        };
        let bad = [
            flipped(9),
            flipped(100),
            flipped(whole.len() / 2),
            whole[..whole.len() - 1].to_vec(),
            whole[..50].to_vec(),
            Vec::new(),
        ];
        for bytes in bad {
            std::fs::write(&file, bytes).unwrap();
            assert_eq!(answer(&d, model(), &inputs, Some(&cache)), want);
            assert!(std::fs::read(&file).unwrap() == whole, "{} was not replaced", file.display());
        }
    }
    // A folder that cannot be is no cache, and no failure.
    let file = d.write("file", b"x");
    assert_eq!(answer(&d, model(), &inputs, Some(&file)), want);
}

/// `y = x · w` for a matrix of sevens or eights.
fn product(d: &Dir, name: &str, w: f32) -> PathBuf {
    let mut g = Graph::new("g");
    g.meta.opset = 17;
    let x = g.add_input("x", ValueType::known(DType::F32, &[1, 4]));
    let w = g.add_initializer("w", Tensor::new(&[4, 4], vec![w; 16]).unwrap());
    let y = g.apply("y", ops::standard("MatMul").unwrap(), Attrs::new(), &[x, w]);
    g.add_output("y", y);
    write_graph(d, name, &g)
}

#[test]
fn a_model_changed_in_place_is_another_model() {
    let d = Dir::new("cache-changed");
    let cache = d.path("cache");
    let x = Tensor::new(&[1, 4], vec![1f32, 2.0, 3.0, 4.0]).unwrap();
    let inputs = write_feeds(&d, "i.npz", &[("x", x.into())]);
    let (m, other) = (product(&d, "m.onnx", 7.0), std::fs::read(product(&d, "o.onnx", 8.0)).unwrap());
    // Old enough for its stamp to be kept.
    std::thread::sleep(std::time::Duration::from_secs(4));
    let first = answer(&d, &m, &inputs, Some(&cache));
    assert_eq!(kept(&cache, "stamp").len(), 1);
    assert_eq!(answer(&d, &m, &inputs, Some(&cache)), first);
    let before = std::fs::metadata(&m).unwrap();
    assert_eq!(before.len(), other.len() as u64);
    std::fs::write(&m, other).unwrap();
    std::fs::File::options().write(true).open(&m).unwrap().set_modified(before.modified().unwrap()).unwrap();
    let second = answer(&d, &m, &inputs, Some(&cache));
    assert_ne!(second, first);
    assert_eq!(second, answer(&d, &m, &inputs, None));
}

#[test]
fn processes_that_start_together_agree() {
    let d = Dir::new("cache-together");
    let (cache, inputs) = (d.path("cache"), one_input(&d));
    let want = answer(&d, model(), &inputs, None);
    let runs: Vec<_> = (0..6)
        .map(|i| {
            let out = d.path(&format!("o{i}.npz"));
            let args = [
                "run",
                arg(model()),
                "--inputs",
                arg(&inputs),
                "--outputs",
                arg(&out),
                "--cache",
                arg(&cache),
            ];
            (command(&args).spawn().unwrap(), out)
        })
        .collect();
    for (mut child, out) in runs {
        assert!(child.wait().unwrap().success());
        assert_eq!(arrays(&out)["logits"].bytes(), want);
    }
    assert_eq!(kept(&cache, "program").len(), 1);
    let left = std::fs::read_dir(&cache).unwrap().filter(|e| {
        e.as_ref().unwrap().path().extension().is_some_and(|x| x.to_string_lossy().starts_with("tmp-"))
    });
    assert_eq!(left.count(), 0);
}
