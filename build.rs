//! Compiles the crate `artefact`, with the kernels, once more: as the one object that models compiled ahead of time carry.
//! Where that fails the program is built without `compress build`, and says so.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("Cargo sets OUT_DIR"));
    for p in [
        "compiler/kernels/src",
        "compiler/artefact/src",
        "compiler/artefact/Cargo.toml",
        "Cargo.lock",
        "build.rs",
    ] {
        println!("cargo:rerun-if-changed={p}");
    }
    println!("cargo:rerun-if-env-changed=COMPRESS_NO_ARTEFACTS");
    let object = match kernels(&out) {
        Ok(bytes) => bytes,
        Err(e) => {
            println!("cargo:warning=built without `compress build`: {e}");
            Vec::new()
        }
    };
    std::fs::write(out.join("artefact.o"), object).expect("OUT_DIR is writable");
}

fn kernels(out: &Path) -> Result<Vec<u8>, String> {
    if std::env::var_os("COMPRESS_NO_ARTEFACTS").is_some() {
        return Err("COMPRESS_NO_ARTEFACTS is set".into());
    }
    let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
    let mut c = Command::new(cargo);
    // Its own directory: the outer Cargo holds the lock of the other.
    c.args([
        "rustc",
        "--package",
        "compress-artefact",
        "--lib",
        "--crate-type",
        "staticlib",
        "--profile",
        "artefact",
    ]);
    c.args(["--offline", "--locked", "--quiet", "--target-dir"]).arg(out.join("artefact"));
    // Flags and wrappers of the outer build, such as a linter, are not for this one.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        let outer =
            name.starts_with("CARGO_") && !matches!(&*name, "CARGO_HOME") || name.starts_with("RUSTC_");
        if outer || name == "RUSTFLAGS" {
            c.env_remove(&*name);
        }
    }
    let done = c.output().map_err(|e| e.to_string())?;
    if !done.status.success() {
        let text = String::from_utf8_lossy(&done.stderr);
        return Err(text.lines().filter(|l| !l.trim().is_empty()).take(3).collect::<Vec<_>>().join(" "));
    }
    let archive =
        std::fs::read(out.join("artefact/artefact/libcompress_artefact.a")).map_err(|e| e.to_string())?;
    first_object(&archive).ok_or("the archive holds no object".into())
}

/// The first object of an archive: that of the crate itself, with all it uses linked into it.
fn first_object(archive: &[u8]) -> Option<Vec<u8>> {
    let mut rest = archive.strip_prefix(b"!<arch>\n")?;
    loop {
        let (head, body) = (rest.get(..60)?, rest.get(60..)?);
        let size: usize = std::str::from_utf8(&head[48..58]).ok()?.trim().parse().ok()?;
        let member = body.get(..size)?;
        if member.starts_with(b"\x7fELF") {
            return Some(member.to_vec());
        }
        rest = body.get(size.next_multiple_of(2)..)?;
    }
}
