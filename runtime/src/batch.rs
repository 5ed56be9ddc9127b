//! Batches in parts: where items are independent, a program for a few of them runs again and again, so that what lies
//! between its steps stays in the caches; and each thread takes parts of its own.

mod along;

use crate::prepare::{Key, deciding_inputs, key, specialise};
use codegen::Program;
use ir::{Dim, Error, Feeds, Graph, Kind, Node, Result, Tensor, Value, ValueType, budget};
use kernels::{Pool, Serial};
use std::sync::Mutex;

/// Bytes of a value that stays in a core's second-level cache, and in the last one.
const L2: f64 = 768e3;
const L3: f64 = 8e6;
/// Bytes a nanosecond from the last cache, from memory, and of weights.
const FROM_L3: f64 = 30.0;
const FROM_MEMORY: f64 = 8.0;
const WEIGHTS: f64 = 20.0;
/// The same where each step in time reads the weights again, for so many items at once.
const AGAIN: f64 = 130.0;
const TOGETHER: f64 = 6.0;
/// Nanoseconds a step costs beside its work: alone, and where threads meet behind it.
const STEP: f64 = 300.0;
const MEETING: f64 = 3000.0;

/// A batch cut into equal parts.
#[derive(Debug, Clone)]
pub struct Parts {
    /// Items of the batch, and of a part.
    batch: usize,
    items: usize,
    /// For each input whether it is cut.
    cut: Vec<bool>,
}

impl Parts {
    /// Whether inputs of these types have a batch that could be cut, as far as they say.
    pub fn possible(inputs: &[(String, ValueType)], key: &Key) -> bool {
        let cut: Vec<bool> = inputs.iter().map(|(_, t)| is_open(t)).collect();
        batch(&cut, key).is_some()
    }

    /// How to cut the batch that `key` has, where that pays.
    pub fn of(graph: &Graph, key: &Key, threads: usize) -> Option<Parts> {
        let symbol = Dim::symbol("items of this batch");
        let (parts, graph) = Parts::items(graph, key, &symbol)?;
        let (batch, cost) = (parts.batch, Cost::of(&graph, &symbol));
        let sizes = (1..=batch).filter(|n| batch.is_multiple_of(*n));
        let items =
            sizes.min_by(|a, b| cost.item(*a, batch, threads).total_cmp(&cost.item(*b, batch, threads)))?;
        (items < batch).then_some(Parts { items, ..parts })
    }

    /// Each item a part of its own, where that changes no result; and the graph with the batch open.
    fn items(graph: &Graph, key: &Key, symbol: &Dim) -> Option<(Parts, Graph)> {
        let cut: Vec<bool> = graph.inputs().iter().map(|&v| is_open(graph.ty(v))).collect();
        let batch = batch(&cut, key)?;
        let graph = symbolic(graph, key, &cut, symbol).ok()?;
        let separable = along::separable(&graph, symbol).ok()?;
        separable.then_some((Parts { batch, items: 1, cut }, graph))
    }

    /// The key of a part.
    pub fn key(&self, key: &Key) -> Key {
        let part = |((dtype, shape, fixed), cut): (&(_, Vec<usize>, _), &bool)| {
            let mut shape = shape.clone();
            if *cut {
                shape[0] = self.items;
            }
            (*dtype, shape, Option::<Vec<u8>>::clone(fixed))
        };
        key.iter().zip(&self.cut).map(part).collect()
    }

    /// Parts of a batch.
    pub fn count(&self) -> usize {
        self.batch / self.items
    }

    /// Inputs of part `n`.
    pub fn inputs(&self, values: &[Value], n: usize) -> Result<Vec<Value>> {
        let part = |(v, cut): (&Value, &bool)| match cut {
            true => Ok(Value::Tensor(v.tensor()?.leading(n * self.items, self.items)?)),
            false => Ok(v.clone()),
        };
        values.iter().zip(&self.cut).map(part).collect()
    }

