//! Convolutions in a row whose results are too large for the cache run as one step, in bands of lines: what lies between them
//! never goes to memory.

use crate::lower::{Step, Work};
use artefact::{Bands, Call, Stage};
use ir::{Error, Graph, Result, ValueId};
use kernels::{ConvShape, PackedConv};
use std::collections::{BTreeMap, BTreeSet};

/// Bytes of weights of a stage; every band reads them.
const WEIGHTS: usize = 128 << 10;
/// Stages of a step. With more bands have fewer lines, which costs more than it saves.
const MOST: usize = 3;

/// What a second-level cache holds, in floats. The same on every machine, as artefacts are made for others; it decides
/// the order of work, not a bit of results.
pub struct Cache {
    /// A result that does not stay there until it is read.
    pub large: usize,
    /// What lies between the stages of a band.
    pub room: usize,
}

/// Half of a cache of one megabyte.
pub const SMALL: Cache = Cache { large: 192 << 10, room: 128 << 10 };

/// The steps, chains of convolutions among them joined where that keeps what lies between them in the cache.
pub fn merge(graph: &Graph, steps: Vec<Step>, cache: &Cache) -> Result<Vec<Step>> {
    let chains = chains(graph, &steps, cache);
    let mut slots: Vec<Option<Step>> = steps.into_iter().map(Some).collect();
    for (chain, lines) in chains {
        let parts: Vec<Step> = chain.iter().filter_map(|&i| slots[i].take()).collect();
        // All operands are there once those of the last stage are.
        if let Some(&last) = chain.last() {
            slots[last] =
                Some(join(parts, lines).ok_or_else(|| Error::internal("bands of no convolutions"))?);
        }
    }
    Ok(slots.into_iter().flatten().collect())
}

/// Places of steps to join, in order, and the lines of a band.
fn chains(graph: &Graph, steps: &[Step], cache: &Cache) -> Vec<(Vec<usize>, usize)> {
    let mut readers: BTreeMap<ValueId, Vec<usize>> = BTreeMap::new();
    for (i, s) in steps.iter().enumerate() {
        s.reads.iter().for_each(|&v| readers.entry(v).or_default().push(i));
    }
    let outputs: BTreeSet<ValueId> = graph.outputs().iter().map(|o| o.value).collect();
    // The step that alone reads the large result of another, from place 0.
    let next = |i: usize| {
        let (shape, v) = (convolution(&steps[i])?.0, *steps[i].writes.first()?);
        let [reader] = readers.get(&v)?[..] else { return None };
        let fits = convolution(&steps[reader]).is_some() && steps[reader].reads.first() == Some(&v);
        (fits && !outputs.contains(&v) && shape.batch.checked_mul(floats(shape)?)? >= cache.large)
            .then_some(reader)
    };
    let mut taken = BTreeSet::new();
    let mut found = Vec::new();
    for i in 0..steps.len() {
        let mut chain = vec![i];
        while let Some(reader) = chain.last().and_then(|&last| next(last)).filter(|r| !taken.contains(r)) {
            chain.push(reader);
        }
        chain.truncate(MOST);
        while chain.len() > 1 && !taken.contains(&i) {
            if let Some(lines) = lines(steps, &chain, cache.room) {
                taken.extend(chain.iter().copied());
                found.push((chain, lines));
                break;
            }
            chain.pop();
        }
    }
    found
}

/// Floats of one image's result.
fn floats(s: &ConvShape) -> Option<usize> {
    s.output().ok()?.iter().try_fold(s.cout, |n, &d| n.checked_mul(d))
}

/// The shape and weights of a step that can make some lines of its result without the others.
fn convolution(step: &Step) -> Option<(&ConvShape, &PackedConv)> {
    let Work::Call(call) = &step.work else { return None };
    let Call::Conv { shape, weights, .. } = &**call else { return None };
    let first = shape.lines(0..1).is_ok() && weights.takes_lines(shape) && weights.bytes() <= WEIGHTS;
    first.then_some((shape, weights))
}

/// Lines of the last result whose bands leave what lies between the stages in the cache.
fn lines(steps: &[Step], chain: &[usize], room: usize) -> Option<usize> {
    let shapes: Vec<&ConvShape> =
        chain.iter().map(|&i| convolution(&steps[i]).map(|c| c.0)).collect::<Option<_>>()?;
    let all = shapes.last()?.output().ok()?[1];
    let fits = |lines: &usize| artefact::between(&shapes, *lines).is_some_and(|floats| floats <= room);
    (1..=all).take_while(fits).last()
}

fn join(parts: Vec<Step>, lines: usize) -> Option<Step> {
    let (mut stages, mut reads) = (Vec::new(), Vec::new());
    let (flops, held_bytes) = parts.iter().fold((0.0, 0.0), |(f, h), s| (f + s.flops, h + s.held_bytes));
    let first = parts.first().map(|s| s.name.clone())?;
    let mut last = None;
    for step in parts {
        let Work::Call(call) = step.work else { return None };
        let Call::Conv { shape, weights, mut finish } = *call else { return None };
        // Of the operands after the first of all only residuals are left.
        let before = if stages.is_empty() { 0 } else { reads.len() - 1 };
        if let Some(r) = &mut finish.residual {
            r.input += before;
        }
        reads.extend(step.reads.iter().skip(usize::from(!stages.is_empty())));
        stages.push(Stage { shape, weights, finish });
        last = Some((step.name, step.op, step.writes));
    }
    let (name, op, writes) = last?;
    Some(Step {
        name: format!("{first} … {name}"),
        op,
        kind: "convolutions in bands",
        work: Work::Call(Box::new(Call::Bands(Bands { stages, lines }))),
        reads,
        writes,
        alias: None,
        flops,
        held_bytes,
    })
}

#[cfg(test)]
mod tests;
