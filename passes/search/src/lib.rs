//! Chooses a method for every layer under one quality budget.
//!
//! The one-page search: layers → statistics → candidates → gains → knapsack → bisection on the true metric → a check
//! on samples none of these saw. The decision is the report.
#![deny(unsafe_code)]

mod allocate;
mod apply;
#[cfg(test)]
mod behaviour;
#[cfg(test)]
mod behaviour_in_time;
mod beside;
mod bisect;
mod blind;
mod calibrate;
mod clock;
mod compare;
mod confidence;
mod cut;
mod decision;
mod distortion;
mod effort;
mod front;
mod goal;
mod histogram;
mod hold;
mod kin;
mod kindred;
pub mod knapsack;
mod latency;
mod margins;
mod metric;
mod originals;
mod pairs;
mod parts;
mod piece;
mod polish;
mod regain;
mod repair;
mod rivals;
mod sensitivity;
mod shares;
mod shelf;
mod slim;
mod sparsity;
mod speed;
mod table;
mod tune;
mod turns;
mod within_drop;
mod worth;

pub use allocate::Allocation;
pub use clock::{Clock, Latency, Piece, Spread};
pub use compare::{Comparison, Pair, Quality, compare};
pub use decision::{Channels, Decision, LayerDecision, Repair, RunnerUp, Status, Trial};
pub use front::{Point, front};
pub use goal::{
    Goal, Judge, Options, Override, Progress, Repairs, Samples, Silent, Split, Time, names, select,
};
pub use histogram::Histogram;
pub use metric::{Measured, Metric, NAMED};
pub use shelf::{Memory, Shelf};

use bisect::Bisection;
use confidence::{Level, Looks, WHOLE};
use goal::late;
use ir::{Error, Evaluate, Graph, Result};
use knapsack::{Item, Solution};
use lossy::Layer;
use margins::Margins;
use metric::Reference;
use originals::Originals;
use pairs::Pairs;
use shares::Shares;
use shelf::Offer;
use std::collections::BTreeMap;
use std::sync::Arc;
use table::{Pass, Row};

/// Samples whose outputs give the gains.
const PROBES: usize = 8;
/// Share of the allowed drop that the selection samples may use where they give no bound; the rest is for what they
/// cannot see.
const MARGIN: f64 = 0.85;
/// Shares of the time after which a selection that passed is enough, and after which none is looked for any more.
const SEARCHED: f64 = 0.8;
const OVER: f64 = 0.95;
/// Points of the predicted front.
const FRONT: usize = 24;
/// Share of the time after which gains are not measured again.
const AGAIN: f64 = 0.5;
/// Stack of each thread: nested graphs recurse.
const STACK: usize = 64 << 20;

/// Tells the bytes of a graph as a file.
pub type Size<'a> = &'a (dyn Fn(&Graph) -> Result<u64> + Sync);

/// What the search gives back.
pub struct Outcome {
    /// The compressed model; the input graph when nothing was gained.
    pub graph: Graph,
    pub decision: Decision,
}

/// Compresses `graph` within `options.goal`. `size` tells the bytes of a graph as a file.
pub fn compress(
    graph: &Graph,
    samples: Option<&dyn Samples>,
    options: &Options,
    evaluate: &dyn Evaluate,
    size: Size,
    progress: &dyn Progress,
) -> Result<Outcome> {
    on_threads(options.threads, || search(graph, samples, options, evaluate, size, progress))
}

/// Most workers for each core: more only take turns, and their stacks take memory.
const FOR_EACH_CORE: usize = 4;

/// Runs `work` on workers of its own.
fn on_threads<T: Send>(threads: usize, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let threads = threads.clamp(1, FOR_EACH_CORE * cores);
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .stack_size(STACK)
        .build()
        .map_err(|e| Error::limit(format!("cannot start {threads} threads: {e}")))?
        .install(work)
}

