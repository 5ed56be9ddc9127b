//! The original model on all samples, once: how much samples resemble each other, and outputs that are needed again.

use crate::calibrate::spread;
use crate::confidence::{self, Level};
use crate::effort::Effort;
use crate::goal::{Options, Progress, Samples, Split, check};
use crate::kin::{Kin, SKETCH, Sketch};
use crate::margins::Margins;
use crate::metric::{Metric, Reference, best};
use crate::sensitivity::each;
use ir::{Evaluate, Feeds, Graph, Result, Value};
use std::collections::BTreeMap;

/// Most samples that are looked at.
const LOOKED: usize = 2048;
/// Bytes of outputs kept for later.
const KEPT: usize = 24 << 20;
/// Samples whose outputs wait for each other.
const TOGETHER: usize = 8;
/// Samples with which every part has two.
const FEWEST: usize = 8;
/// Bytes of outputs that one comparison may hold.
const OUTPUTS: usize = if cfg!(test) { 1 << 20 } else { 96 << 20 };

/// The original's outputs on the samples.
pub struct Originals<'a> {
    pub graph: &'a Graph,
    pub samples: &'a dyn Samples,
    evaluate: &'a dyn Evaluate,
    progress: &'a dyn Progress,
    kept: Vec<Option<Vec<Value>>>,
    pub kin: Kin,
    pub effort: Effort,
}

impl<'a> Originals<'a> {
    /// Runs the original on the samples, at most 2048 of them.
    pub fn look(
        graph: &'a Graph,
        samples: &'a dyn Samples,
        evaluate: &'a dyn Evaluate,
        progress: &'a dyn Progress,
    ) -> Result<Originals<'a>> {
        let n = samples.len();
        let (kin, effort) = (Kin::alone(n), Effort::of(graph, samples)?);
        let mut o = Originals { graph, samples, evaluate, progress, kept: vec![None; n], kin, effort };
        let which = spread(&(0..n).collect::<Vec<_>>(), LOOKED);
        let (mut sketches, mut bytes) = (Vec::new(), 0);
        progress.stage("original outputs", which.len());
        for part in which.chunks(TOGETHER) {
            let found = each(part, evaluate, |i| {
                check(progress)?;
                let feeds = samples.feeds(i)?;
                let outputs = evaluate.run(graph, &feeds, &[])?.outputs;
                progress.step();
                let sketch = Sketch { inputs: inputs(&feeds), outputs: numbers(outputs.iter()) };
                let size = stored(&outputs);
                Ok((sketch, size, (size <= KEPT / TOGETHER).then_some(outputs)))
            })?;
            for (&i, (sketch, size, outputs)) in part.iter().zip(found) {
                sketches.push(sketch);
                bytes += size;
                o.kept[i] = outputs.filter(|_| bytes <= KEPT);
            }
        }
        let sources: Vec<usize> = which.iter().map(|&i| samples.source(i)).collect();
        let kin = Kin::of(&sources, &sketches);
        for (at, &i) in which.iter().enumerate() {
            o.kin.copies[i] = which[kin.copies[at]];
            o.kin.groups[i] = which[kin.groups[at]];
        }
        // Those that were not looked at go with what they were made from.
        let first: BTreeMap<usize, usize> = which.iter().rev().map(|&i| (samples.source(i), i)).collect();
        for i in (0..n).filter(|i| which.binary_search(i).is_err()) {
            if let Some(&j) = first.get(&samples.source(i)) {
                (o.kin.copies[i], o.kin.groups[i]) = (o.kin.copies[j], o.kin.groups[j]);
            }
        }
        Ok(o)
    }

    /// Samples by purpose, kin together.
    pub fn split(&self) -> Split {
        Split::grouped(&self.kin.groups)
    }

    fn outputs(&self, i: usize) -> Result<Vec<Value>> {
        check(self.progress)?;
        match self.kept.get(i) {
            Some(Some(o)) => Ok(o.clone()),
            _ => Ok(self.evaluate.run(self.graph, &self.samples.feeds(i)?, &[])?.outputs),
        }
    }

    /// What to know of samples that resemble each other.
    pub fn resemblance(&self) -> Option<String> {
        let (all, distinct, apart) = (self.samples.len(), self.kin.distinct(), self.kin.apart());
        let sources = (0..all).filter(|&i| self.samples.source(i) == i).count();
        let copies = (distinct < sources)
            .then(|| format!("{sources} samples hold {distinct} different ones, which count"));
        let kin = self.kin.clusters().then(|| {
            format!(
                "{distinct} samples fall into {apart} groups that resemble each other (as crops of one picture do), which were \
                 kept together in every split; what is promised holds for data like these"
            )
        });
        copies.into_iter().chain(kin).reduce(|a, b| format!("{a}; {b}"))
    }

    /// Why no selection can be proven to stay within the goal, and how many samples it takes; `None` when one can.
    pub fn unsupported(&self, options: &Options, metric: Option<Metric>) -> Result<Option<String>> {
        let Some(drop) = options.goal.drop() else { return Ok(None) };
        if options.judge.is_some() || !(drop > 0.0 && drop < 1.0) {
            return Ok(None);
        }
        let mut split = self.split();
        let (all, selecting) = (split.held_back.len(), split.selection.len());
        let reference = self.reference(&mut split.selection, metric)?;
        // Samples whose outputs cannot be held prove nothing.
        if split.selection.len() < selecting {
            self.reference(&mut split.held_back, metric)?;
        }
        let held = self.kin.only(&split.held_back);
        if split.held_back.len() < all && held.distinct() < 2 {
            return Ok(Some(format!(
                "the data cannot support the promise: the outputs of a sample are so large that only {} of {all} held-back ones \
                 can be compared; a model with fewer outputs would be judged on all",
                split.held_back.len()
            )));
        }
        let n = self.kin.distinct();
        // (the least drop that can be promised, how many times as many samples it takes)
        let (least, times) = match self.margins(&reference)? {
            Some(m) => {
                let least = 2.0 * m.finest(Level::look(1));
                (least, least / drop)
            }
            None if reference.metric.counts() => {
                let level = Level::look(1);
                let wanted = confidence::needed(drop, level) / held.distinct().max(1) as f64;
                (confidence::unseen(held.distinct(), level), wanted)
            }
            None => (if held.distinct() < 2 { f64::INFINITY } else { 0.0 }, FEWEST as f64 / n.max(1) as f64),
        };
        let apart = split.held_apart() && held.distinct() < n;
        if least <= drop && apart {
            return Ok(None);
        }
        let needed = (n as f64 * times).ceil().max(FEWEST as f64);
        let shown = if least < 1.0 && apart {
            format!("no drop below {:.2} pt", least * 100.0)
        } else {
            "no drop".into()
        };
        let copies = if n < self.samples.len() {
            format!(" (of {}, the rest copies)", self.samples.len())
        } else {
            String::new()
        };
        Ok(Some(format!(
            "the data cannot support the promise: {n} samples{copies} prove {shown} at 95 % confidence; about {needed:.0} \
             would be needed for {:.2} pt, {:.0} more",
            drop * 100.0,
            needed - n as f64
        )))
    }

    /// The outputs on these samples, ready for comparisons; takes fewer samples when outputs are large.
    pub fn reference(&self, which: &mut Vec<usize>, metric: Option<Metric>) -> Result<Reference> {
        self.reference_of(self.graph, which, metric)
    }

    /// As [`Originals::reference`] for a graph that takes the same inputs.
    pub fn reference_of(
        &self,
        graph: &Graph,
        which: &mut Vec<usize>,
        metric: Option<Metric>,
    ) -> Result<Reference> {
        let (mut outputs, mut labels, mut bytes) = (Vec::new(), Vec::new(), 0);
        for &i in which.iter() {
            let found = if std::ptr::eq(graph, self.graph) {
                self.outputs(i)?
            } else {
                check(self.progress)?;
                self.evaluate.run(graph, &self.samples.feeds(i)?, &[])?.outputs
            };
            bytes += stored(&found);
            outputs.push(found);
            labels.push(self.samples.label(i));
            if bytes > OUTPUTS {
                break;
            }
        }
        which.truncate(outputs.len());
        let names: Vec<String> = self.graph.outputs().iter().map(|o| o.name.clone()).collect();
        let kin = self.kin.only(which);
        Ok(Reference::new(outputs, &names, labels, metric).among(kin))
    }

    /// Margins on all samples, for metrics that have them.
    pub fn margins(&self, reference: &Reference) -> Result<Option<Margins>> {
        if !reference.metric.has_margins() {
            return Ok(None);
        }
        let which = spread(&(0..self.samples.len()).collect::<Vec<_>>(), LOOKED);
        let mut margins = Margins::default();
        for &i in &which {
            reference.add_margins(&mut margins, &self.outputs(i)?, self.samples.label(i));
        }
        Ok(Some(margins.among(self.kin.only(&which))))
    }
}

