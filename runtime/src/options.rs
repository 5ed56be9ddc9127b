//! How a session is made.

use crate::{Session, ThreadPool};
use ir::{Graph, Result};
use std::path::Path;
use std::sync::Arc;

/// Settings of a session to be opened; see [`Session::options`].
#[derive(Clone, Default)]
pub struct Options {
    threads: Option<usize>,
    pool: Option<Arc<ThreadPool>>,
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

    /// Opens a model file, or a `.cmpx` container of one. Weights of a model file stay there, mapped, until a program
    /// packs them.
    ///
    /// # Errors
    /// [`Model`](ir::Blame::Model) for a file that is no valid model, [`Unsupported`](ir::Blame::Unsupported) for one
    /// with unknown operators, which the message lists, [`Limit`](ir::Blame::Limit) for one that is too large.
    pub fn open(self, path: impl AsRef<Path>) -> Result<Session> {
        let path = path.as_ref();
        match container::read(path).map_err(|e| ir::Error::data(format!("{}: {e}", path.display())))? {
            Some(file) => self.from_bytes(file),
            None => Ok(self.graph(&onnx::open(path, &ops::Standard)?.graph)),
        }
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
        let pool = self.pool.unwrap_or_else(|| {
            let system = || std::thread::available_parallelism().map_or(1, usize::from);
            Arc::new(ThreadPool::new(self.threads.unwrap_or_else(system)))
        });
        Session::with_pool(graph, pool)
    }
}