fn search(
    graph: &Graph,
    samples: Option<&dyn Samples>,
    options: &Options,
    evaluate: &dyn Evaluate,
    size: Size,
    progress: &dyn Progress,
) -> Result<Outcome> {
    let samples = samples.filter(|s| !s.is_empty());
    let apart = samples.map(|s| calibrate::apart(graph, s, evaluate)).transpose()?.flatten();
    let evaluate = apart.as_deref().unwrap_or(evaluate);
    let originals = samples.map(|s| Originals::look(graph, s, evaluate, progress)).transpose()?;
    let calibration = originals.as_ref().map_or_else(Vec::new, |o| o.split().calibration);
    let memory = options.memory;
    let bench = cut::Bench { samples, calibration: &calibration, evaluate, memory, progress, known: None };
    let (cut, mut notes) = slim::forced(graph, &options.overrides, bench)?;
    let start = cut.as_ref().unwrap_or(graph);
    let mut outcome = match &originals {
        Some(o) => {
            let metric = options.judge.as_ref().map(|_| Metric::Judged).or(options.metric);
            let why = o.unsupported(options, metric)?;
            if let Some(why) = why.clone().filter(|_| !options.unproven) {
                return Ok(refused(graph, why));
            }
            notes.extend(why);
            slim::run(Search::prepare(o, start, options, evaluate, progress, Some(size))?, size)?
        }
        None => blind::blind(graph, start, options, size, progress)?,
    };
    outcome.decision.notes.append(&mut notes);
    Ok(outcome)
}

struct Search<'a> {
    /// What the user gave: its outputs and bytes are what is compared with.
    originals: &'a Originals<'a>,
    /// The same graph, maybe with fewer channels.
    graph: &'a Graph,
    samples: &'a dyn Samples,
    options: &'a Options,
    evaluate: &'a dyn Evaluate,
    progress: &'a dyn Progress,
    split: Split,
    rows: Vec<Row>,
    items: Vec<Vec<Item>>,
    /// As they were before gains were measured where the search arrived.
    earlier: Vec<Vec<Item>>,
    shares: Shares,
    /// What errors do together, once that was measured.
    pairs: Option<Arc<Pairs>>,
    selection: Arc<Reference>,
    margins: Option<Arc<Margins>>,
    /// Output distortion of the graph as it is, from channels that are gone.
    fixed: f64,
    trials: Vec<Trial>,
    seen: BTreeMap<Vec<usize>, Measured>,
    /// The selection that ended the last run.
    last: Option<Solution>,
    /// Those taken of the held-back samples.
    looks: Looks,
    /// The first distortion budget tried.
    start: f64,
    /// What the samples that select have said of all budgets, where they were asked before.
    settled: Option<Bisection>,
    /// What the judge says of the original, when there is one.
    base: f64,
    /// Times of layers, when speed is the goal.
    costs: Option<latency::Costs>,
}

/// What the judge says of `graph`: relative to the original's `base`, which it trusts as it is.
fn judged(judge: &goal::Judge, base: f64, graph: &Graph) -> Result<Measured> {
    let value = judge(graph)?;
    let drop = (base - value) / base.abs().max(f64::MIN_POSITIVE);
    let drop = if drop.is_finite() { drop } else { 1.0 };
    let (lost, gained) = (drop.max(0.0), (-drop).max(0.0));
    Ok(Measured {
        value,
        base,
        drop,
        bound: drop,
        finest: 0.0,
        lost,
        gained,
        samples: 1,
        distortion: 0.0,
        decided_by: None,
    })
}

