//! Tuning of what a selection stores as floats, on the error of the model's outputs: a factor for every row of a layer's
//! scales and a step of its bias.
//!
//! Both are inputs of one graph that also computes the squared output error and its gradients, so it is compiled once.
//! Adam with a step that shrinks to nothing; some of the samples that select tell where to stop. Order,
//! number of steps and start are fixed: nothing is random.

use crate::apply;
use crate::calibrate::{activations, concrete, spread};
use crate::goal::check;
use crate::repair::Bench;
use crate::sensitivity::{each, outputs};
use crate::shelf::Offer;
use ir::{Attrs, DType, Error, Feeds, Graph, Output, Result, Tensor, Value, ValueId, ValueType};
use lossy::{Bias, Candidate, Layer, Replaces, Role};
use std::collections::BTreeMap;

/// Most calibration samples.
const SAMPLES: usize = 48;
/// Most samples that tell where to stop.
const JUDGES: usize = 16;
/// Samples of one step.
const BATCH: usize = 8;
/// Most runs of one sample, forward and back.
const RUNS: usize = 400;
const EPOCHS: usize = 12;
/// Epochs after which descent ends when nothing has got better.
const PATIENCE: usize = 2;
/// The first step, relative to a layer's numbers, at an output error of one.
const RATE: f64 = 0.01;
/// Bytes of outputs held.
const OUTPUTS: usize = 64 << 20;

/// What may change in one layer.
struct Knob {
    /// Position in the selection.
    at: usize,
    rows: usize,
    /// Names of the graph's inputs, where there are such.
    factor: Option<String>,
    step: Option<String>,
    /// Root mean square of the layer's outputs.
    unit: f64,
}

/// One vector of parameters with Adam's moments.
struct Vector {
    name: String,
    /// Value at which nothing changes, and what a relative step of one means.
    start: f64,
    unit: f64,
    x: Vec<f64>,
    mean: Vec<f64>,
    square: Vec<f64>,
}

impl Vector {
    fn new(name: &str, rows: usize, start: f64, unit: f64) -> Vector {
        let zero = || vec![0.0; rows];
        Vector { name: name.to_string(), start, unit, x: zero(), mean: zero(), square: zero() }
    }

    fn tensor(&self, x: &[f64]) -> Tensor {
        Tensor::vector::<f32>(x.iter().map(|x| (self.start + x * self.unit) as f32).collect())
    }

    fn advance(&mut self, gradient: &[f64], step: i32, rate: f64) {
        const KEEP: [f64; 2] = [0.9, 0.99];
        let fresh = KEEP.map(|k| 1.0 - k.powi(step));
        for (i, g) in gradient.iter().enumerate() {
            let g = g * self.unit;
            self.mean[i] = KEEP[0] * self.mean[i] + (1.0 - KEEP[0]) * g;
            self.square[i] = KEEP[1] * self.square[i] + (1.0 - KEEP[1]) * g * g;
            let root = (self.square[i] / fresh[1]).sqrt();
            if root > 0.0 {
                self.x[i] -= rate * self.mean[i] / fresh[0] / root;
            }
        }
    }
}

/// A graph that gives the error and a gradient for every vector.
struct Course<'a> {
    bench: &'a Bench<'a>,
    graph: Graph,
    /// Samples; the first `judges` of them are not fitted.
    which: Vec<usize>,
    judges: usize,
    targets: Vec<Vec<Value>>,
    vectors: Vec<Vector>,
}

