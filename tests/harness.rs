//! Runs the binary in a folder of its own.

use ir::{Tensor, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A fresh folder, removed on drop.
pub struct Dir(PathBuf);

impl Dir {
    pub fn new(name: &str) -> Dir {
        let p = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        drop(std::fs::remove_dir_all(&p));
        std::fs::create_dir_all(&p).unwrap();
        Dir(p)
    }
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
    pub fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        std::fs::write(self.path(name), bytes).unwrap();
        self.path(name)
    }
    /// Names of all files, sorted.
    pub fn files(&self) -> Vec<String> {
        let mut v: Vec<String> = std::fs::read_dir(&self.0)
            .unwrap()
            .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        v.sort();
        v
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// What a run of the binary gave.
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    fn of(o: Output) -> Ran {
        Ran {
            code: o.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&o.stdout).into_owned(),
            err: String::from_utf8_lossy(&o.stderr).into_owned(),
        }
    }
    /// Exit code and exactly one line on stderr that contains every word.
    pub fn refused(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "stdout {} stderr {}", self.out, self.err);
        assert_eq!(self.err.trim_end().lines().count(), 1, "{}", self.err);
        assert!(!self.err.contains("panicked"), "{}", self.err);
        for w in words {
            assert!(self.err.contains(w), "no '{w}' in: {}", self.err);
        }
    }
    pub fn ok(self) -> Ran {
        assert_eq!(self.code, 0, "stdout {} stderr {}", self.out, self.err);
        self
    }
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {}", self.out))
    }
}

pub fn command(args: &[&str]) -> Command {
    let mut c = Command::new(env!("CARGO_BIN_EXE_compress"));
    c.args(args);
    c
}

pub fn compress(args: &[&str]) -> Ran {
    Ran::of(command(args).output().unwrap())
}

/// A path as an argument.
pub fn arg(p: &Path) -> &str {
    p.to_str().unwrap()
}

pub fn model() -> &'static Path {
    Path::new("tests/models/mnist-cnn.onnx")
}

/// The first `n` calibration samples as an npz in `dir`.
pub fn samples(dir: &Dir, n: usize) -> PathBuf {
    let all = data::npz::read(Path::new("tests/models/mnist-calib.npz")).unwrap();
    let cut: Vec<(String, Tensor)> = all
        .into_iter()
        .map(|(name, t)| {
            let inner = t.shape()[1..].to_vec();
            let bytes = t.dtype().storage_bytes(inner.iter().product::<usize>() * n);
            let shape: Vec<usize> = std::iter::once(n).chain(inner).collect();
            (name, Tensor::from_bytes(t.dtype(), &shape, t.bytes()[..bytes].to_vec()).unwrap())
        })
        .collect();
    let p = dir.path("samples.npz");
    let mut f = std::fs::File::create(&p).unwrap();
    data::npz::write(&mut f, &cut).unwrap();
    p
}

/// One sample as inputs of `compress run`.
pub fn one_input(dir: &Dir) -> PathBuf {
    let all = data::npz::read(Path::new("tests/models/mnist-calib.npz")).unwrap();
    let image = &all["image"];
    let one =
        Tensor::from_bytes(image.dtype(), &[1, 1, 28, 28], image.bytes()[..28 * 28 * 4].to_vec()).unwrap();
    let p = dir.path("in.npz");
    let mut f = std::fs::File::create(&p).unwrap();
    data::npz::write(&mut f, &[("image".to_string(), one)]).unwrap();
    p
}

pub fn arrays(p: &Path) -> BTreeMap<String, Tensor> {
    data::npz::read(p).unwrap()
}

/// Largest difference relative to the largest value.
pub fn difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.shape(), b.shape());
    let (x, y) = (a.to_f64s().unwrap(), b.to_f64s().unwrap());
    let top = x.iter().fold(1e-30f64, |m, v| m.max(v.abs()));
    x.iter().zip(&y).map(|(p, q)| (p - q).abs()).fold(0.0, f64::max) / top
}

/// A model of one node as a file, built from the IR.
pub fn write_graph(dir: &Dir, name: &str, g: &ir::Graph) -> PathBuf {
    let bytes = onnx::to_bytes(g, &ops::Standard).unwrap();
    dir.write(name, &bytes)
}

/// Values by name as an npz.
pub fn write_feeds(dir: &Dir, name: &str, feeds: &[(&str, Value)]) -> PathBuf {
    let arrays: Vec<(String, Tensor)> =
        feeds.iter().map(|(n, v)| (n.to_string(), v.tensor().unwrap().clone())).collect();
    let p = dir.path(name);
    data::npz::write(&mut std::fs::File::create(&p).unwrap(), &arrays).unwrap();
    p
}
