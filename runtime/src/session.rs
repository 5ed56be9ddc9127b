//! A model ready to run.

use crate::batch::Parts;
use crate::inputs::Input;
use crate::lend::Loan;
use crate::options::Options;
use crate::outputs::Outputs;
use crate::pool::ThreadPool;
use crate::prepare::{Key, key, specialise};
use crate::profile::{Profile, profile};
use crate::source::Source;
use codegen::{Loops, Packs, Precision, Program};
use ir::{Blame, DType, Dim, Error, Evaluate, Feeds, Graph, Result, Value, ValueType};
use kernels::{Memory, Pool, Tier, has_bf16};
use std::path::Path;
use std::sync::{Arc, Mutex};

/// Programs kept, by shapes; the oldest goes first.
const PROGRAMS: usize = 16;
/// Bytes of weights that programs may hold packed, each its own: large models keep fewer programs, but two.
const PACKED: usize = 2 << 30;
/// After this many programs for one model, values of deciding inputs are no longer compiled in.
const THRASHING: usize = 64;

/// How a key runs.
#[derive(Clone)]
enum Engine {
    Compiled(Arc<Program>),
    /// The batch in parts, each by the program for a part.
    Parts(Arc<Program>, Parts),
    /// The reference walk, for what cannot be compiled.
    Reference,
}

impl Programs {
    fn find(&self, key: &Key) -> Option<Engine> {
        self.kept.iter().find(|(k, _)| k == key).map(|k| k.1.clone())
    }
}

/// An input or output of a model, as it declares it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port<'a> {
    /// Its name.
    pub name: &'a str,
    /// Element type of a tensor.
    pub dtype: Option<DType>,
    /// Dims, known or open, when the rank is known.
    pub shape: Option<&'a [Dim]>,
}

/// A model that compiles itself for each set of input shapes it meets, and keeps the programs.
///
/// A session may be used by many threads at once; each run has its own memory. The crate's page has an example.
pub struct Session {
    pub(crate) source: Source,
    /// Programs kept.
    most: usize,
    /// Names of the outputs.
    names: Arc<[String]>,
    pool: Arc<ThreadPool>,
    precision: Precision,
    /// Weights that the programs share.
    packs: Packs,
    programs: Mutex<Programs>,
}

#[derive(Default)]
struct Programs {
    kept: Vec<(Key, Engine)>,
    compiled: usize,
}

