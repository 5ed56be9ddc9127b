//! States of a model that runs step by step: outputs that the next step takes as inputs.
//!
//! Samples are the steps of one sequence, in order; where an array `reset` is not zero, a new one starts. A new sequence
//! starts from the state in the data if the data hold it, else from zeros (open sizes are 1). The original model runs through
//! all steps once; what it hands on is the state of every sample, for the original and for what is compared with it. What a
//! compressed model makes of its own states is measured at the end, over the same steps.

use crate::args::DataArgs;
use crate::commands::samples;
use crate::exit::{Failure, Result};
use crate::shelf::SAMPLES;
use data::Samples;
use ir::{DType, Evaluate, Feeds, Graph, Tensor, Value, ValueId, ValueType};
use std::cell::Cell;

/// Array that marks where a sequence starts.
const RESET: &str = "reset";

/// Pairs of a graph's outputs and inputs.
#[derive(Default)]
pub struct Links {
    /// Position among the outputs, name of the input.
    pairs: Vec<(usize, String)>,
}

impl Links {
    /// From arguments such as `hn=h`.
    pub fn parse(args: &[String], graph: &Graph) -> Result<Links> {
        let mut pairs = Vec::new();
        for a in args {
            let (out, input) = a
                .split_once('=')
                .ok_or_else(|| Failure::usage(format!("--state '{a}' is not OUTPUT=INPUT")))?;
            let at = graph.outputs().iter().position(|o| o.name == out);
            let at = at.ok_or_else(|| {
                let all: Vec<&str> = graph.outputs().iter().map(|o| o.name.as_str()).collect();
                Failure::usage(format!("--state '{a}': the model has no output '{out}', but {all:?}"))
            })?;
            let found = graph.inputs().iter().find(|&&v| graph.value_name(v) == input);
            let &v = found.ok_or_else(|| {
                let all: Vec<&str> = graph.inputs().iter().map(|&v| graph.value_name(v)).collect();
                Failure::usage(format!("--state '{a}': the model has no input '{input}', but {all:?}"))
            })?;
            let (given, taken) = (graph.ty(graph.outputs()[at].value), graph.ty(v));
            if given.merge(taken).is_err() {
                return Err(Failure::usage(format!(
                    "--state '{a}': the output is {given}, the input {taken}"
                )));
            }
            pairs.push((at, input.to_string()));
        }
        Ok(Links { pairs })
    }

    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    fn is_state(&self, name: &str) -> bool {
        self.pairs.iter().any(|(_, i)| i == name)
    }
}

/// Samples, with the states that go with each.
pub struct Steps {
    samples: Samples,
    /// A graph with the inputs the samples hold.
    shape: Graph,
    /// By sample; empty where there are no states.
    states: Vec<Feeds>,
}

impl Steps {
    /// Opens data and, for models with states, runs `graph` through the sequence.
    pub fn open(
        args: &DataArgs,
        graph: &Graph,
        links: &Links,
        evaluate: &dyn Evaluate,
    ) -> Result<Option<Steps>> {
        if links.is_empty() {
            let shape = holding(graph, |_| true, false);
            return Ok(samples(args, graph)?.map(|samples| Steps { samples, shape, states: Vec::new() }));
        }
        // The data may hold states and marks, or do without.
        let mut tried = None;
        for (all, marks) in [(true, true), (true, false), (false, true), (false, false)] {
            let shape = holding(graph, |name| all || !links.is_state(name), marks);
            match samples(args, &shape) {
                Ok(None) => return Ok(None),
                Ok(Some(samples)) => {
                    let mut steps = Steps { samples, shape, states: Vec::new() };
                    steps.states = steps.walk(graph, links, evaluate, |_, _| Ok(()))?;
                    return Ok(Some(steps));
                }
                Err(e) => tried = Some(e),
            }
        }
        Err(tried.unwrap_or_else(|| Failure::bad("no data")))
    }

    /// Keeps large arrays on a shelf instead of in memory.
    pub fn put_away(&mut self, shelf: &dyn search::Shelf) {
        let turn = Cell::new(0usize);
        self.samples.put_away(&|bytes| {
            let key = format!("{SAMPLES}{}", turn.replace(turn.get() + 1));
            let same = |at: u64| shelf.get(at, bytes.len()).ok().filter(|b| b.bytes() == bytes);
            // An earlier run that this one continues has put them there.
            if let Some(there) = shelf.noted(&key).and_then(|at| same(at.parse().ok()?)) {
                return Some(there);
            }
            let at = shelf.put(bytes).ok()?;
            shelf.note(&key, &at.to_string());
            shelf.get(at, bytes.len()).ok()
        });
    }

    pub fn samples(&self) -> &Samples {
        &self.samples
    }

