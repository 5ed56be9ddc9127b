//! Repair of a selection: layer after layer, each for the inputs that the compressed layers before it give.
//!
//! Both models run side by side on calibration samples up to a layer; from the second moments of both inputs comes the
//! matrix that is nearest to the original's outputs (`lossy::drift`), which is stored in the form that was chosen, roundings,
//! scales, tables and bias anew. How far to follow few samples, and the damping of the compensated rounding, are chosen per
//! layer on the samples that select. Nothing is random, and a layer that gains nothing stays.

use crate::apply;
use crate::calibrate::spread;
use crate::effort::Effort;
use crate::goal::{Options, Progress, Repairs, Samples, check, late};
use crate::sensitivity::each;
use crate::shelf::Offer;
use ir::{Blame, Error, Evaluate, Graph, Output, Result, ValueId};
use lossy::drift::{Drift, Stream};
use lossy::layer::subgraph;
use lossy::{Basis, Bias, Candidate, Context, Hopes, Layer, Replaces, methods};
use ndarray::Array2;
use rayon::prelude::*;
use std::collections::BTreeMap;

/// Most calibration samples that are run for every layer, and most runs of both models for all layers.
pub const SAMPLES: usize = 128;
const RUNS: usize = 4096;
/// Damping of the part of earlier errors that is taken back, as shares of the mean diagonal.
const TARGETS: [f64; 3] = [0.02, 0.1, 0.5];
/// Damping of the compensated rounding.
const DAMPINGS: [f64; 3] = [0.05, 0.3, 1.0];

/// How often a layer whose codes got longer is stored with fewer bits, and how many fewer of each weight than it exceeds.
const NARROWER: usize = 3;
const LESS: f64 = 2e-3;

/// Samples whose inputs of a layer wait for each other.
const TOGETHER: usize = 4;

/// Share of the time after which nothing is repaired: a part of it would depend on the clock.
const LATE: f64 = 0.85;

/// What a repair works with.
pub struct Bench<'a> {
    pub graph: &'a Graph,
    pub samples: &'a dyn Samples,
    pub calibration: &'a [usize],
    /// Samples that decide between fits to the others.
    pub selection: &'a [usize],
    pub effort: Effort,
    pub options: &'a Options,
    pub evaluate: &'a dyn Evaluate,
    pub progress: &'a dyn Progress,
}

/// The model so far.
struct Live {
    graph: Graph,
    /// Values of the original that a fragment makes anew.
    moved: BTreeMap<ValueId, ValueId>,
}