impl Bench<'_> {
    /// Bytes that a run forward and back may take.
    fn room(&self) -> u64 {
        let at_once = 1 + u64::from(self.evaluate.side_by_side());
        self.options.memory.map_or(u64::MAX, |m| m / (2 * at_once))
    }

    /// Tuned offers for the chosen ones, `None` where one stays; nothing at all where the model has no gradient. `error`
    /// is the relative output error now.
    pub fn tune(&self, chosen: &[(&Layer, &Offer)], error: f64) -> Result<Option<Vec<Option<Offer>>>> {
        let all = [spread(self.selection, JUDGES), spread(self.calibration, SAMPLES)];
        let Some(&first) = all.iter().flatten().next() else { return Ok(None) };
        let feeds = self.samples.feeds(first)?;
        // One graph of known shapes serves the samples of these shapes.
        let shapes = |f: &Feeds| f.iter().map(|(n, v)| (n.clone(), v.value_type())).collect::<Vec<_>>();
        let wanted = shapes(&feeds);
        let alike = |w: &Vec<usize>| -> Result<Vec<usize>> {
            let kept = w.iter().map(|&i| Ok((shapes(&self.samples.feeds(i)?) == wanted).then_some(i)));
            Ok(kept.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
        };
        let (judges, fitted) = (alike(&all[0])?, alike(&all[1])?);
        if fitted.len() < BATCH {
            return Ok(None);
        }
        let mut which = [judges.clone(), fitted].concat();
        let targets = outputs(self.graph, self.samples, &which, self.evaluate, self.progress);
        self.evaluate.forget();
        let mut targets = targets?;
        let bytes = |o: &Vec<Value>| {
            o.iter().filter_map(|v| v.tensor().ok()).map(Tensor::stored_bytes).sum::<usize>().max(1)
        };
        let most = (OUTPUTS / targets.iter().map(bytes).max().unwrap_or(1)).max(1);
        targets.truncate(most);
        which.truncate(most);
        let (graph, knobs) = self.instrumented(chosen, &feeds)?;
        let vectors: Vec<Vector> = knobs
            .iter()
            .flat_map(|k| {
                let factor = k.factor.as_ref().map(|n| Vector::new(n, k.rows, 1.0, 1.0));
                let step = k.step.as_ref().map(|n| Vector::new(n, k.rows, 0.0, k.unit));
                [factor, step].into_iter().flatten()
            })
            .collect();
        if vectors.is_empty() {
            return Ok(None);
        }
        let Some(graph) = with_gradients(&graph, &feeds, &targets, &vectors, self.room()) else {
            return Ok(None);
        };
        let judges = judges.len().min(which.len().div_ceil(2));
        let mut course = Course { bench: self, graph, which, judges, targets, vectors };
        let best = course.run(error);
        self.evaluate.forget();
        let Some(best) = best? else { return Ok(None) };
        let found: BTreeMap<String, Vec<f32>> = course
            .vectors
            .iter()
            .zip(&best)
            .map(|(v, x)| Ok((v.name.clone(), v.tensor(x).to_f32s()?)))
            .collect::<Result<_>>()?;
        let mut tuned: Vec<Option<Offer>> = chosen.iter().map(|_| None).collect();
        for k in &knobs {
            let (layer, offer) = chosen[k.at];
            let old = offer.get(self.options.shelf.as_ref())?;
            let get = |n: &Option<String>| n.as_ref().and_then(|n| found.get(n)).map(Vec::as_slice);
            if let Some(new) = turned(self.graph, layer, &old, get(&k.factor), get(&k.step))? {
                tuned[k.at] = Some(Offer::put(new, self.options.shelf.as_ref()));
            }
        }
        Ok(Some(tuned))
    }

    /// The selection as a graph, each layer's result times a factor and plus a step per row, which are inputs.
    fn instrumented(&self, chosen: &[(&Layer, &Offer)], feeds: &Feeds) -> Result<(Graph, Vec<Knob>)> {
        let (mut g, mut moved) = (self.graph.clone(), BTreeMap::new());
        let mut knobs = Vec::new();
        for (at, (layer, offer)) in chosen.iter().enumerate() {
            let c = offer.get(self.options.shelf.as_ref())?;
            apply::put(&mut g, layer, &c, &mut moved)?;
            let own = layer.path.is_empty() && layer.users == 1;
            if !own || !matches!(layer.role, Role::Conv | Role::MatMul | Role::Gemm) {
                continue;
            }
            let node = self.graph.node(layer.node)?;
            let bias = layer.bias.is_some() && c.bias.is_some();
            // A factor on the result scales the node's bias as well, which must then be ours to change.
            let free = layer.role == Role::MatMul || bias || node.input(2).is_none();
            let factor = (free && c.rescaled(layer, &[]).is_some()).then(|| format!("tune.{at}.factor"));
            let step = bias.then(|| format!("tune.{at}.step"));
            if factor.is_some() || step.is_some() {
                knobs.push(Knob { at, rows: layer.view.rows, factor, step, unit: 1.0 });
            }
        }
        let result = |k: &Knob| -> Result<ValueId> {
            let y = self.graph.node(chosen[k.at].0.node)?.output(0);
            let y = y.ok_or_else(|| Error::internal("a layer without a result"))?;
            Ok(moved.get(&y).copied().unwrap_or(y))
        };
        let taps = knobs.iter().map(result).collect::<Result<Vec<_>>>()?;
        let seen = self.evaluate.run(&g, feeds, &taps);
        self.evaluate.forget();
        for (k, y) in knobs.iter_mut().zip(seen?.taps) {
            let y = y.tensor()?.to_f32s()?;
            let power: f64 = y.iter().map(|&v| f64::from(v).powi(2)).sum();
            k.unit = (power / y.len().max(1) as f64).sqrt().max(1e-12);
        }
        for (k, &y) in knobs.iter().zip(&taps) {
            let spatial = match chosen[k.at].0.role {
                Role::Conv => chosen[k.at].0.view.shape.len().saturating_sub(2),
                _ => 0,
            };
            let shape: Vec<i64> =
                std::iter::once(k.rows as i64).chain(std::iter::repeat_n(1, spatial)).collect();
            let (mut last, mut first) = (y, None);
            for (name, op) in [(&k.factor, "Mul"), (&k.step, "Add")] {
                let Some(name) = name else { continue };
                let v = g.add_input(name, ValueType::known(DType::F32, &[k.rows]));
                let s = g.add_initializer("tune.shape", Tensor::vector::<i64>(shape.clone()));
                let v = g.apply("tune.reshape", ops::standard("Reshape")?, Attrs::new(), &[v, s]);
                last = g.apply("tune", ops::standard(op)?, Attrs::new(), &[last, v]);
                first = first.or(g.producer(last));
            }
            g.replace_uses(y, last);
            if let Some(first) = first {
                g.set_input(first, 0, Some(y));
            }
        }
        Ok((g, knobs))
    }
}