    /// What runs a part: all threads together, or one where there is a part for each.
    pub fn pool<'a>(&self, pool: &'a dyn Pool) -> &'a dyn Pool {
        if self.count() < pool.threads() { pool } else { &Serial }
    }

    /// Runs all parts.
    pub fn run(&self, program: &Program, values: &[Value], pool: &dyn Pool) -> Result<Vec<Value>> {
        if let Some(side) = program.side_by_side(self.count())? {
            self.each(pool, &|n, each| side.run(n, &self.inputs(values, n)?, each))?;
            return side.finish();
        }
        let results: Vec<Mutex<Option<Vec<Value>>>> = (0..self.count()).map(|_| Mutex::new(None)).collect();
        self.each(pool, &|n, each| {
            let part = program.run(&self.inputs(values, n)?, each)?;
            *results[n].lock().unwrap_or_else(|e| e.into_inner()) = Some(part);
            Ok(())
        })?;
        let mut outputs: Vec<Whole> = Vec::new();
        for r in results {
            let r = r.into_inner().unwrap_or_else(|e| e.into_inner());
            let part = r.ok_or_else(|| Error::internal("a part of the batch did not run"))?;
            outputs.resize_with(part.len(), Whole::default);
            for (whole, v) in outputs.iter_mut().zip(part) {
                whole.append(v.tensor()?, self.count())?;
            }
        }
        outputs.into_iter().map(|w| w.finish(self.batch)).collect()
    }

    /// Runs `f` for each part, with the threads that run it; of errors that of the first part.
    fn each(&self, pool: &dyn Pool, f: &(dyn Fn(usize, &dyn Pool) -> Result<()> + Sync)) -> Result<()> {
        let each = self.pool(pool);
        if each.threads() > 1 {
            return (0..self.count()).try_for_each(|n| f(n, each));
        }
        let failed: Mutex<Option<(usize, Error)>> = Mutex::new(None);
        pool.run(self.count(), &|n| {
            if let Err(e) = f(n, &Serial) {
                let mut failed = failed.lock().unwrap_or_else(|e| e.into_inner());
                if failed.as_ref().is_none_or(|(first, _)| n < *first) {
                    *failed = Some((n, e));
                }
            }
        });
        failed.into_inner().unwrap_or_else(|e| e.into_inner()).map_or(Ok(()), |(_, e)| Err(e))
    }
}

/// Runs a batch item by item, whatever that costs, for tests of the analysis behind it: the first dims of inputs that the
/// graph leaves open number the items. `None` where results of items may depend on other items.
///
/// # Errors
/// As [`Session::run`](crate::Session::run), and what code generation does not do.
pub fn one_by_one(graph: &Graph, inputs: &Feeds) -> Result<Option<Vec<Value>>> {
    let values: Vec<Value> =
        graph.inputs().iter().filter_map(|&v| inputs.get(graph.value_name(v)).cloned()).collect();
    let Some(key) = key(&values, &deciding_inputs(graph)).filter(|k| k.len() == graph.inputs().len()) else {
        return Ok(None);
    };
    let Some((parts, _)) = Parts::items(graph, &key, &Dim::symbol("items of this batch")) else {
        return Ok(None);
    };
    let program = codegen::compile(&specialise(graph, &parts.key(&key))?)?;
    parts.run(&program, &values, &Serial).map(Some)
}

/// Whether the first dim of an input is open.
fn is_open(t: &ValueType) -> bool {
    matches!(t.shape().and_then(|s| s.first()), Some(Dim::Symbol(_) | Dim::Unknown))
}

/// Items of the batch, where all inputs that are cut have as many and can be cut.
fn batch(cut: &[bool], key: &Key) -> Option<usize> {
    let mut found = None;
    for ((dtype, shape, fixed), _) in key.iter().zip(cut).filter(|(_, c)| **c) {
        let n = *shape.first().filter(|_| fixed.is_none() && dtype.bits() >= 8)?;
        if *found.get_or_insert(n) != n {
            return None;
        }
    }
    found.filter(|&n| n > 1)
}

/// An output that is put together.
#[derive(Default)]
struct Whole {
    part: Option<Tensor>,
    bytes: Vec<u8>,
}

impl Whole {
    fn append(&mut self, t: &Tensor, parts: usize) -> Result<()> {
        if self.part.is_none() {
            self.bytes = budget::vec(t.bytes().len().saturating_mul(parts))?;
        }
        self.bytes.extend_from_slice(t.bytes());
        self.part.get_or_insert_with(|| t.clone());
        Ok(())
    }