impl<'a> Search<'a> {
    fn prepare(
        originals: &'a Originals<'a>,
        graph: &'a Graph,
        options: &'a Options,
        evaluate: &'a dyn Evaluate,
        progress: &'a dyn Progress,
        size: Option<Size>,
    ) -> Result<Self> {
        let (samples, mut split) = (originals.samples, originals.split());
        let layers = lossy::layers(graph);
        let stats = calibrate::calibrate(
            graph,
            &layers,
            samples,
            [&split.calibration, &split.selection],
            evaluate,
            options.memory,
            progress,
        )?;
        // A front wants all.
        let (first, rest) = match size {
            Some(_) => worth::passes(options),
            None => (options.methods.clone(), Vec::new()),
        };
        let later = if rest.is_empty() { Vec::new() } else { stats.clone() };
        let mut rows = table::build(graph, layers, stats, Pass::all(&first), options, progress)?;
        let metric = options.judge.as_ref().map(|_| Metric::Judged).or(options.metric);
        let selection = Arc::new(originals.reference(&mut split.selection, metric)?);
        let margins = originals.margins(&selection)?.map(Arc::new);
        let mut probes = split.probes(originals.effort.samples(PROBES, rows.len()));
        let probe = originals.reference_of(graph, &mut probes, None)?;
        let (shelf, r) = (options.shelf.as_ref(), &mut rows);
        sensitivity::measure_gains(graph, r, None, shelf, &probe, samples, &probes, evaluate, progress)?;
        let items = rows.iter().map(Row::items).collect();
        let base = options.judge.as_ref().map_or(Ok(0.0), |j| j(originals.graph))?;
        let mut search = Search {
            originals,
            graph,
            samples,
            options,
            evaluate,
            progress,
            split,
            shares: Shares::of(&rows),
            rows,
            items,
            earlier: Vec::new(),
            pairs: None,
            selection,
            margins,
            fixed: 0.0,
            trials: Vec::new(),
            seen: BTreeMap::new(),
            last: None,
            looks: Looks::default(),
            start: 1e-2,
            settled: None,
            base,
            costs: None,
        };
        search.fix()?;
        if let Some(size) = size.filter(|_| !rest.is_empty()) {
            search.widen(&rest, later, size)?;
        }
        Ok(search)
    }

    /// Measures what the graph differs from the original before any layer is compressed.
    fn fix(&mut self) -> Result<()> {
        if !std::ptr::eq(self.graph, self.originals.graph) && self.options.judge.is_none() {
            let m = self.measure_chosen(&[], &self.selection, &self.split.selection, Level::look(1))?;
            self.fixed = m.distortion;
        }
        Ok(())
    }

    fn run(&mut self, size: Size) -> Result<Outcome> {
        match self.options.goal {
            Goal::MaxDrop(drop) => self.within_drop(drop, size),
            Goal::TargetBytes(bytes) => self.within_bytes(bytes, size),
            Goal::TargetSparsity(share) => self.within_sparsity(share, size),
            Goal::Fastest(drop) => {
                self.time()?;
                self.within_drop(drop, size)
            }
            Goal::TargetLatency(time) => {
                self.time()?;
                self.within_time(time, size)
            }
        }
    }

    /// The least of what is minimised within an error budget.
    fn least(&self, budget: f64) -> Option<Solution> {
        match &self.costs {
            Some(c) => c.least(&self.items, budget),
            None => self.least_bytes(budget),
        }
    }

    /// Least error within the file size, checked on held-back samples for the report.
    fn within_bytes(&mut self, bytes: u64, size: Size) -> Result<Outcome> {
        self.progress.stage("search", 3);
        let fixed = size(self.graph)?.saturating_sub(self.rows.iter().map(|r| r.bytes).sum());
        let mut room = bytes.saturating_sub(fixed);
        let mut held = self.split.held_back.clone();
        let reference = self.reference(&mut held)?;
        self.split.held_back = held;
        let Some(mut s) = self.fitting(bytes, &mut room, size)? else { return self.unreachable() };
        let again = self.options.again && self.options.judge.is_none();
        if again && !late(self.progress, AGAIN) {
            self.regain(&s)?;
            let new = self.fitting(bytes, &mut room, size)?;
            let bound = new.as_ref().map_or(0.0, |n| n.bound);
            let old = Solution { bound, ..self.solution(s.choice) };
            let known = self.measure(&old)?.distortion;
            s = match new {
                Some(new) if self.measure(&new)?.distortion <= known => new,
                _ => old,
            };
        }
        let m = self.measure_on(&s, &reference, &self.split.held_back, WHOLE)?;
        let gap = s.gap(s.error);
        self.conclude(s, Some(m), gap, true, size)
    }

    /// The selection of least error whose file fits; `room` is what layers may take of it.
    fn fitting(&mut self, bytes: u64, room: &mut u64, size: Size) -> Result<Option<Solution>> {
        for _ in 0..4 {
            let Some(s) = self.least_error(*room) else { return Ok(None) };
            let g = apply::compressed(self.graph, &self.chosen(&s), self.options.shelf.as_ref())?;
            let found = size(&g)?;
            self.progress.step();
            if found <= bytes {
                return Ok(Some(s));
            }
            *room = room.saturating_sub(found - bytes);
        }
        Ok(None)
    }