    pub fn feeds(&self, i: usize) -> ir::Result<Feeds> {
        let mut feeds = self.samples.feeds(i, &self.shape)?;
        feeds.remove(RESET);
        if let Some(s) = self.states.get(i) {
            feeds.extend(s.iter().map(|(k, v)| (k.clone(), v.clone())));
        }
        Ok(feeds)
    }

    /// Runs `graph` through all steps with its own states and returns them; `each` sees every step's outputs.
    fn walk(
        &self,
        graph: &Graph,
        links: &Links,
        evaluate: &dyn Evaluate,
        mut each: impl FnMut(usize, &[Value]) -> Result,
    ) -> Result<Vec<Feeds>> {
        let mut states: Vec<Feeds> = Vec::new();
        let mut next: Option<Feeds> = None;
        for i in 0..self.samples.len() {
            let mut feeds = self.samples.feeds(i, &self.shape)?;
            let starts = match feeds.remove(RESET) {
                Some(mark) => mark.tensor()?.to_f64s()?.iter().any(|&m| m != 0.0),
                None => false,
            };
            let state = match next.take().filter(|_| !starts) {
                Some(s) => s,
                None => initial(graph, links, &feeds)?,
            };
            // States in the data are those of a start.
            feeds.extend(state.iter().map(|(k, v)| (k.clone(), v.clone())));
            let outputs = evaluate.run(graph, &feeds, &[])?.outputs;
            next = Some(links.pairs.iter().map(|(o, i)| (i.clone(), outputs[*o].clone())).collect());
            each(i, &outputs)?;
            states.push(state);
        }
        Ok(states)
    }

    /// How far `other` drifts from `graph` when both run through the steps on their own states: the noise in all outputs
    /// but states, relative to the signal, over all steps and over the last tenth.
    pub fn drift(
        &self,
        graph: &Graph,
        other: &Graph,
        links: &Links,
        evaluate: &dyn Evaluate,
    ) -> Result<[f64; 2]> {
        let shown =
            |o: usize| links.pairs.iter().all(|(s, _)| *s != o) || links.pairs.len() == graph.outputs().len();
        let mut wanted: Vec<Vec<Value>> = Vec::new();
        self.walk(graph, links, evaluate, |_, outputs| {
            wanted.push(
                outputs.iter().enumerate().filter(|(o, _)| shown(*o)).map(|(_, v)| v.clone()).collect(),
            );
            Ok(())
        })?;
        evaluate.forget();
        let (there, given) = (graph.outputs().len(), other.outputs().len());
        if there != given {
            return Err(Failure::bad(format!("{given} outputs beside {there}")));
        }
        let late = wanted.len() - wanted.len().div_ceil(10);
        let mut sums = [[0f64; 2]; 2];
        self.walk(other, links, evaluate, |i, outputs| {
            let mine = outputs.iter().enumerate().filter(|(o, _)| shown(*o)).map(|(_, v)| v);
            for (x, y) in wanted[i].iter().zip(mine) {
                let (Value::Tensor(x), Value::Tensor(y)) = (x, y) else { continue };
                if x.dtype() == DType::String || x.shape() != y.shape() {
                    continue;
                }
                let (mut noise, mut signal) = (0.0, 0.0);
                for (p, q) in x.to_f64s()?.into_iter().zip(y.to_f64s()?) {
                    noise += (p - q) * (p - q);
                    signal += p * p;
                }
                for s in &mut sums[..1 + usize::from(i >= late)] {
                    s[0] += noise;
                    s[1] += signal;
                }
            }
            Ok(())
        })?;
        Ok(sums.map(|[noise, signal]| (noise / signal.max(f64::MIN_POSITIVE)).sqrt()))
    }

    /// What a drift over `n` steps says.
    pub fn told([all, late]: [f64; 2], n: usize) -> String {
        format!(
            "run on its own states through all {n} steps, its outputs differ from the original's by {all:.2e} (relative), \
             by {late:.2e} in the last tenth"
        )
    }
}

/// States at the start of a sequence: those of the data, or zeros.
fn initial(graph: &Graph, links: &Links, feeds: &Feeds) -> Result<Feeds> {
    let mut state = Feeds::new();
    for &v in graph.inputs() {
        let name = graph.value_name(v);
        if links.is_state(name) && !feeds.contains_key(name) {
            state.insert(name.to_string(), Value::Tensor(zeros(graph, v)?));
        }
    }
    Ok(state)
}

fn zeros(graph: &Graph, v: ValueId) -> Result<Tensor> {
    let ty = graph.ty(v);
    let (Some(dtype), Some(shape)) = (ty.dtype(), ty.shape()) else {
        let name = graph.value_name(v);
        return Err(Failure::bad(format!("state '{name}' is {ty}: put its first value into the data")));
    };
    let shape: Vec<usize> = shape.iter().map(|d| d.known().unwrap_or(1)).collect();
    Ok(Tensor::zeros(dtype, &shape)?)
}

