//! A model ready to run.

use crate::pool::ThreadPool;
use crate::prepare::{Key, deciding_inputs, key, specialise};
use crate::profile::{Profile, profile};
use codegen::Program;
use ir::{Blame, Error, Evaluate, Feeds, Graph, Result, Value};
use std::path::Path;
use std::sync::{Arc, Mutex};

/// Programs kept, by shapes; the oldest goes first.
const PROGRAMS: usize = 16;
/// After this many programs for one model, values of deciding inputs are no longer compiled in.
const THRASHING: usize = 64;

/// How a key runs.
#[derive(Clone)]
enum Engine {
    Compiled(Arc<Program>),
    /// The reference walk, for what cannot be compiled.
    Reference,
}

/// A model that compiles itself for each set of input shapes it meets.
///
/// ```no_run
/// # fn main() -> ir::Result<()> {
/// let session = compress_runtime::Session::open("model.onnx".as_ref(), 1)?;
/// let mut feeds = ir::Feeds::new();
/// feeds.insert("x".into(), ir::Tensor::new(&[1, 3], vec![1f32, 2.0, 3.0])?.into());
/// let outputs = session.run(&feeds)?;
/// # Ok(()) }
/// ```
pub struct Session {
    graph: Graph,
    deciding: Vec<usize>,
    pool: Arc<ThreadPool>,
    programs: Mutex<Programs>,
}

#[derive(Default)]
struct Programs {
    kept: Vec<(Key, Engine)>,
    compiled: usize,
}

impl Session {
    /// Opens a model file for runs on `threads` threads.
    pub fn open(path: &Path, threads: usize) -> Result<Session> {
        Session::from_graph(&onnx::open(path, &ops::Standard)?.graph, threads)
    }

    /// A session of a graph in memory.
    pub fn from_graph(graph: &Graph, threads: usize) -> Result<Session> {
        Ok(Session::with_pool(graph, Arc::new(ThreadPool::new(threads))))
    }

    /// A session that shares its workers with others.
    pub fn with_pool(graph: &Graph, pool: Arc<ThreadPool>) -> Session {
        let deciding = deciding_inputs(graph);
        Session { graph: graph.clone(), deciding, pool, programs: Mutex::default() }
    }

    /// The model.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Outputs in the graph's order, for inputs by name.
    pub fn run(&self, inputs: &Feeds) -> Result<Vec<Value>> {
        let values = self.order(inputs)?;
        match self.engine(&values)? {
            Engine::Compiled(p) => p.run(&values, self.pool.as_ref()),
            Engine::Reference => Ok(ir::Reference.run(&self.graph, inputs, &[])?.outputs),
        }
    }

    /// Compiles for these inputs without running.
    pub fn warm_up(&self, inputs: &Feeds) -> Result<()> {
        self.engine(&self.order(inputs)?).map(drop)
    }

    /// Time of every step on these inputs.
    pub fn profile(&self, inputs: &Feeds) -> Result<Profile> {
        let values = self.order(inputs)?;
        match self.engine(&values)? {
            Engine::Compiled(p) => profile(&p, &values, self.pool.as_ref()),
            Engine::Reference => {
                Err(Error::unsupported("this model runs by the reference evaluator and has no steps"))
            }
        }
    }

    /// Operators without a native kernel when run on these inputs.
    pub fn interpreted(&self, inputs: &Feeds) -> Result<Vec<String>> {
        Ok(match self.engine(&self.order(inputs)?)? {
            Engine::Compiled(p) => p
                .steps()
                .into_iter()
                .filter(|s| s.kind == "reference")
                .map(|s| format!("{} ({})", s.name, s.op))
                .collect(),
            Engine::Reference => vec!["the whole model".to_string()],
        })
    }

    fn order(&self, inputs: &Feeds) -> Result<Vec<Value>> {
        self.graph
            .inputs()
            .iter()
            .map(|&v| {
                let name = self.graph.value_name(v);
                let x = inputs.get(name).ok_or_else(|| {
                    Error::data(format!(
                        "input '{name}' is missing; the model takes {}",
                        self.graph.input_summary()
                    ))
                })?;
                let fits = self.graph.ty(v).merge(&x.value_type());
                fits.map_err(|e| Error { blame: Blame::Data, ..e.tensor(name) })?;
                Ok(x.clone())
            })
            .collect()
    }

    fn engine(&self, values: &[Value]) -> Result<Engine> {
        let mut programs = self.programs.lock().unwrap_or_else(|e| e.into_inner());
        let deciding: &[usize] = if programs.compiled > THRASHING { &[] } else { &self.deciding };
        let Some(key) = key(values, deciding) else { return Ok(Engine::Reference) };
        if let Some((_, e)) = programs.kept.iter().find(|(k, _)| *k == key) {
            return Ok(e.clone());
        }
        let engine = match specialise(&self.graph, &key).and_then(|g| codegen::compile(&g)) {
            Ok(p) => Engine::Compiled(Arc::new(p)),
            // What a kernel or the planner cannot do, the definition of the operators still can.
            Err(e) if matches!(e.blame, Blame::Internal | Blame::Unsupported | Blame::Model) => {
                Engine::Reference
            }
            Err(e) => return Err(e),
        };
        programs.compiled += 1;
        if programs.kept.len() >= PROGRAMS {
            programs.kept.remove(0);
        }
        programs.kept.push((key, engine.clone()));
        Ok(engine)
    }
}
