//! The quality of one model beside another's, or against labels, with confidence bounds: every sample counts, as no sample
//! chose anything.

use crate::confidence::{self, WHOLE};
use crate::goal::{Progress, Samples, check};
use crate::kin::{Kin, averaged};
use crate::metric::{Metric, Reference};
use crate::on_threads;
use crate::originals::Originals;
use ir::{Evaluate, Graph, Result, Value};
use serde::Serialize;
use std::collections::BTreeMap;

/// A mean over samples with its two-sided 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Quality {
    pub value: f64,
    pub low: f64,
    pub high: f64,
}

/// Two models on the same samples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Pair {
    /// The original, against labels or against its own answers on clean samples.
    pub original: Quality,
    /// The other, against the same.
    pub compressed: Option<Quality>,
    /// By how much the other is worse, and the most that may be at 95 %.
    pub drop: Option<f64>,
    pub bound: Option<f64>,
}

/// What a comparison found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    #[serde(serialize_with = "named")]
    pub metric: Metric,
    /// Samples compared; fewer than given when outputs are large.
    pub samples: usize,
    /// Those that are no copies, and groups of those that do not resemble each other.
    pub distinct: usize,
    pub groups: usize,
    /// On the samples as they are.
    pub clean: Pair,
    /// On each of the other versions.
    pub versions: Vec<Pair>,
    /// Outputs that are not judged, and the share of its variance that each keeps on the samples as they are.
    pub others: Vec<(String, f64)>,
}

fn named<S: serde::Serializer>(m: &Metric, s: S) -> std::result::Result<S::Ok, S::Error> {
    s.serialize_str(m.name())
}

/// Compares `other` with `original` on `samples` and on each of `versions` of the same samples. Without labels, the
/// original's answers on the samples as they are take their place.
pub fn compare(
    original: &Graph,
    other: Option<&Graph>,
    samples: &dyn Samples,
    versions: &[&dyn Samples],
    metric: Option<Metric>,
    evaluate: &dyn Evaluate,
    progress: &dyn Progress,
) -> Result<Comparison> {
    on_threads(1, || {
        let originals = Originals::look(original, samples, evaluate, progress)?;
        let mut which: Vec<usize> = (0..samples.len()).collect();
        let reference = originals.reference(&mut which, metric)?;
        let kin = originals.kin.only(&which);
        let mut lost: BTreeMap<usize, f64> = BTreeMap::new();
        let mut run = |graph: &Graph, samples: &dyn Samples, beside: bool| -> Result<Vec<f64>> {
            let of = |i: &usize| -> Result<Vec<Value>> {
                check(progress)?;
                let found = evaluate.run(graph, &samples.feeds(*i)?, &[])?.outputs;
                progress.step();
                Ok(found)
            };
            // One sample's outputs at a time.
            let mut value = |(at, i)| -> Result<f64> {
                let found = of(i)?;
                for (output, share) in if beside { reference.beside(at, &found) } else { Vec::new() } {
                    *lost.entry(output).or_default() += share / which.len() as f64;
                }
                Ok(reference.value(at, &found))
            };
            which.iter().enumerate().map(&mut value).collect()
        };
        let models = 1 + usize::from(other.is_some());
        progress.stage("compare", which.len() * models * (1 + versions.len()));
        let sets: Vec<&dyn Samples> = std::iter::once(samples).chain(versions.iter().copied()).collect();
        // One model after the other, so that one compiled form exists at a time.
        let a = sets.iter().map(|s| run(original, *s, false)).collect::<Result<Vec<_>>>()?;
        evaluate.forget();
        let mut all =
            |g| sets.iter().enumerate().map(|(k, s)| run(g, *s, k == 0)).collect::<Result<Vec<_>>>();
        let b = other.map(&mut all).transpose()?;
        evaluate.forget();
        let mut pairs =
            a.iter().enumerate().map(|(i, a)| pair(&reference, &kin, a, b.as_ref().map(|b| &b[i][..])));
        let clean = pairs.next().unwrap_or_else(|| pair(&reference, &kin, &[], None));
        Ok(Comparison {
            metric: reference.metric,
            samples: which.len(),
            distinct: kin.distinct(),
            groups: kin.apart(),
            clean,
            versions: pairs.collect(),
            others: lost
                .into_iter()
                .filter_map(|(i, lost)| Some((original.outputs().get(i)?.name.clone(), 1.0 - lost)))
                .collect(),
        })
    })
}

fn pair(reference: &Reference, kin: &Kin, a: &[f64], b: Option<&[f64]>) -> Pair {
    let counts = reference.metric.counts();
    let quality = |x: &[f64]| {
        let once = averaged(x, &kin.copies);
        let value = once.iter().sum::<f64>() / once.len().max(1) as f64;
        let (low, high) = if counts {
            confidence::rate(value, once.len())
        } else {
            let (low, high) = confidence::interval(&averaged(x, &kin.groups));
            (low, high.min(1.0))
        };
        Quality { value, low, high }
    };
    let lost: Option<Vec<f64>> = b.map(|b| a.iter().zip(b).map(|(x, y)| x - y).collect());
    let once = lost.as_ref().map(|l| averaged(l, &kin.copies));
    let bound = lost.as_ref().zip(once.as_ref()).map(|(l, once)| {
        let groups = confidence::mean(&averaged(l, &kin.groups), WHOLE);
        let whole = |x: f64| (x - 1e-9).ceil().max(0.0) as usize;
        let sum = |sign: f64| whole(once.iter().map(|d| (sign * d).max(0.0)).sum());
        match (counts, kin.clusters()) {
            (false, _) => groups,
            (true, false) => confidence::net_losses(sum(1.0), sum(-1.0), once.len(), WHOLE),
            (true, true) => confidence::net_losses(sum(1.0), sum(-1.0), once.len(), WHOLE).max(groups),
        }
    });
    Pair {
        original: quality(a),
        compressed: b.map(quality),
        drop: once.map(|l| l.iter().sum::<f64>() / l.len().max(1) as f64),
        bound: bound.map(|b| b.min(1.0)),
    }
}
