//! Running the model on calibration samples and streaming every layer's inputs into statistics.

use crate::goal::{Progress, Samples, check, late};
use ir::{Evaluate, Feeds, Graph, Result, Value, ValueId, ValueType};
use lossy::{Bias, Layer, Stats, patches::Extract, view::View};
use rayon::prelude::*;
use std::sync::Arc;

/// Tapped values held at once, in bytes.
const TAPPED: usize = 32 << 20;

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
    progress: &dyn Progress,
) -> Result<Vec<Option<Arc<Stats>>>> {
    let (mut streams, of_layer) = plan(layers);
    let Some(&first) = which.first() else { return Ok(vec![None; layers.len()]) };
    let (which, unseen) = (spread(which, SAMPLES), spread(unseen, JUDGES));
    let groups = tap_groups(graph, &streams, &samples.feeds(first)?);
    progress.stage("calibrate", (which.len() + unseen.len()) * groups.len());
    // One set of taps at a time: an engine prepares a graph once for all samples.
    for taps in &groups {
        for (phase, &i) in which.iter().enumerate() {
            check(progress)?;
            if phase >= FEWEST && late(progress, CALIBRATED) {
                progress.cut("calibration samples used", phase, which.len());
                break;
            }
            let run = evaluate.run(graph, &samples.feeds(i)?, taps)?;
            push(&mut streams, taps, &run.taps, [0, phase]);
            progress.step();
        }
        for (phase, &i) in unseen.iter().enumerate() {
            check(progress)?;
            if late(progress, CALIBRATED) {
                streams.iter_mut().for_each(|s| s.stats[1] = None);
                break;
            }
            let run = evaluate.run(graph, &samples.feeds(i)?, taps)?;
            push(&mut streams, taps, &run.taps, [1, phase]);
            progress.step();
        }
        evaluate.forget();
    }
    let done: Vec<Option<Arc<Stats>>> = streams
        .into_par_iter()
        .map(|s| {
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
        })
        .collect::<Result<_>>()?;
    Ok(of_layer.into_iter().map(|s| s.and_then(|s| done[s].clone())).collect())
}

/// At most `most` of the samples, evenly spread.
pub fn spread(which: &[usize], most: usize) -> Vec<usize> {
    let n = which.len().min(most);
    (0..n).map(|i| which[i * which.len() / n]).collect()
}

fn plan(layers: &[Layer]) -> (Vec<Stream>, Vec<Option<usize>>) {
    let mut keys: Vec<(&Layer, &View)> = Vec::new();
    let mut streams = Vec::new();
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
            let stats = || Stats::new(l.view.groups, l.view.cols, l.view.run);
            streams.push(Stream {
                centered: true,
                inputs: l.inputs.clone(),
                width: l.view.cols,
                stats: [Some(stats()), Some(stats())],
                largest: i,
            });
            streams.len() - 1
        });
        if l.bytes() > layers[streams[at].largest].bytes() {
            streams[at].largest = i;
        }
        streams[at].centered &= matches!(l.bias, Some(Bias::Constant(_)));
        of_layer.push(Some(at));
    }
    (streams, of_layer)
}

/// Taps in groups whose values fit in memory together.
fn tap_groups(graph: &Graph, streams: &[Stream], feeds: &Feeds) -> Vec<Vec<ValueId>> {
    let mut taps: Vec<ValueId> = streams.iter().flat_map(|s| s.inputs.iter().map(|i| i.0)).collect();
    taps.sort();
    taps.dedup();
    let sized = concrete(graph, feeds);
    let (mut groups, mut used) = (Vec::<Vec<ValueId>>::new(), usize::MAX);
    for t in taps {
        let shape = sized.as_ref().and_then(|g| g.ty(t).concrete());
        let bytes = shape.map_or(TAPPED / 8, |s| s.iter().product::<usize>().saturating_mul(4));
        if used.saturating_add(bytes) > TAPPED {
            groups.push(Vec::new());
            used = 0;
        }
        if let Some(g) = groups.last_mut() {
            g.push(t);
        }
        used = used.saturating_add(bytes);
    }
    groups
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

/// Adds tapped values to every stream they feed. A stream whose input does not fit is given up, not the search.
fn push(streams: &mut [Stream], taps: &[ValueId], values: &[Value], [part, phase]: [usize; 2]) {
    streams.par_iter_mut().for_each(|s| {
        let stats = &mut s.stats[part];
        for (v, extract) in &s.inputs {
            let Some(at) = taps.iter().position(|t| t == v) else { continue };
            let Some(Value::Tensor(t)) = values.get(at) else { continue };
            let Some(sums) = stats else { return };
            if sums.push(t, extract, s.width, phase).is_err() {
                *stats = None;
                return;
            }
        }
    });
}