    /// The original's outputs on other samples than those that select.
    fn reference(&self, which: &mut Vec<usize>) -> Result<Reference> {
        let metric = Some(self.selection.metric);
        self.originals.reference(which, metric)
    }

    fn chosen<'s>(&'s self, s: &Solution) -> Vec<(&'s Layer, &'s Offer)> {
        chosen(&self.rows, s)
    }

    /// The metric of a selection on the selection samples, measured once per selection.
    fn measure(&mut self, s: &Solution) -> Result<Measured> {
        if let Some(m) = self.seen.get(&s.choice) {
            return Ok(*m);
        }
        let m = self.measure_on(s, &self.selection, &self.split.selection, Level::look(1))?;
        self.seen.insert(s.choice.clone(), m);
        Ok(m)
    }

    fn measure_on(
        &self,
        s: &Solution,
        reference: &Reference,
        which: &[usize],
        level: Level,
    ) -> Result<Measured> {
        self.measure_chosen(&self.chosen(s), reference, which, level)
    }

    fn measure_chosen(
        &self,
        chosen: &[(&Layer, &Offer)],
        reference: &Reference,
        which: &[usize],
        level: Level,
    ) -> Result<Measured> {
        let shelf = self.options.shelf.as_ref();
        if let Some(judge) = &self.options.judge {
            return judged(judge.as_ref(), self.base, &apply::compressed(self.graph, chosen, shelf)?);
        }
        let g = apply::dense(self.graph, chosen, shelf)?;
        let outputs = sensitivity::outputs(&g, self.samples, which, self.evaluate, self.progress);
        self.evaluate.forget();
        Ok(reference.measure(&outputs?, self.margins.as_deref(), level))
    }

    fn conclude(
        &mut self,
        s: Solution,
        held_back: Option<Measured>,
        gap: f64,
        met: bool,
        size: Size,
    ) -> Result<Outcome> {
        let graph = apply::compressed(self.graph, &self.chosen(&s), self.options.shelf.as_ref())?;
        let latency = match self.options.goal {
            Goal::Fastest(_) if met => self.race(&graph, &s)?,
            _ => None,
        };
        let status = if !met {
            Status::NotReached
        } else if size(&graph)? >= size(self.originals.graph)? {
            Status::NothingGained
        } else if latency.is_some_and(|l| !l.gains()) {
            Status::NotFaster
        } else {
            Status::Met
        };
        let selection = Some(self.measure(&s)?);
        self.last = Some(s.clone());
        let mut decision = Decision {
            metric: Some(self.selection.metric),
            selection,
            held_back,
            samples: self.samples_used(),
            gap,
            latency,
            trials: std::mem::take(&mut self.trials),
            notes: self.doubts(held_back),
            front: self.predicted_front(),
            ..self.summary(&s, status)
        };
        let all = histogram::histograms(&self.rows, &s, self.options.shelf.as_ref())?;
        decision.layers.iter_mut().zip(all).for_each(|(l, h)| l.weights = h);
        Ok(Outcome { graph, decision })
    }

    /// Samples that calibrate, select and are held back.
    fn samples_used(&self) -> [usize; 3] {
        [&self.split.calibration, &self.split.selection, &self.split.held_back].map(|s| s.len())
    }

    /// Bytes of the layers and the error predicted for them, at budgets around those tried.
    fn predicted_front(&self) -> Vec<(u64, f64)> {
        let ceiling: f64 = self.items.iter().map(|r| largest(r)).sum::<f64>().clamp(1e-5, 1.0);
        let budgets = (0..FRONT).map(|i| 1e-6 * (ceiling / 1e-6).powf(i as f64 / (FRONT - 1) as f64));
        let mut points: Vec<(u64, f64)> = budgets
            .filter_map(|b| knapsack::greedy_weight(&self.items, b))
            .map(|s| (self.shares.weight(&self.items, &s.choice), s.error))
            .collect();
        points.dedup_by_key(|p| p.0);
        points
    }

    /// What the held-back samples cannot say.
    fn doubts(&self, held_back: Option<Measured>) -> Vec<String> {
        let about = [self.originals.resemblance(), originals::of_one_class(&self.selection)];
        let mut notes: Vec<String> = about.into_iter().flatten().collect();
        let (Some(drop), Some(m)) = (self.options.goal.drop(), held_back) else { return notes };
        let name = |i: usize| self.graph.outputs().get(i).map_or("", |o| &o.name);
        if let Some(output) = m.decided_by {
            notes.push(format!(
                "the drop is that of output '{}', which loses {:.2} % of its variance; with --metric only the metric counts",
                name(output),
                m.drop * 100.0
            ));
        }
        if m.bound > drop && m.drop < drop && !self.selection.metric.counts() {
            // Spreads shrink with the root of the number of samples.
            let times = ((m.bound - m.drop) / (drop - m.drop)).powi(2);
            let more = (times - 1.0) * self.originals.kin.distinct() as f64;
            notes.push(format!(
                "a drop of {:.2} pt is expected and at most {:.2} pt proven; about {:.0} more samples would prove \
                 {:.2} pt of this selection",
                m.drop * 100.0,
                m.bound * 100.0,
                more.max(1.0).ceil(),
                drop * 100.0
            ));
        }
        if !self.selection.metric.counts() || m.countable(WHOLE) <= drop {
            return notes;
        }
        let needed = confidence::needed(drop, WHOLE);
        let total = needed * self.originals.kin.distinct() as f64 / m.samples.max(1) as f64;
        notes.push(format!(
            "drop ≤ {:.2} pt is expected from margins; counting on {} held-back samples alone supports only {:.1} pt at 95 % \
             confidence, about {total:.0} samples would be needed for {:.2} pt",
            m.bound * 100.0,
            m.samples,
            m.countable(WHOLE) * 100.0,
            drop * 100.0
        ));
        notes
    }

    /// No selection fits: the decision shows the smallest one.
    fn unreachable(&mut self) -> Result<Outcome> {
        let lightest = self.costs.as_ref().and_then(|c| c.least(&self.items, f64::MAX));
        let choice = lightest.map_or_else(|| self.items.iter().map(|r| smallest(r)).collect(), |s| s.choice);
        let s = Solution { choice, weight: 0, error: 0.0, bound: 0.0 };
        let m = self.measure(&s)?;
        let decision = Decision {
            metric: Some(self.selection.metric),
            selection: Some(m),
            trials: std::mem::take(&mut self.trials),
            ..self.summary(&s, Status::NotReached)
        };
        Ok(Outcome { graph: self.originals.graph.clone(), decision })
    }
}