/// The graph whose outputs are the squared error relative to the outputs' power and its gradient for each vector.
fn with_gradients(
    graph: &Graph,
    feeds: &Feeds,
    targets: &[Vec<Value>],
    vectors: &[Vector],
    room: u64,
) -> Option<Graph> {
    let mut feeds = feeds.clone();
    for v in vectors {
        feeds.insert(v.name.clone(), Value::Tensor(v.tensor(&v.x)));
    }
    let mut g = concrete(graph, &feeds)?;
    // The way back reads most of the results.
    if activations(&g) > room {
        return None;
    }
    let outputs: Vec<ValueId> = g.outputs().iter().map(|o| o.value).collect();
    let apply = |g: &mut Graph, op: &str, inputs: &[ValueId]| {
        Some(g.apply("tune", ops::standard(op).ok()?, Attrs::new(), inputs))
    };
    let mut loss = None;
    for (i, &y) in outputs.iter().enumerate() {
        let power = power(targets, i).filter(|&p| p > 0.0);
        let (Some(power), Some(DType::F32)) = (power, g.dtype(y)) else { continue };
        let target = g.add_input(&target_name(i), g.ty(y).clone());
        let d = apply(&mut g, "Sub", &[y, target])?;
        let square = apply(&mut g, "Mul", &[d, d])?;
        let sum =
            g.apply("tune", ops::standard("ReduceSum").ok()?, Attrs::new().with("keepdims", 0i64), &[square]);
        let scale = g.add_initializer("tune.scale", Tensor::scalar((1.0 / power) as f32));
        let part = apply(&mut g, "Mul", &[sum, scale])?;
        loss = Some(match loss {
            None => part,
            Some(l) => apply(&mut g, "Add", &[l, part])?,
        });
    }
    let loss = loss?;
    ir::infer(&mut g).ok()?;
    let wanted = vectors.iter().map(|v| g.find(&v.name)).collect::<Option<Vec<_>>>()?;
    let found = gradient::of_scalar(&g, loss, &wanted).ok()?;
    let mut g = found.graph;
    let grads = found.of.into_iter().collect::<Option<Vec<_>>>()?;
    let named = |(i, v): (usize, ValueId)| Output { name: format!("tune:{i}"), value: v };
    g.set_outputs(std::iter::once(loss).chain(grads).enumerate().map(named).collect());
    g.prune();
    let mut g = g.compacted().ok()?;
    ir::infer(&mut g).ok()?;
    Some(g)
}

fn target_name(output: usize) -> String {
    format!("tune.target.{output}")
}

/// Mean power of one output over the samples.
fn power(targets: &[Vec<Value>], output: usize) -> Option<f64> {
    let mut sum = 0.0;
    for t in targets {
        let Some(Value::Tensor(t)) = t.get(output) else { return None };
        sum += t.to_f32s().ok()?.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>();
    }
    Some(sum / targets.len().max(1) as f64)
}