/// What to know where the original finds the same class in all samples, of whose others they say nothing.
pub fn of_one_class(original: &Reference) -> Option<String> {
    let (classes, samples) = (original.classes, &original.samples);
    let answers: Vec<usize> = samples.iter().flat_map(|s| s.chunks_exact(classes)).map(best).collect();
    let first = *answers.first()?;
    let one = original.metric.has_margins() && classes > 1 && answers.len() > 1;
    (one && answers.iter().all(|&a| a == first)).then(|| {
        format!(
            "the original finds class {first} in all samples looked at: what is promised says nothing of the other {}",
            classes - 1
        )
    })
}

fn stored(outputs: &[Value]) -> usize {
    outputs.iter().filter_map(|v| v.tensor().ok()).map(|t| t.stored_bytes()).sum()
}

/// Numbers of all inputs, at most so many, evenly spread.
fn inputs(feeds: &Feeds) -> Vec<f32> {
    numbers(feeds.values())
}

/// At most [`SKETCH`] numbers, evenly spread; of probabilities the logarithms.
fn numbers<'v>(values: impl Iterator<Item = &'v Value>) -> Vec<f32> {
    let mut all = Vec::new();
    for v in values {
        let Some(x) = v.tensor().ok().and_then(|t| t.to_f64s().ok()) else { continue };
        let unit = x.len() > 1 && x.iter().all(|p| (0.0..=1.0).contains(p));
        let probabilities = unit && (x.iter().sum::<f64>() - 1.0).abs() < 1e-2;
        let one = |p: f64| if probabilities { p.max(1e-6).ln() } else { p };
        all.extend(x.into_iter().map(|p| one(if p.is_finite() { p } else { 0.0 }) as f32));
    }
    let step = all.len().div_ceil(SKETCH).max(1);
    all.into_iter().step_by(step).collect()
}