/// The inputs that data are to hold, as a graph.
fn holding(graph: &Graph, keep: impl Fn(&str) -> bool, marks: bool) -> Graph {
    let mut g = Graph::new("samples");
    for &v in graph.inputs().iter().filter(|&&v| keep(graph.value_name(v))) {
        g.add_input(graph.value_name(v), graph.ty(v).clone());
    }
    if marks && graph.inputs().iter().all(|&v| graph.value_name(v) != RESET) {
        g.add_input(RESET, ValueType::tensor(DType::I64, vec![]));
    }
    g
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn samples_are_put_away_once() {
        let (n, width) = (4, 1 << 18);
        let mut g = Graph::new("g");
        let x = g.add_input("x", ValueType::known(DType::F32, &[width]));
        let y = g.apply("y", ops::standard("Neg").unwrap(), ir::Attrs::new(), &[x]);
        g.add_output("y", y);
        ir::infer(&mut g).unwrap();
        let dir = std::env::temp_dir().join(format!("compress-samples-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let values = Tensor::new(&[n, width], (0..n * width).map(|i| i as f32).collect()).unwrap();
        let path = dir.join("x.npz");
        data::npz::write(&mut std::fs::File::create(&path).unwrap(), &[("x".to_string(), values)]).unwrap();
        let args = DataArgs { path: Some(path), ..DataArgs::default() };
        let target = dir.join("out.onnx");
        let mut kept = Vec::new();
        for run in 0..3 {
            // Each run but the first continues one that was killed.
            let shelf = crate::shelf::Disk::near(&target, "same", run > 0).unwrap();
            let mut s = Steps::open(&args, &g, &Links::default(), &ir::Reference).map_err(|e| e.to_string());
            let s = s.as_mut().unwrap().as_mut().unwrap();
            s.put_away(&shelf);
            assert_eq!(
                s.feeds(3).unwrap()["x"].tensor().unwrap().to_f32s().unwrap()[1],
                (3 * width + 1) as f32
            );
            kept.push(std::fs::metadata(dir.join(".out.onnx.candidates")).unwrap().len());
            assert_eq!(shelf.resumed(), 0);
            shelf.killed();
        }
        assert_eq!(kept, [4 * (n * width) as u64; 3]);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    /// The state is the sum of all steps since the start.
    fn sum() -> Graph {
        let text = "<ir_version: 10, opset_import: [\"\": 21]>
            g (float[1] x, float[1] s) => (float[1] y, float[1] t) { t = Add (x, s) y = Neg (t) }";
        let mut g = ir::text::parse(text, &ops::Standard).unwrap();
        ir::infer(&mut g).unwrap();
        g
    }

    fn steps(more: &[(&str, Tensor)]) -> Vec<f32> {
        let g = sum();
        let links = Links::parse(&["t=s".to_string()], &g).unwrap();
        let mut arrays =
            BTreeMap::from([("x".to_string(), Tensor::new(&[4, 1], vec![1f32, 2., 3., 4.]).unwrap())]);
        arrays.extend(more.iter().map(|(n, t)| (n.to_string(), t.clone())));
        let dir = std::env::temp_dir().join(format!("compress-states-{}-{}", std::process::id(), more.len()));
        let list: Vec<(String, Tensor)> = arrays.into_iter().collect();
        data::npz::write(&mut std::fs::File::create(&dir).unwrap(), &list).unwrap();
        let args = DataArgs { path: Some(dir.clone()), ..DataArgs::default() };
        let s = Steps::open(&args, &g, &links, &ir::Reference);
        std::fs::remove_file(&dir).unwrap();
        let s = s.map_err(|e| e.to_string()).unwrap().unwrap();
        let drift = s.drift(&g, &g, &links, &ir::Reference).map_err(|e| e.to_string()).unwrap();
        assert_eq!(drift, [0.0, 0.0]);
        (0..4).map(|i| s.feeds(i).unwrap()["s"].tensor().unwrap().to_f32s().unwrap()[0]).collect()
    }

    #[test]
    fn each_step_gets_what_the_one_before_left() {
        assert_eq!(steps(&[]), [0., 1., 3., 6.]);
        let reset = ("reset", Tensor::vector(vec![1i64, 0, 1, 0]));
        assert_eq!(steps(std::slice::from_ref(&reset)), [0., 1., 0., 3.]);
        let given = ("s", Tensor::new(&[4, 1], vec![10f32, 20., 30., 40.]).unwrap());
        assert_eq!(steps(&[reset, given]), [10., 11., 30., 33.]);
    }
}