/// No search: the data cannot support what is asked for.
fn refused(graph: &Graph, why: String) -> Outcome {
    let s = Solution { choice: Vec::new(), weight: 0, error: 0.0, bound: 0.0 };
    let decision = Decision { notes: vec![why], ..summary(graph, &[], &s, Status::Unsupported) };
    Outcome { graph: graph.clone(), decision }
}

fn summary(original: &Graph, rows: &[Row], s: &Solution, status: Status) -> Decision {
    let layers = decision::layers(original, rows, s);
    Decision {
        status,
        metric: None,
        selection: None,
        held_back: None,
        samples: [0; 3],
        predicted: layers.iter().map(|l| l.error).sum(),
        together: 0.0,
        bytes_before: layers.iter().map(|l| l.bytes_before).sum(),
        bytes_after: layers.iter().map(|l| l.bytes_after).sum(),
        gap: 0.0,
        latency: None,
        trials: Vec::new(),
        front: Vec::new(),
        layers,
        notes: Vec::new(),
        repair: None,
    }
}

fn chosen<'s>(rows: &'s [Row], s: &Solution) -> Vec<(&'s Layer, &'s Offer)> {
    rows.iter().zip(&s.choice).filter_map(|(r, &c)| Some((&r.layer, r.candidate(c)?))).collect()
}

fn largest(row: &[Item]) -> f64 {
    row.iter().map(|i| i.error).filter(|e| e.is_finite()).fold(0.0, f64::max)
}

fn smallest(row: &[Item]) -> usize {
    (0..row.len()).min_by_key(|&i| row[i].weight).unwrap_or(0)
}
