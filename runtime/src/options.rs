//! How a session is made.

use crate::cache::Cache;
use crate::source::{self, Source};
use crate::{Session, ThreadPool};
use codegen::Precision;
use ir::{Graph, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Settings of a session to be opened; see [`Session::options`].
#[derive(Clone, Default)]
pub struct Options {
    threads: Option<usize>,
    pool: Option<Arc<ThreadPool>>,
    cache: Option<PathBuf>,
    precision: Option<Precision>,
}

impl Options {
    /// Runs on `threads` threads, the calling one included; without this, on as many as the system offers. Results do
    /// not depend on the number.
    pub fn threads(self, threads: usize) -> Options {
        Options { threads: Some(threads.max(1)), ..self }
    }

    /// Runs on workers shared with other sessions; [`Options::threads`] has no meaning then.
    pub fn pool(self, pool: Arc<ThreadPool>) -> Options {
        Options { pool: Some(pool), ..self }
    }

    /// Keeps compiled programs with their packed weights in this folder, and takes them from there: a model file that was
    /// opened before, for inputs of the same shapes, is then neither read nor compiled again but mapped. A program is
    /// found by the content of the model's files, whatever their names, the CPU and the build of this crate. Answers are
    /// the same with and without. Files that are damaged are replaced, and the folder is kept below 8 GiB.
    ///
    /// The folder holds machine code: it must be one that others cannot write. Models with steps that run by the
    /// reference semantics are compiled each time, as [`Options::from_bytes`] and [`Options::graph`] do.
    pub fn cache(self, folder: impl Into<PathBuf>) -> Options {
        Options { cache: Some(folder.into()), ..self }
    }

    /// What matrix products and convolutions of float32 with constant weights compute in. Unless set, that is
    /// float32, but for weights stored in at most 8 bits, whose products of many rows round these to 16 bits where that is
    /// faster ([`Precision::Float32`] does not); or bfloat16 for a model of bfloat16 weights where the CPU has instructions
    /// for it. With
    /// [`Precision::Bf16`] operands are rounded to bfloat16 and products summed in float32, which is about twice as fast
    /// where the CPU has instructions for it, up to four times where it has a tile unit, and slower elsewhere.
    pub fn precision(self, precision: Precision) -> Options {
        Options { precision: Some(precision), ..self }
    }

    /// Opens a model file, or a `.cmpx` container of one. Weights of a model file stay there, mapped, until a program
    /// packs them.
    ///
    /// # Errors
    /// [`Model`](ir::Blame::Model) for a file that is no valid model, [`Unsupported`](ir::Blame::Unsupported) for one
    /// with unknown operators, which the message lists, [`Limit`](ir::Blame::Limit) for one that is too large.
    pub fn open(self, path: impl AsRef<Path>) -> Result<Session> {
        let Some(folder) = &self.cache else {
            return Ok(self.graph(&source::read(path.as_ref())?.graph));
        };
        let (cache, pool) = (Cache::new(folder), self.workers());
        let source = Source::file(path.as_ref(), cache, &pool)?;
        Ok(self.set(Session::new(source, pool)))
    }

    /// Opens a model in memory. One with external data is refused.
    ///
    /// # Errors
    /// As [`Options::open`].
    pub fn from_bytes(self, bytes: Vec<u8>) -> Result<Session> {
        Ok(self.graph(&onnx::from_bytes(bytes, &ops::Standard)?.graph))
    }

    /// A session of a graph.
    pub fn graph(self, graph: &Graph) -> Session {
        self.set(Session::with_pool(graph, self.workers()))
    }

    fn workers(&self) -> Arc<ThreadPool> {
        self.pool.clone().unwrap_or_else(|| {
            let system = || std::thread::available_parallelism().map_or(1, usize::from);
            Arc::new(ThreadPool::new(self.threads.unwrap_or_else(system)))
        })
    }

    fn set(&self, session: Session) -> Session {
        match self.precision {
            Some(p) => session.with_precision(p),
            None => session,
        }
    }
}
