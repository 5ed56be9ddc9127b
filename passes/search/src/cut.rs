//! Groups of channels cut: the statistics of what reads them, what each cut loses, and the graph without them.

use crate::calibrate;
use crate::goal::{Progress, Samples};
use ir::{Error, Evaluate, Graph, Result, ValueId};
use lossy::channels::{Cut, Group, cuts, remove::side};
use lossy::{Layer, Stats, gram::Gram};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

/// Bytes of Gram matrices held at once.
const GRAMS: usize = 48 << 20;
/// What a run works with.
#[derive(Clone, Copy)]
pub struct Bench<'a> {
    pub samples: Option<&'a dyn Samples>,
    pub calibration: &'a [usize],
    pub evaluate: &'a dyn Evaluate,
    /// Bytes that the search may take.
    pub memory: Option<u64>,
    pub progress: &'a dyn Progress,
    /// Statistics of the graph's layers, kept where several cuts of it are looked at.
    pub known: Option<&'a Known>,
}

/// Statistics of layers by their weight, as far as they fit in [`GRAMS`] together.
#[derive(Default)]
pub struct Known(Mutex<BTreeMap<ValueId, Option<Arc<Stats>>>>);

impl Known {
    fn all(&self) -> MutexGuard<'_, BTreeMap<ValueId, Option<Arc<Stats>>>> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// Channels that stay in one group.
pub struct Pick<'a> {
    pub group: &'a Group,
    pub keep: Vec<usize>,
}

/// Groups in parts whose consumers' Gram matrices fit in memory together.
pub fn batches<'g>(graph: &Graph, groups: &[&'g Group]) -> Vec<Vec<&'g Group>> {
    let (mut parts, mut used) = (Vec::<Vec<&Group>>::new(), usize::MAX);
    for &g in groups {
        let square =
            |v: ValueId| lossy::layer::layer(graph, v).map_or(0, |l| l.view.cols.saturating_mul(l.view.cols));
        let bytes =
            g.consumers.iter().map(|c| square(c.weight).saturating_mul(4)).fold(0, usize::saturating_add);
        if used.saturating_add(bytes) > GRAMS {
            parts.push(Vec::new());
            used = 0;
        }
        if let Some(p) = parts.last_mut() {
            p.push(g);
        }
        used = used.saturating_add(bytes);
    }
    parts
}

/// Statistics of each group's consumers, `None` where one cannot be seen; white inputs when there are no samples.
pub fn consumers(graph: &Graph, groups: &[&Group], bench: Bench) -> Result<Vec<Option<Vec<Arc<Stats>>>>> {
    let layers: Vec<Option<Layer>> = groups
        .iter()
        .flat_map(|g| g.consumers.iter().map(|c| lossy::layer::layer(graph, c.weight)))
        .collect();
    let mut all: Vec<Layer> = layers.iter().flatten().cloned().collect();
    let mut stats: BTreeMap<ValueId, Option<Arc<Stats>>> =
        bench.known.map(|k| k.all().clone()).unwrap_or_default();
    all.retain(|l| !stats.contains_key(&l.value));
    let new = match bench.samples {
        Some(s) if !all.is_empty() => calibrate::calibrate(
            graph,
            &all,
            s,
            [bench.calibration, &[]],
            bench.evaluate,
            bench.memory,
            bench.progress,
        )?,
        Some(_) => Vec::new(),
        None => all.iter().map(|l| Some(Arc::new(Stats::of(vec![Gram::identity(l.view.cols)])))).collect(),
    };
    stats.extend(all.iter().map(|l| l.value).zip(new));
    if let Some(known) = bench.known {
        let bytes = |s: &Stats| s.grams.iter().flat_map(|g| g.sizes()).map(|n| 4 * n * n).sum::<usize>();
        let all: usize = stats.values().flatten().map(|s| bytes(s)).sum();
        if all <= GRAMS {
            known.all().clone_from(&stats);
        }
    }
    let mut of_layer = layers.iter().map(|l| stats.get(&l.as_ref()?.value).cloned().flatten());
    let of_group = |g: &&Group| {
        let all: Vec<Option<Arc<Stats>>> = of_layer.by_ref().take(g.consumers.len()).collect();
        all.into_iter().collect()
    };
    Ok(groups.iter().map(of_group).collect())
}

/// Cuts of a group with the distortion each causes; `gain` tells the distortion per unit of a consumer's error from its
/// weight and the power of its output, `worth` the most that may be lost for so many channels.
pub fn options_of(
    graph: &Graph,
    group: &Group,
    stats: &[Arc<Stats>],
    targets: &[usize],
    gain: &dyn Fn(ValueId, f64) -> f64,
    worth: &dyn Fn(usize) -> f64,
) -> Option<Vec<(Cut, f64)>> {
    let mut sides = Vec::new();
    for (c, s) in group.consumers.iter().zip(stats) {
        let mut one = side(&lossy::layer::layer(graph, c.weight)?, s).ok()?;
        one.price = gain(c.weight, s.error(&one.matrix));
        sides.push(one);
    }
    let found = cuts(group.count, &sides, targets, worth).ok()?;
    let distortion = |c: &Cut| c.errors.iter().zip(&sides).map(|(e, s)| e * s.price).sum::<f64>();
    Some(found.into_iter().map(|c| (distortion(&c), c)).map(|(d, c)| (c, d)).collect())
}

/// The graph with the picked channels alone; consumers are refitted by statistics of the whole graph.
pub fn cut_graph(graph: &Graph, picks: &[Pick], bench: Bench) -> Result<Graph> {
    let mut slim = graph.clone();
    let of: Vec<&Group> = picks.iter().map(|p| p.group).collect();
    let mut next = picks.iter();
    for part in batches(graph, &of) {
        let stats = consumers(graph, &part, bench)?;
        for (stats, pick) in stats.into_iter().zip(next.by_ref()) {
            let stats =
                stats.ok_or_else(|| Error::internal("a consumer's input was seen and is not any more"))?;
            let refs: Vec<&Stats> = stats.iter().map(Arc::as_ref).collect();
            lossy::channels::remove(&mut slim, pick.group, &pick.keep, &refs)?;
        }
    }
    Ok(slim)
}