impl Session {
    /// Opens a model file for runs on all cores: [`Session::options`] with nothing set.
    ///
    /// # Errors
    /// As [`Options::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Session> {
        Options::default().open(path)
    }

    /// Settings, to be followed by [`Options::open`] or its relatives.
    pub fn options() -> Options {
        Options::default()
    }

    /// A session of a graph in memory.
    pub fn from_graph(graph: &Graph, threads: usize) -> Result<Session> {
        Ok(Session::with_pool(graph, Arc::new(ThreadPool::new(threads))))
    }

    /// A session that shares its workers with others.
    pub fn with_pool(graph: &Graph, pool: Arc<ThreadPool>) -> Session {
        Session::new(Source::memory(graph), pool)
    }

    /// The same session, with contractions computed in another precision; see [`Options::precision`].
    pub fn with_precision(self, precision: Precision) -> Session {
        Session { precision, programs: Mutex::default(), ..self }
    }

    pub(crate) fn new(source: Source, pool: Arc<ThreadPool>) -> Session {
        let names = source.card.outputs.iter().map(|o| o.0.clone()).collect();
        let most = (PACKED / source.weights.max(1)).clamp(2, PROGRAMS);
        // Weights of bfloat16 ask for products of bfloat16, where the CPU has them.
        let precision = match source.card.bf16 && has_bf16() {
            true => Precision::Bf16,
            false => Precision::Automatic,
        };
        Session { source, most, names, pool, precision, packs: Packs::default(), programs: Mutex::default() }
    }

    /// The model. One that came from a cache is read now.
    ///
    /// # Errors
    /// As [`Options::open`], when the file is not there any more or is another.
    pub fn graph(&self) -> Result<&Graph> {
        self.source.graph()
    }

    /// A graph of the model's inputs alone.
    pub fn declared(&self) -> Graph {
        let mut g = Graph::new("inputs");
        for (name, ty) in &self.source.card.inputs {
            g.add_input(name, ty.clone());
        }
        g
    }

    /// The inputs the model takes.
    pub fn inputs(&self) -> impl ExactSizeIterator<Item = Port<'_>> {
        self.source.card.inputs.iter().map(port)
    }

    /// The outputs the model gives.
    pub fn outputs(&self) -> impl ExactSizeIterator<Item = Port<'_>> {
        self.source.card.outputs.iter().map(port)
    }

    /// Runs the model on inputs by name. The first run with new shapes compiles; see [`Session::warm_up`].
    ///
    /// # Errors
    /// [`Data`](Blame::Data) when an input is missing, unknown, or of another type or shape than the model takes.
    pub fn run(&self, inputs: &[(&str, Input)]) -> Result<Outputs> {
        let mut loan = Loan::default();
        let values = self.evaluate(&self.feeds(inputs, &mut loan)?)?;
        let kept = values.into_iter().map(|v| loan.keep(v)).collect::<Result<_>>()?;
        Outputs::new(Arc::clone(&self.names), kept)
    }

    /// Compiles for the types and shapes of these inputs, so that the next run does not have to. Values matter only
    /// for small integer inputs that decide shapes.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn warm_up(&self, inputs: &[(&str, Input)]) -> Result<()> {
        let mut loan = Loan::default();
        self.engine(&self.order(&self.feeds(inputs, &mut loan)?)?).map(drop)
    }

    fn feeds<'a>(&self, inputs: &'a [(&str, Input)], loan: &mut Loan<'a>) -> Result<Feeds> {
        let mut feeds = Feeds::new();
        for (name, x) in inputs {
            if !self.source.card.inputs.iter().any(|i| i.0 == *name) {
                let takes = self.declared().input_summary();
                return Err(Error::data(format!("there is no input '{name}'; the model takes {takes}")));
            }
            feeds.insert(name.to_string(), x.value(loan)?);
        }
        Ok(feeds)
    }

    /// Outputs in the graph's order, for inputs by name. Inputs that the model does not know are ignored.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn evaluate(&self, inputs: &Feeds) -> Result<Vec<Value>> {
        let values = self.order(inputs)?;
        match self.engine(&values)? {
            Engine::Compiled(p) => p.run(&values, self.pool.as_ref()),
            Engine::Parts(p, parts) => parts.run(&p, &values, self.pool.as_ref()),
            Engine::Reference => Ok(ir::Reference.run(self.graph()?, inputs, &[])?.outputs),
        }
    }

    /// Time of every step on these inputs; of a batch that runs in parts, on the first of them.
    pub fn profile(&self, inputs: &Feeds) -> Result<Profile> {
        let values = self.order(inputs)?;
        match self.engine(&values)? {
            Engine::Compiled(p) => profile(&p, &values, self.pool.as_ref()),
            Engine::Parts(p, parts) => {
                let part = parts.inputs(&values, 0)?;
                profile(&p, &part, parts.pool(self.pool.as_ref()))
            }
            Engine::Reference => {
                Err(Error::unsupported("this model runs by the reference evaluator and has no steps"))
            }
        }
    }

    /// Operators without a native kernel when run on these inputs.
    pub fn interpreted(&self, inputs: &Feeds) -> Result<Vec<String>> {
        Ok(match self.engine(&self.order(inputs)?)? {
            Engine::Compiled(p) | Engine::Parts(p, _) => p
                .steps()
                .into_iter()
                .filter(|s| s.by_reference())
                .map(|s| format!("{} ({})", s.name, s.op))
                .collect(),
            Engine::Reference => vec!["the whole model".to_string()],
        })
    }

    fn order(&self, inputs: &Feeds) -> Result<Vec<Value>> {
        let inputs_of = self.source.card.inputs.iter();
        inputs_of
            .map(|(name, ty)| {
                let x = inputs.get(name).ok_or_else(|| {
                    let takes = self.declared().input_summary();
                    Error::data(format!("input '{name}' is missing; the model takes {takes}"))
                })?;
                let fits = ty.merge(&x.value_type());
                fits.map_err(|e| Error { blame: Blame::Data, ..e.tensor(name) })?;
                Ok(x.clone())
            })
            .collect()
    }

    fn engine(&self, values: &[Value]) -> Result<Engine> {
        let mut programs = self.programs.lock().unwrap_or_else(|e| e.into_inner());
        let deciding: &[usize] = if programs.compiled > THRASHING { &[] } else { &self.source.card.deciding };
        let Some(key) = key(values, deciding) else { return Ok(Engine::Reference) };
        if let Some(e) = programs.find(&key) {
            // What runs again may run often.
            Memory::settle();
            return Ok(e);
        }
        let more = programs.compiled > 0;
        let engine = match self.in_parts(&key, &mut programs)? {
            Some(e) => e,
            None => match self.compiled(&key, more) {
                Ok(p) => Engine::Compiled(Arc::new(p)),
                // What a kernel or the planner cannot do, the definition of the operators still can.
                Err(e) if matches!(e.blame, Blame::Internal | Blame::Unsupported | Blame::Model) => {
                    Engine::Reference
                }
                Err(e) => return Err(e),
            },
        };
        programs.compiled += 1;
        while programs.kept.len() >= self.most {
            programs.kept.remove(0);
        }
        programs.kept.push((key, engine.clone()));
        Ok(engine)
    }

    /// The engine for a batch that is cut, where that pays and a part can be compiled; a model of one item is not even
    /// read for that.
    fn in_parts(&self, key: &Key, programs: &mut Programs) -> Result<Option<Engine>> {
        let more = programs.compiled > 0;
        if !Parts::possible(&self.source.card.inputs, key) {
            return Ok(None);
        }
        let Some(parts) = Parts::of(self.source.base(more)?, key, self.pool.threads()) else {
            return Ok(None);
        };
        let part = parts.key(key);
        if let Some(Engine::Compiled(p)) = programs.find(&part) {
            return Ok(Some(Engine::Parts(p, parts)));
        }
        let Ok(program) = self.compiled(&part, more).map(Arc::new) else { return Ok(None) };
        programs.kept.push((part, Engine::Compiled(Arc::clone(&program))));
        Ok(Some(Engine::Parts(program, parts)))
    }

    /// The program for a key, from the cache where there is one; `more` when it is not the session's first.
    fn compiled(&self, key: &Key, more: bool) -> Result<Program> {
        if let Some(p) = self.source.program(key, self.precision, &self.pool) {
            return Ok(p);
        }
        let base = self.source.base(more)?;
        self.packs.learn(base);
        let compile = |g: Graph| {
            codegen::compile_sharing(&g, Tier::best(), self.precision, Loops::WherePaying, &self.packs)
        };
        let program = specialise(base, key).and_then(compile)?;
        self.source.keep(key, self.precision, &program);
        Ok(program)
    }
}

fn port((name, ty): &(String, ValueType)) -> Port<'_> {
    Port { name, dtype: ty.dtype(), shape: ty.shape() }
}