impl Course<'_> {
    /// Descends; the parameters of least error on the samples that were not fitted, when that is less than at the start.
    fn run(&mut self, error: f64) -> Result<Option<Vec<Vec<f64>>>> {
        let (kept, fitted): (Vec<usize>, Vec<usize>) =
            ((0..self.judges).collect(), (self.judges..self.which.len()).collect());
        if fitted.is_empty() {
            return Ok(None);
        }
        let epochs = (RUNS / self.which.len().max(1)).clamp(1, EPOCHS);
        self.bench.progress.stage("tune", epochs);
        let rate = RATE * error.clamp(1e-8, 1.0).sqrt();
        let steps = epochs * fitted.len().div_ceil(BATCH);
        let start = self.error(&kept)?;
        let (mut best, mut step) = ((start, None), 0usize);
        for epoch in 0..epochs {
            if self.bench.late() {
                return Ok(None);
            }
            // Samples far apart go together.
            let batches = fitted.len().div_ceil(BATCH).max(1);
            for b in 0..batches {
                check(self.bench.progress)?;
                let batch: Vec<usize> = fitted.iter().copied().skip(b).step_by(batches).collect();
                let gradient = self.gradient(&batch)?;
                let left = 1.0 - step as f64 / steps as f64;
                step += 1;
                for (v, g) in self.vectors.iter_mut().zip(&gradient) {
                    v.advance(g, step as i32, rate * left);
                }
            }
            let now = self.error(&kept)?;
            if now < best.0 {
                best = (now, Some(self.vectors.iter().map(|v| v.x.clone()).collect()));
            }
            self.bench.progress.step();
            if best.1.is_none() && epoch + 1 >= PATIENCE {
                break;
            }
        }
        Ok(best.1)
    }

    fn sample(&self, i: usize) -> Result<Vec<Value>> {
        let mut feeds = self.bench.samples.feeds(self.which[i])?;
        for v in &self.vectors {
            feeds.insert(v.name.clone(), Value::Tensor(v.tensor(&v.x)));
        }
        for (o, t) in self.targets[i].iter().enumerate() {
            feeds.insert(target_name(o), t.clone());
        }
        // Targets that the error does not read are no inputs.
        feeds.retain(|n, _| self.graph.inputs().iter().any(|&v| self.graph.value_name(v) == n));
        Ok(self.bench.evaluate.run(&self.graph, &feeds, &[])?.outputs)
    }

    fn error(&self, which: &[usize]) -> Result<f64> {
        let all = each(which, self.bench.evaluate, |i| {
            let found = self.sample(i)?;
            found.first().map_or(Ok(0.0), |v| Ok::<f64, Error>(v.tensor()?.to_f64s()?[0]))
        })?;
        Ok(all.iter().sum::<f64>() / which.len().max(1) as f64)
    }

    fn gradient(&self, which: &[usize]) -> Result<Vec<Vec<f64>>> {
        let mut sums: Vec<Vec<f64>> = self.vectors.iter().map(|v| vec![0.0; v.x.len()]).collect();
        for found in each(which, self.bench.evaluate, |i| self.sample(i))? {
            for (sum, g) in sums.iter_mut().zip(found.iter().skip(1)) {
                let g = g.tensor()?.to_f64s()?;
                sum.iter_mut().zip(g).for_each(|(s, g)| *s += if g.is_finite() { g } else { 0.0 });
            }
        }
        Ok(sums)
    }
}

/// A candidate with its rows' scales times factors and its bias moved; `None` where nothing changes.
fn turned(
    graph: &Graph,
    layer: &Layer,
    old: &Candidate,
    factors: Option<&[f32]>,
    steps: Option<&[f32]>,
) -> Result<Option<Candidate>> {
    let mut new = old.clone();
    if let Some(f) = factors {
        let Some(c) = old.rescaled(layer, f) else { return Ok(None) };
        new = c;
    }
    if let (Some(bias), Some(site)) = (&mut new.bias, layer.bias) {
        let inner = match site {
            Bias::Constant(v) if layer.role != Role::MatMul => {
                graph.constant(v).map(Tensor::to_f32s).transpose()?.unwrap_or_default()
            }
            _ => Vec::new(),
        };
        let scaled = layer.role != Role::MatMul && old.replaces == Replaces::Weight;
        for (r, b) in bias.iter_mut().enumerate() {
            let own = inner.get(r).copied().unwrap_or(0.0);
            let factor = factors.and_then(|f| f.get(r)).copied().filter(|_| scaled).unwrap_or(1.0);
            let step = steps.and_then(|s| s.get(r)).copied().unwrap_or(0.0);
            *b = factor * (own + *b) + step - own;
        }
    }
    Ok(Some(new))
}
