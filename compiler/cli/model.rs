//! Models in and out of files, for all commands.

use crate::exit::{Failure, Result};
use crate::files::Pending;
use ir::Graph;
use std::path::Path;

/// A model read completely.
pub struct Opened {
    pub graph: Graph,
    pub file_bytes: u64,
}

/// Reads a model; warnings go to stderr.
pub fn open(path: &Path) -> Result<Opened> {
    let m = onnx::open(path, &ops::Standard).map_err(|e| Failure::from(e).on(path.display()))?;
    m.warnings.iter().for_each(|w| eprintln!("compress: warning: {w}"));
    Ok(Opened { graph: m.graph, file_bytes: m.file_bytes })
}

/// What can be said of a model even when parts of it are not supported.
pub struct Inspected {
    /// Absent when an operator is not known.
    pub graph: Option<Graph>,
    pub unsupported: Vec<String>,
    /// Operators without a native kernel.
    pub interpreted: Vec<String>,
    pub warnings: Vec<String>,
    pub file_bytes: u64,
}

/// Surveys a model.
pub fn inspect(path: &Path) -> Result<Inspected> {
    let m = onnx::survey(path, &ops::Standard).map_err(|e| Failure::from(e).on(path.display()))?;
    let complete = m.unsupported.is_empty();
    let interpreted = if complete { crate::engine::interpreted(&m.graph) } else { Vec::new() };
    Ok(Inspected {
        graph: complete.then_some(m.graph),
        unsupported: m.unsupported,
        interpreted,
        warnings: m.warnings,
        file_bytes: m.file_bytes,
    })
}

/// Writes `graph` to a temporary file beside `target`, with metadata.
pub fn write(graph: &Graph, target: &Path, properties: &[(&str, String)]) -> Result<Pending> {
    let mut g = graph.clone();
    for (k, v) in properties {
        g.meta.properties.insert(k.to_string(), v.clone());
    }
    let mut failed = None;
    let pending = Pending::write(target, |w| {
        onnx::write(&g, &ops::Standard, w).map(drop).map_err(|e| {
            failed = Some(e.clone());
            std::io::Error::other(e.to_string())
        })
    });
    match (pending, failed) {
        (Err(_), Some(e)) => Err(Failure::from(e).on(target.display())),
        (r, _) => r,
    }
}

/// Bytes of `graph` as a file: what a writer would produce, without keeping it.
pub fn size(graph: &Graph) -> ir::Result<u64> {
    struct Count(u64);
    impl std::io::Write for Count {
        fn write(&mut self, b: &[u8]) -> std::io::Result<usize> {
            self.0 += b.len() as u64;
            Ok(b.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut c = Count(0);
    onnx::write(graph, &ops::Standard, &mut c)?;
    Ok(c.0)
}

/// BLAKE3 of a file, in hex.
pub fn hash(path: &Path) -> Result<String> {
    let mut h = blake3::Hasher::new();
    let mut f = std::fs::File::open(path).map_err(|e| Failure::bad(format!("{}: {e}", path.display())))?;
    std::io::copy(&mut f, &mut h).map_err(|e| Failure::bad(format!("{}: {e}", path.display())))?;
    Ok(h.finalize().to_hex().to_string())
}