    fn finish(self, batch: usize) -> Result<Value> {
        let part = self.part.ok_or_else(|| Error::internal("a batch of no parts"))?;
        let mut shape = part.shape().to_vec();
        *shape.first_mut().ok_or_else(|| Error::internal("an output without items"))? = batch;
        Ok(Value::Tensor(Tensor::from_bytes(part.dtype(), &shape, self.bytes)?))
    }
}

/// The graph for the sizes of `key`, the batch left open; what constants decide is computed.
fn symbolic(graph: &Graph, key: &Key, cut: &[bool], symbol: &Dim) -> Result<Graph> {
    let mut g = graph.clone();
    // Declared types may name the batch otherwise.
    for v in g.values().collect::<Vec<_>>() {
        if g.producer(v).is_some() {
            g.set_type(v, ValueType::Unknown);
        }
    }
    for (i, (dtype, shape, fixed)) in key.iter().enumerate() {
        let mut dims: Vec<Dim> = shape.iter().map(|&n| n.into()).collect();
        if cut[i] {
            dims[0] = symbol.clone();
        }
        let v = g.inputs()[i];
        g.set_type(v, ValueType::tensor(*dtype, dims));
        if let Some(b) = fixed {
            let c = g.add_initializer("fixed", Tensor::from_bytes(*dtype, shape, b.clone())?);
            g.replace_uses(v, c);
        }
    }
    exact::folded(&g)
}

/// What an item costs beside arithmetic, which is the same for all sizes of parts.
struct Cost {
    /// Bytes of weights of contractions.
    weights: f64,
    /// Bytes of recurrent weights, as often as steps in time read them.
    again: f64,
    /// Bytes an item takes of each value.
    values: Vec<f64>,
    steps: f64,
}

impl Cost {
    fn of(graph: &Graph, symbol: &Dim) -> Cost {
        let bytes = |v| {
            let t = graph.ty(v).as_tensor()?;
            let n = t.shape.as_ref()?.iter().map(|d| if d == symbol { Some(1) } else { d.known() });
            Some(n.map(|n| n.map(|n| n as f64)).product::<Option<f64>>()? * t.dtype.bits() as f64 / 8.0)
        };
        let (mut weights, mut again, mut values, mut steps) = (0.0, 0.0, Vec::new(), 0.0);
        for (_, n) in graph.nodes() {
            let contracts = n.op.kind(&n.attrs) == Kind::Contract;
            // The rest goes along with contractions, mostly.
            if contracts {
                let times = recurrences(graph, n);
                steps += times.unwrap_or(1.0);
                again += times.and_then(|t| Some(t * n.input(2).and_then(bytes)?)).unwrap_or(0.0);
                let known = n.inputs().iter().flatten().filter(|v| graph.constant(**v).is_some());
                weights += known.filter_map(|&v| bytes(v)).sum::<f64>();
                values.extend(n.outputs().iter().flatten().filter_map(|&v| bytes(v)));
            }
        }
        Cost { weights, again, values, steps }
    }

    /// Nanoseconds for each item in parts of `items`.
    fn item(&self, items: usize, batch: usize, threads: usize) -> f64 {
        let n = items as f64;
        let alone = batch / items >= threads;
        let moved = |b: &f64| match n * b {
            all if all < L2 => 0.0,
            all if all < L3 => 2.0 * b / FROM_L3,
            _ => 2.0 * b / FROM_MEMORY,
        };
        let meeting = if alone && threads > 1 || threads == 1 { STEP } else { MEETING };
        let again = self.again / n.min(TOGETHER) / AGAIN / threads as f64;
        self.weights / n / WEIGHTS
            + again
            + self.values.iter().map(moved).sum::<f64>()
            + self.steps * meeting / n
    }
}

/// Steps in time of a recurrent layer, behind each of which its threads meet.
fn recurrences(graph: &Graph, n: &Node) -> Option<f64> {
    let recurrent = matches!(n.op.name(), "LSTM" | "GRU" | "RNN");
    let sequence = n.input(0).filter(|_| recurrent)?;
    Some(graph.ty(sequence).shape()?.first()?.known()?.max(1) as f64)
}

#[cfg(test)]
mod tests;
