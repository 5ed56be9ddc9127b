//! Where a session has its model from: a graph in memory, or a file that is read when something needs more of it than its
//! card in the cache says.

use crate::cache::{Cache, Card, Known, Moment};
use crate::pool::ThreadPool;
use crate::prepare::{Key, deciding_inputs};
use codegen::{Precision, Program};
use ir::{DType, Error, Graph, Result};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// A model and what is kept of it.
pub struct Source {
    graph: OnceLock<Graph>,
    /// The graph with what shapes do not decide computed, once there are several programs to be made of it.
    folded: OnceLock<Graph>,
    /// What the model takes and gives.
    pub card: Card,
    /// Bytes of its weights, more or less.
    pub weights: usize,
    kept: Option<Kept>,
}

/// The graph as it is run; one that cannot be widened runs as it is.
fn widened(graph: Graph) -> Graph {
    exact::widen(&graph).ok().flatten().unwrap_or(graph)
}

/// A model file, or a container of one.
pub fn read(path: &Path) -> Result<onnx::Imported> {
    match container::read(path).map_err(|e| Error::data(format!("{}: {e}", path.display())))? {
        Some(file) => onnx::from_bytes(file, &ops::Standard),
        None => onnx::open(path, &ops::Standard),
    }
}

struct Kept {
    path: PathBuf,
    cache: Cache,
    known: Known,
}

fn has_bf16_weights(graph: &Graph) -> bool {
    graph.initializers().any(|(_, t)| t.dtype() == DType::BF16)
}

fn card(graph: &Graph, bf16: bool) -> Card {
    let named = |name: &str, v| (name.to_string(), graph.ty(v).clone());
    Card {
        inputs: graph.inputs().iter().map(|&v| named(graph.value_name(v), v)).collect(),
        outputs: graph.outputs().iter().map(|o| named(&o.name, o.value)).collect(),
        deciding: deciding_inputs(graph),
        bf16,
    }
}

impl Source {
    pub fn memory(graph: &Graph) -> Source {
        let bf16 = has_bf16_weights(graph);
        Source::new(exact::widen(graph).ok().flatten().unwrap_or_else(|| graph.clone()), bf16)
    }

    /// A graph that is widened.
    fn new(graph: Graph, bf16: bool) -> Source {
        let card = card(&graph, bf16);
        let weights = graph.initializers().map(|(_, t)| t.stored_bytes()).sum();
        Source { graph: graph.into(), folded: OnceLock::new(), card, weights, kept: None }
    }

    /// A file, looked up in a cache first; one that is not there is read now.
    pub fn file(path: &Path, cache: Cache, pool: &ThreadPool) -> Result<Source> {
        if let Some((known, card)) = cache.look(path, pool) {
            let weights = known.bytes();
            let kept = Some(Kept { path: path.to_path_buf(), cache, known });
            return Ok(Source { graph: OnceLock::new(), folded: OnceLock::new(), card, weights, kept });
        }
        let moment = Moment::of(path);
        let read = read(path)?;
        let bf16 = has_bf16_weights(&read.graph);
        let source = Source::new(widened(read.graph), bf16);
        let known = cache.learn(path, &moment, &read.external, &source.card, pool);
        let kept = known.map(|known| Kept { path: path.to_path_buf(), cache, known });
        Ok(Source { kept, ..source })
    }

    /// The whole model.
    pub fn graph(&self) -> Result<&Graph> {
        if let Some(g) = self.graph.get() {
            return Ok(g);
        }
        let kept = self.kept.as_ref().ok_or_else(|| Error::internal("a model from nowhere"))?;
        let graph = read(&kept.path)?.graph;
        if !kept.known.is_unchanged() {
            return Err(Error::data(format!("{} changed while it was in use", kept.path.display())));
        }
        Ok(self.graph.get_or_init(|| widened(graph)))
    }

    /// What a program is made of; `more` when there were others.
    pub fn base(&self, more: bool) -> Result<&Graph> {
        let graph = self.graph()?;
        if !more {
            return Ok(graph);
        }
        Ok(self.folded.get_or_init(|| exact::folded(graph).unwrap_or_else(|_| graph.clone())))
    }

    /// The program for a key, if it was kept.
    pub fn program(&self, key: &Key, precision: Precision, pool: &ThreadPool) -> Option<Program> {
        let kept = self.kept.as_ref()?;
        kept.cache.program(&kept.known, (key, precision), pool)
    }

    /// Keeps a program, where that is asked for and possible.
    pub fn keep(&self, key: &Key, precision: Precision, program: &Program) {
        if let Some(k) = &self.kept {
            k.cache.keep(&k.known, (key, precision), program);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{Session, inputs};
    use ndarray::Array4;

    #[test]
    fn a_model_that_was_kept_is_not_read_again() {
        let folder = std::env::temp_dir().join(format!("compress-source-{}", std::process::id()));
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/models/mnist-cnn.onnx");
        let image = Array4::<f32>::from_shape_fn((1, 1, 28, 28), |(_, _, y, x)| (y * x % 17) as f32 / 17.0);
        let open = || Session::options().threads(1).cache(&folder).open(path).unwrap();
        let run = |s: &Session| {
            let out = s.run(&inputs! { "image" => &image }).unwrap();
            out.view::<f32>("logits").unwrap().iter().copied().collect::<Vec<f32>>()
        };
        let first = open();
        let want = run(&first);
        assert!(first.source.graph.get().is_some());
        let second = open();
        assert_eq!(run(&second), want);
        assert!(second.source.graph.get().is_none());
        assert_eq!(second.inputs().collect::<Vec<_>>(), first.inputs().collect::<Vec<_>>());
        // Other shapes are compiled, from the file.
        let two = Array4::<f32>::zeros((2, 1, 28, 28));
        let batch = |s: &Session| s.run(&inputs! { "image" => &two }).map(drop);
        assert_eq!(batch(&second).is_ok(), batch(&first).is_ok());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