impl Bench<'_> {
    /// Repaired offers for the chosen ones, `None` where one stays; nothing at all when there is no time. `both`: the samples
    /// that select are fitted too once they have decided, so that others must tell what it was worth.
    pub fn repair(&self, chosen: &[(&Layer, &Offer)], both: bool) -> Result<Option<Vec<Option<Offer>>>> {
        let mut live = Live { graph: self.graph.clone(), moved: BTreeMap::new() };
        let mut repaired: Vec<Option<Offer>> = chosen.iter().map(|_| None).collect();
        let waves = self.waves(chosen)?;
        let part = if both { 1 } else { 3 };
        let most = SAMPLES.min(RUNS * part / (part + 1) / waves.len().max(1)).max(3);
        let most = self.effort.samples(most, waves.len());
        let fitted = spread(self.calibration, most);
        let judging = spread(self.selection, (most / part).max(1));
        let which = [&fitted[..], &judging[..]];
        self.progress.stage("repair", waves.len());
        for wave in &waves {
            check(self.progress)?;
            if self.late() {
                return Ok(None);
            }
            let fits = self.seen(chosen[wave[0]].0, &live, which);
            self.evaluate.forget();
            let fits = fits?;
            for &i in wave {
                let (layer, offer) = chosen[i];
                let old = offer.get(self.options.shelf.as_ref())?;
                let new = match &fits {
                    Some(fits) => self.layer(layer, &old, fits, both)?,
                    None => None,
                };
                apply::put(&mut live.graph, layer, new.as_ref().unwrap_or(&old), &mut live.moved)?;
                repaired[i] = new.map(|c| Offer::put(c, self.options.shelf.as_ref()));
            }
            self.progress.step();
        }
        Ok(Some(repaired))
    }

    /// Whether there is no time to go on; what repeats an earlier run takes the time it took.
    pub fn late(&self) -> bool {
        self.options.repairs == Repairs::Paying && late(self.progress, LATE)
    }

    /// Layers in the order in which the model reads them; those that read the same inputs go together.
    fn waves(&self, chosen: &[(&Layer, &Offer)]) -> Result<Vec<Vec<usize>>> {
        let place: BTreeMap<_, _> =
            self.graph.order()?.into_iter().enumerate().map(|(i, n)| (n, i)).collect();
        let turn = |l: &Layer| place.get(l.path.first().map_or(&l.node, |p| &p.0)).copied();
        let mut order: Vec<usize> = (0..chosen.len()).collect();
        order.sort_by_key(|&i| (turn(chosen[i].0), i));
        let mut waves: Vec<Vec<usize>> = Vec::new();
        for i in order {
            let l = chosen[i].0;
            let same = |w: &&mut Vec<usize>| {
                let o = chosen[w[0]].0;
                let views =
                    (o.view.cols, o.view.groups, o.view.run) == (l.view.cols, l.view.groups, l.view.run);
                !l.inputs.is_empty() && l.inputs == o.inputs && views
            };
            match waves.iter_mut().find(same) {
                Some(w) => w.push(i),
                None => waves.push(vec![i]),
            }
        }
        Ok(waves)
    }

    /// The inputs of a layer in both models, as two streams: samples to fit and samples to decide by.
    fn seen(&self, layer: &Layer, live: &Live, which: [&[usize]; 2]) -> Result<Option<[Stream; 2]>> {
        if layer.inputs.is_empty() {
            return Ok(None);
        }
        let both = self.side_by_side(layer, live)?;
        let mut streams = [Stream::new(&layer.view), Stream::new(&layer.view)];
        let parts = which.iter().enumerate().flat_map(|(part, w)| w.iter().map(move |&i| (part, i)));
        let parts: Vec<(usize, usize)> = parts.collect();
        let run = |few: &[(usize, usize)]| {
            let samples: Vec<usize> = few.iter().map(|p| p.1).collect();
            each(&samples, self.evaluate, |i| {
                check(self.progress)?;
                Ok(self.evaluate.run(&both, &self.samples.feeds(i)?, &[])?.outputs)
            })
        };
        let (mut at, mut together) = (0, TOGETHER);
        while at < parts.len() {
            let few = &parts[at..parts.len().min(at + together)];
            let all = match run(few) {
                // Wide inputs of several samples do not fit memory side by side.
                Err(e) if e.blame == Blame::Limit && together > 1 => {
                    together = 1;
                    continue;
                }
                Err(e) if e.blame == Blame::Limit => return Ok(None),
                found => found?,
            };
            for (k, (found, (part, _))) in all.iter().zip(few).enumerate() {
                let ((original, now), phase) = (found.split_at(layer.inputs.len()), at + k);
                for ((x, now), (_, extract)) in original.iter().zip(now).zip(&layer.inputs) {
                    let (x, now) = (x.tensor()?, now.tensor()?);
                    if streams[*part].push(x, now, extract, layer.view.cols, phase).is_err() {
                        return Ok(None);
                    }
                }
            }
            at += few.len();
        }
        Ok((streams[0].count() > 0).then_some(streams))
    }

    /// One graph whose outputs are the layer's inputs in the original, then in the model so far.
    fn side_by_side(&self, layer: &Layer, live: &Live) -> Result<Graph> {
        let cut = |g: &Graph, at: &dyn Fn(ValueId) -> ValueId, name: &str| {
            let mut g = g.clone();
            let output =
                |(i, &(v, _)): (usize, &(ValueId, _))| Output { name: format!("{name}:{i}"), value: at(v) };
            g.set_outputs(layer.inputs.iter().enumerate().map(output).collect());
            g.prune();
            g
        };
        let mut both = cut(self.graph, &|v| v, "original");
        let now = cut(&live.graph, &|v| live.moved.get(&v).copied().unwrap_or(v), "now");
        let inputs = both.inputs().to_vec();
        let found = now.inline_into(&mut both, &inputs, &[])?;
        now.outputs().iter().zip(found).for_each(|(o, v)| both.add_output(&o.name, v));
        let mut both = both.compacted()?;
        ir::infer(&mut both)?;
        Ok(both)
    }

    /// The best of the recipe that was chosen, `None` when nothing is better than what there is.
    fn layer(
        &self,
        layer: &Layer,
        old: &Candidate,
        [fit, check]: &[Stream; 2],
        both: bool,
    ) -> Result<Option<Candidate>> {
        let centered = matches!(
            (layer.bias, old.replaces),
            (Some(Bias::Constant(_)), _) | (Some(Bias::Absent(_)), Replaces::Weight)
        );
        let Some(method) = methods::find(old.method) else { return Ok(None) };
        // What others use too stays as it is.
        let bases: Vec<Basis> = Basis::of(old)?.into_iter().collect();
        if centered && old.bias.is_none() {
            return Ok(None);
        }
        let body =
            subgraph(self.graph, &layer.path).ok_or_else(|| Error::internal("a layer without its graph"))?;
        let w = layer.view.matrix(&layer.tensor)?;
        let judge = if check.count() > 0 { check } else { fit }.clone().finish(centered, false);
        let all = both.then(|| {
            let mut all = fit.clone();
            all.merge(check);
            all.finish(centered, true)
        });
        let fit = fit.clone().finish(centered, true);
        let last = all.as_ref().unwrap_or(&fit);
        let stored = |c: &Candidate| -> Result<Option<Array2<f32>>> {
            let weight = c.replaces == Replaces::Weight;
            weight.then(|| layer.view.matrix(&c.decode()?)).transpose()
        };
        let made_as = |recipe: &str, fit: &Drift, target: &Array2<f32>, damping: f64| {
            let stats = fit.stats.damped(damping);
            let cx = Context {
                graph: body,
                layer,
                matrix: target,
                stats: Some(&stats),
                measure: Some(&stats),
                compensate: self.options.compensate,
                hopes: Hopes::ALL,
                bases: &bases,
            };
            method.candidate(&cx, recipe)
        };
        let make =
            |fit: &Drift, target: &Array2<f32>, damping: f64| made_as(&old.recipe, fit, target, damping);
        let follow = {
            let of = |&t: &f64| (judge.loss(&w, &fit.target(&w, t)), Some(t));
            let losses: Vec<(f64, Option<f64>)> = TARGETS.par_iter().map(of).collect();
            let best = losses.into_iter().min_by(|a, b| a.0.total_cmp(&b.0));
            best.filter(|b| b.0 < judge.loss(&w, &w)).and_then(|b| b.1)
        };
        let target = follow.map_or_else(|| w.clone(), |t| fit.target(&w, t));
        let mut best: Option<(f64, f64, Candidate)> = None;
        // What replaces the node tells no weight to compare.
        let dampings = if old.replaces == Replaces::Weight { &DAMPINGS[..] } else { &DAMPINGS[..1] };
        let made = |&damping: &f64| -> Result<Option<(f64, f64, Candidate)>> {
            let Some(c) = make(&fit, &target, damping)? else { return Ok(None) };
            let loss = stored(&c)?.map_or(0.0, |v| judge.loss(&w, &v));
            Ok(Some((loss, damping, c)))
        };
        for found in dampings.par_iter().map(made).collect::<Result<Vec<_>>>()? {
            let Some((loss, damping, c)) = found else { return Ok(None) };
            if best.as_ref().is_none_or(|b| loss < b.0) {
                best = Some((loss, damping, c));
            }
        }
        if let (Some(v), Some(b)) = (stored(old)?, &best)
            && judge.loss(&w, &v) <= b.0
        {
            // The codes stay; the mean is taken back all the same.
            let bias = centered.then(|| last.shift(&w, &v));
            return Ok(bias.map(|b| Candidate { bias: Some(b), ..old.clone() }));
        }
        let Some((_, damping, mut new)) = best else { return Ok(None) };
        let target = match &all {
            None => target,
            Some(all) => {
                let target = follow.map_or_else(|| w.clone(), |t| all.target(&w, t));
                let Some(c) = make(all, &target, damping)? else { return Ok(None) };
                new = c;
                target
            }
        };
        new = self.options.counted(new)?;
        // Codes of other weights take other numbers of bits.
        let mut bits = 0.0;
        for _ in 0..NARROWER {
            if new.bytes <= old.bytes {
                break;
            }
            bits += 8.0 * (new.bytes - old.bytes) as f64 / w.len().max(1) as f64 + LESS;
            let Some(other) = method.narrower(&old.recipe, bits) else { break };
            let Some(c) = made_as(&other, last, &target, damping)? else { break };
            new = self.options.counted(c)?;
        }
        new.recipe.clone_from(&old.recipe);
        new.error = old.error;
        if let Some(b) = &mut new.bias {
            b.iter_mut().zip(last.shift(&w, &target)).for_each(|(b, more)| *b += more);
        }
        let finite = new.bias.iter().flatten().all(|b| b.is_finite());
        Ok((finite && new.bytes <= old.bytes).then_some(new))
    }
}
