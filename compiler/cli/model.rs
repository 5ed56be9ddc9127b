//! Models in and out of files, for all commands.

use crate::exit::{Failure, Result, line};
use crate::files::Pending;
use crate::packed;
use ir::Graph;
use runtime::Session;
use std::path::{Path, PathBuf};

/// A model read completely.
pub struct Opened {
    pub graph: Graph,
    pub file_bytes: u64,
}

/// Reads a model or a container of one; warnings go to stderr.
pub fn open(path: &Path) -> Result<Opened> {
    let m = match packed::read(path)? {
        Some(file) => onnx::from_bytes(file, &ops::Standard),
        None => onnx::open(path, &ops::Standard),
    };
    let m = m.map_err(|e| Failure::from(e).on(path.display()))?;
    m.warnings.iter().for_each(|w| eprintln!("compress: warning: {}", line(w)));
    Ok(Opened { graph: m.graph, file_bytes: m.file_bytes })
}

/// A session of a model file, from a cache where one is named by the option or the environment.
pub fn session(path: &Path, threads: usize, cache: Option<&Path>) -> Result<Session> {
    let Some(folder) = cache.map(Path::to_path_buf).or_else(environment) else {
        return Ok(Session::from_graph(&open(path)?.graph, threads)?);
    };
    let opened = Session::options().threads(threads).cache(folder).open(path);
    opened.map_err(|e| Failure::from(e).on(path.display()))
}

fn environment() -> Option<PathBuf> {
    std::env::var_os("COMPRESS_CACHE").filter(|d| !d.is_empty()).map(PathBuf::from)
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
    let m = match packed::read(path)? {
        Some(file) => onnx::from_bytes(file, &ops::Standard),
        None => onnx::survey(path, &ops::Standard),
    };
    let m = m.map_err(|e| Failure::from(e).on(path.display()))?;
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

/// Writes `graph` to a temporary file beside `target`, with metadata; above 2 GiB the weights go to `target`.data. A
/// name that asks for a container gets one.
pub fn write(graph: &Graph, target: &Path, properties: &[(&str, String)], force: bool) -> Result<Pending> {
    let mut g = graph.clone();
    for (k, v) in properties {
        g.meta.properties.insert(k.to_string(), v.clone());
    }
    if packed::wanted(target) {
        let bytes = packed::pack(&onnx::to_bytes(&g, &ops::Standard)?)?;
        return Pending::write(target, |w| std::io::Write::write_all(w, &bytes));
    }
    let on = |e: ir::Error| Failure::from(e).on(target.display());
    let name = target.file_name().ok_or_else(|| Failure::usage("the output has no file name"))?;
    let name = name.to_str().ok_or_else(|| Failure::usage("the output's name is not Unicode"))?;
    let data = format!("{name}.data");
    let encoded = onnx::Encoded::new(&g, &ops::Standard, Some(&data), limit()).map_err(on)?;
    let model = Pending::write(target, |w| encoded.write(w))?;
    if encoded.written.external_bytes == 0 {
        return Ok(model);
    }
    let beside = target.with_file_name(&data);
    crate::files::check_target(&beside, None, force)?;
    Ok(model.after(Pending::write(&beside, |w| encoded.write_external(w))?))
}

/// Largest model file, bytes. Tests set a smaller one: external data need not take gigabytes to be tried.
fn limit() -> u64 {
    let set = std::env::var("COMPRESS_MAX_MODEL_FILE").ok().and_then(|s| s.parse().ok());
    set.map_or(onnx::MAX_MESSAGE, |n: u64| n.min(onnx::MAX_MESSAGE))
}

/// The model in a file that is not in its place yet.
pub fn reopen(pending: &Pending) -> ir::Result<Graph> {
    if let Ok(Some(file)) = packed::read(pending.path()) {
        return Ok(onnx::from_bytes(file, &ops::Standard)?.graph);
    }
    let imported = match pending.first() {
        None => onnx::open(pending.path(), &ops::Standard),
        Some(data) => {
            let location = data.target().file_name().unwrap_or_default().to_string_lossy().into_owned();
            onnx::open_moved(pending.path(), &location, data.path(), &ops::Standard)
        }
    };
    Ok(imported?.graph)
}

/// Bytes of `graph` as files.
pub fn size(graph: &Graph) -> ir::Result<u64> {
    onnx::size(graph, &ops::Standard)
}

/// BLAKE3 of a file, in hex.
pub fn hash(path: &Path) -> Result<String> {
    let mut h = blake3::Hasher::new();
    let mut f = std::fs::File::open(path).map_err(|e| Failure::bad(format!("{}: {e}", path.display())))?;
    std::io::copy(&mut f, &mut h).map_err(|e| Failure::bad(format!("{}: {e}", path.display())))?;
    Ok(h.finalize().to_hex().to_string())
}
