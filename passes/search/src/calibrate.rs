//! Running the model on calibration samples and streaming every layer's inputs into statistics.

use crate::goal::{Progress, Samples, check, late};
use crate::sensitivity::each;
use crate::turns::in_turns;
use ir::{Evaluate, Feeds, Graph, Result, Value, ValueId, ValueType};
use lossy::{Bias, Layer, Stats, patches::Extract, stats::Seen, view::View};
use rayon::prelude::*;
use std::sync::Arc;

/// Values tapped of one sample, in bytes, or a part of the memory where that is more, and most samples they are held of at
/// once: two, or more that take no more.
const TAPPED: usize = 16 << 20;
const TAPPED_PART: u64 = 64;
const TOGETHER: usize = 8;
/// Results alive at once in a run for runs to go side by side, in bytes: each has an arena of its own.
const SMALL: u64 = 16 << 20;

/// Samples whose vectors wait for each other.
const SEEN: usize = 4;

/// Part of the memory that the sums may take, of samples that fit and of those that judge.
const SUMS: u64 = 4;

/// Calibration samples looked at; more change the statistics little.
const SAMPLES: usize = 128;
/// Samples that judge what the others gave.
const JUDGES: usize = 48;

/// Samples that calibrate however little time there is.
const FEWEST: usize = 8;
/// Share of the time after which those are enough.
const CALIBRATED: f64 = 0.1;

/// One statistic and what feeds it; layers that read the same values in the same way share it.
struct Stream {
    /// Every layer that reads it has a constant bias, so covariances are all that is needed.
    centered: bool,
    inputs: Vec<(ValueId, Extract)>,
    width: usize,
    /// Of samples that fit and of those that judge.
    stats: [Option<Stats>; 2],
    /// The largest layer that reads it.
    largest: usize,
}

/// Statistics of each layer's input on the first list of samples, judged by the second; `None` where a layer's input cannot
/// be seen.
pub fn calibrate(
    graph: &Graph,
    layers: &[Layer],
    samples: &dyn Samples,
    [which, unseen]: [&[usize]; 2],
    evaluate: &dyn Evaluate,
    memory: Option<u64>,
    progress: &dyn Progress,
) -> Result<Vec<Option<Arc<Stats>>>> {
    let (mut streams, of_layer) = plan(layers, memory);
    let Some(&first) = which.first() else { return Ok(vec![None; layers.len()]) };
    let (which, unseen) = (spread(which, SAMPLES), spread(unseen, JUDGES));
    let apart = evaluate.side_by_side();
    let most = memory.and_then(|m| usize::try_from(m / TAPPED_PART).ok()).map_or(TAPPED, |m| m.max(TAPPED));
    let groups = tap_groups(graph, &streams, &samples.feeds(first)?, most);
    progress.stage("calibrate", (which.len() + unseen.len()) * groups.len());
    // One set of taps at a time: an engine prepares a graph once for all samples.
    for (taps, bytes) in &groups {
        let together = if apart { (2 * TAPPED / bytes.max(&1)).clamp(2, TOGETHER) } else { 1 };
        let tapped = |i: usize| -> Result<Vec<Value>> {
            check(progress)?;
            let run = evaluate.run(graph, &samples.feeds(i)?, taps)?;
            progress.step();
            Ok(run.taps)
        };
        for (at, part) in which.chunks(together).enumerate() {
            if at * together >= FEWEST && late(progress, CALIBRATED) {
                progress.cut("calibration samples used", at * together, which.len());
                break;
            }
            push(&mut streams, taps, &each(part, evaluate, tapped)?, [0, at * together]);
        }
        for (at, part) in unseen.chunks(together).enumerate() {
            if late(progress, CALIBRATED) {
                streams.iter_mut().for_each(|s| s.stats[1] = None);
                break;
            }
            push(&mut streams, taps, &each(part, evaluate, tapped)?, [1, at * together]);
        }
        evaluate.forget();
    }
    let done: Vec<Option<Arc<Stats>>> = in_turns(streams, |s| {
        let [fitted, unseen] = s.stats;
        let Some(mut stats) = fitted.filter(|s| s.count() > 0) else { return Ok(None) };
        stats.finish();
        if let Some(unseen) = unseen {
            stats = stats.judged_by(unseen);
        }
        if s.centered {
            stats.center();
        }
        let l = &layers[s.largest];
        if !late(progress, CALIBRATED) {
            stats.tune(&l.view.matrix(&l.tensor)?, l.bias.is_some());
        }
        Ok(Some(Arc::new(stats)))
    })?;
    Ok(of_layer.into_iter().map(|s| s.and_then(|s| done[s].clone())).collect())
}

/// At most `most` of the samples, evenly spread.
pub fn spread(which: &[usize], most: usize) -> Vec<usize> {
    let n = which.len().min(most);
    (0..n).map(|i| which[i * which.len() / n]).collect()
}

