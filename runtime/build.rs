//! Names the build: compiled programs that are kept on disk are of use to the build that wrote them only.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::Path;

/// Everything that decides what a stored program means, as seen from this crate.
const SOURCES: &[&str] = &[
    "src",
    "../compiler/ir/src",
    "../compiler/ops/src",
    "../compiler/onnx/src",
    "../compiler/container/src",
    "../compiler/kernels/src",
    "../compiler/artefact/src",
    "../compiler/codegen/src",
    "../passes/exact/src",
    "../Cargo.lock",
];

fn main() {
    let mut h = DefaultHasher::new();
    for name in ["CARGO_PKG_VERSION", "TARGET", "PROFILE", "OPT_LEVEL", "CARGO_ENCODED_RUSTFLAGS"] {
        std::env::var(name).unwrap_or_default().hash(&mut h);
    }
    for s in SOURCES {
        println!("cargo:rerun-if-changed={s}");
        walk(Path::new(s), &mut h);
    }
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-env=COMPRESS_BUILD_ID={:016x}", h.finish());
}

/// Files in order of their names. What is not there, in a package apart from the others, leaves the version to tell builds
/// apart.
fn walk(path: &Path, h: &mut DefaultHasher) {
    if path.is_dir() {
        let mut all: Vec<_> =
            std::fs::read_dir(path).into_iter().flatten().flatten().map(|e| e.path()).collect();
        all.sort();
        all.iter().for_each(|p| walk(p, h));
    } else if let Ok(bytes) = std::fs::read(path) {
        path.to_string_lossy().hash(h);
        bytes.hash(h);
    }
}