fn plan(layers: &[Layer], memory: Option<u64>) -> (Vec<Stream>, Vec<Option<usize>>) {
    let mut keys: Vec<(&Layer, &View)> = Vec::new();
    let mut streams: Vec<Stream> = Vec::new();
    let mut of_layer = Vec::new();
    for (i, l) in layers.iter().enumerate() {
        if l.inputs.is_empty() {
            of_layer.push(None);
            continue;
        }
        let same = |k: &(&Layer, &View)| {
            k.0.inputs == l.inputs
                && k.1.cols == l.view.cols
                && k.1.groups == l.view.groups
                && k.1.run == l.view.run
        };
        let at = keys.iter().position(same).unwrap_or_else(|| {
            keys.push((l, &l.view));
            let (inputs, width) = (l.inputs.clone(), l.view.cols);
            streams.push(Stream { centered: true, inputs, width, stats: [None, None], largest: i });
            streams.len() - 1
        });
        if l.bytes() > layers[streams[at].largest].bytes() {
            streams[at].largest = i;
        }
        streams[at].centered &= matches!(l.bias, Some(Bias::Constant(_)));
        of_layer.push(Some(at));
    }
    let sizes: Vec<[usize; 3]> = keys.iter().map(|(_, v)| [v.groups, v.cols, v.run]).collect();
    let both = 2 * std::mem::size_of::<f32>() as u64;
    let widest = Stats::widest(&sizes, memory.map_or(u64::MAX, |m| m / SUMS / both));
    for (s, [groups, width, runs]) in streams.iter_mut().zip(sizes) {
        s.stats = [(); 2].map(|()| Some(Stats::within(groups, width, runs, widest)));
    }
    (streams, of_layer)
}

/// Taps in groups whose values take at most so many bytes together, with what they take.
fn tap_groups(graph: &Graph, streams: &[Stream], feeds: &Feeds, most: usize) -> Vec<(Vec<ValueId>, usize)> {
    let mut taps: Vec<ValueId> = streams.iter().flat_map(|s| s.inputs.iter().map(|i| i.0)).collect();
    taps.sort();
    taps.dedup();
    let sized = concrete(graph, feeds);
    let mut groups = Vec::<(Vec<ValueId>, usize)>::new();
    for t in taps {
        let shape = sized.as_ref().and_then(|g| g.ty(t).concrete());
        let bytes = shape.map_or(most / 8, |s| s.iter().product::<usize>().saturating_mul(4));
        match groups.last_mut().filter(|g| g.1.saturating_add(bytes) <= most) {
            Some(g) => {
                g.0.push(t);
                g.1 += bytes;
            }
            None => groups.push((vec![t], bytes)),
        }
    }
    groups
}

/// An engine that runs several samples side by side, where their memory is small.
pub fn apart(
    graph: &Graph,
    samples: &dyn Samples,
    evaluate: &dyn Evaluate,
) -> Result<Option<Box<dyn Evaluate>>> {
    if samples.is_empty() || rayon::current_num_threads() < 2 {
        return Ok(None);
    }
    let sized = concrete(graph, &samples.feeds(0)?);
    Ok(sized.filter(|g| alive(g) <= SMALL).and_then(|_| evaluate.apart()))
}

fn bytes(g: &Graph, v: ValueId) -> u64 {
    let produced = g.producer(v).and_then(|_| g.ty(v).concrete());
    produced.map_or(0, |s| 4 * s.iter().product::<usize>() as u64)
}

/// Bytes of the results of all nodes.
pub fn activations(g: &Graph) -> u64 {
    g.values().map(|v| bytes(g, v)).sum()
}

/// Most bytes of results that are alive at once, as each goes with its last reader.
fn alive(g: &Graph) -> u64 {
    let (mut left, mut now, mut most) = (g.use_counts(), 0u64, 0u64);
    for node in g.order().unwrap_or_default().into_iter().filter_map(|n| g.get(n)) {
        now += node.outputs().iter().flatten().map(|&v| bytes(g, v)).sum::<u64>();
        most = most.max(now);
        for v in node.reads() {
            let left = &mut left[v.index()];
            *left = left.saturating_sub(1);
            if *left == 0 {
                now = now.saturating_sub(bytes(g, v));
            }
        }
    }
    most
}

/// The graph with shapes inferred for these inputs.
pub fn concrete(graph: &Graph, feeds: &Feeds) -> Option<Graph> {
    let mut g = graph.clone();
    let types: Vec<ValueType> = g
        .inputs()
        .iter()
        .map(|&v| feeds.get(g.value_name(v)).map_or(ValueType::Unknown, Value::value_type))
        .collect();
    ir::infer_with(&mut g, &types, &[]).ok()?;
    Some(g)
}

/// Adds the values tapped of samples one after the other to every stream they feed. A stream whose input does not fit is given up, not the search.
fn push(streams: &mut [Stream], taps: &[ValueId], samples: &[Vec<Value>], [part, phase]: [usize; 2]) {
    streams.par_iter_mut().for_each(|s| {
        let stats = &mut s.stats[part];
        let of_one = |(i, values): (usize, &Vec<Value>)| -> Result<Vec<Seen>> {
            let tapped = s.inputs.iter().filter_map(|(v, extract)| {
                let Value::Tensor(t) = values.get(taps.iter().position(|t| t == v)?)? else { return None };
                Some(Seen::of(t, extract, s.width, phase + i))
            });
            tapped.collect()
        };
        for (at, few) in samples.chunks(SEEN).enumerate() {
            let seen: Result<Vec<_>> =
                few.par_iter().enumerate().map(|(i, v)| of_one((at * SEEN + i, v))).collect();
            let Some(sums) = stats else { return };
            match seen {
                Ok(all) => all.iter().flatten().for_each(|s| sums.take(s)),
                Err(_) => {
                    *stats = None;
                    return;
                }
            }
        }
    });
}
