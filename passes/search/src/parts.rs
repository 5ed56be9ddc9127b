//! What is compared: outputs, and parts of those that hold numbers of different kinds side by side, as detectors do that give
//! boxes in pixels and scores of classes in one array. There the pixels are nearly all of the power, so that a model whose
//! scores are noise would look like the original.

use ir::{Tensor, Value};
use std::ops::Range;

/// One output, or some channels of one.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    output: usize,
    channels: Option<Channels>,
}

/// Channels along an axis: a range of them, or all others.
#[derive(Debug, Clone, PartialEq)]
struct Channels {
    axis: usize,
    range: Range<usize>,
    others: bool,
}

/// Numbers of channels among which kinds are told apart.
const CHANNELS: Range<usize> = 3..1025;
/// Positions that each channel must have: single numbers tell no kind.
const POSITIONS: usize = 64;
/// How many times as large as scores, by the root of mean squares, others must be.
const LARGER: f64 = 16.0;

/// The parts of a model's outputs on some samples, in the order of the outputs, scores first.
pub fn parts(outputs: &[Vec<Value>]) -> Vec<Part> {
    let mut all = Vec::new();
    for output in 0..outputs.first().map_or(0, Vec::len) {
        match scores(outputs, output) {
            Some((axis, range)) => {
                let part = |others| Channels { axis, range: range.clone(), others };
                all.extend([false, true].map(|o| Part { output, channels: Some(part(o)) }));
            }
            None => all.push(Part { output, channels: None }),
        }
    }
    all
}

/// The axis and range of channels that stay between 0 and 1 while all others are far larger.
fn scores(outputs: &[Vec<Value>], output: usize) -> Option<(usize, Range<usize>)> {
    let all: Vec<(&Tensor, Vec<f32>)> = outputs
        .iter()
        .map(|o| {
            let t = o.get(output)?.tensor().ok()?;
            Some((t, floats(t)?))
        })
        .collect::<Option<_>>()?;
    let rank = all.first()?.0.rank();
    (1..rank.max(2)).filter(|_| rank >= 3).find_map(|axis| {
        let count = all.first()?.0.shape()[axis];
        let alike = |(t, x): &(&Tensor, Vec<f32>)| {
            t.rank() == rank && t.shape()[axis] == count && x.len() >= POSITIONS * count
        };
        if !CHANNELS.contains(&count) || !all.iter().all(alike) {
            return None;
        }
        let (mut unit, mut power) = (vec![true; count], vec![0.0; count]);
        for (t, x) in &all {
            let inner: usize = t.shape()[axis + 1..].iter().product();
            for (run, x) in x.chunks_exact(inner.max(1)).enumerate() {
                let c = run % count;
                unit[c] &= x.iter().all(|v| (0.0..=1.0).contains(v));
                power[c] += x.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>();
            }
        }
        let first = unit.iter().position(|u| *u)?;
        let end = first + unit[first..].iter().take_while(|u| **u).count();
        let one_run = !unit[end..].contains(&true) && end - first < count;
        let mean = |x: f64, n: usize| x / n as f64;
        let inside = mean(power[first..end].iter().sum(), end - first);
        let outside =
            mean(power.iter().sum::<f64>() - power[first..end].iter().sum::<f64>(), count - (end - first));
        (one_run && outside > LARGER * LARGER * inside).then_some((axis, first..end))
    })
}

impl Part {
    /// Which output this is, or is a part of.
    pub fn output(&self) -> usize {
        self.output
    }

    /// Whether these are the scores beside other numbers.
    pub fn is_scores(&self) -> bool {
        self.channels.as_ref().is_some_and(|c| !c.others)
    }

    /// Its shape in an output of this shape.
    pub fn shape(&self, whole: &[usize]) -> Vec<usize> {
        let mut shape = whole.to_vec();
        if let Some(c) = &self.channels
            && let Some(n) = shape.get_mut(c.axis)
        {
            *n = (0..*n).filter(|k| c.has(*k)).count();
        }
        shape
    }

    /// Its numbers among a sample's outputs; `None` where there are none.
    pub fn of(&self, outputs: &[Value]) -> Option<Vec<f32>> {
        let t = outputs.get(self.output)?.tensor().ok()?;
        let x = floats(t)?;
        let Some(c) = &self.channels else { return Some(x) };
        let count = *t.shape().get(c.axis)?;
        let inner: usize = t.shape()[c.axis + 1..].iter().product();
        let runs = x.chunks_exact(inner.max(1)).enumerate();
        Some(runs.filter(|(run, _)| c.has(run % count)).flat_map(|(_, x)| x).copied().collect())
    }
}

impl Channels {
    fn has(&self, channel: usize) -> bool {
        self.range.contains(&channel) != self.others
    }
}

fn floats(t: &Tensor) -> Option<Vec<f32>> {
    t.dtype().is_float().then(|| t.to_f32s().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Boxes in pixels and two scores at 100 places.
    fn detections(last: bool) -> Vec<Value> {
        let at = |c: usize, k: usize| if c < 4 { (k * 7 + c * 31) as f32 } else { (k % 10) as f32 / 20.0 };
        let (shape, x): ([usize; 3], Vec<f32>) = if last {
            ([1, 100, 6], (0..600).map(|i| at(i % 6, i / 6)).collect())
        } else {
            ([1, 6, 100], (0..600).map(|i| at(i / 100, i % 100)).collect())
        };
        vec![Value::Tensor(Tensor::new(&shape, x).unwrap())]
    }

    #[test]
    fn scores_are_told_from_boxes() {
        for last in [false, true] {
            let sample = detections(last);
            let parts = parts(std::slice::from_ref(&sample));
            assert_eq!(parts.iter().map(Part::is_scores).collect::<Vec<_>>(), [true, false]);
            let (scores, boxes) = (parts[0].of(&sample).unwrap(), parts[1].of(&sample).unwrap());
            assert_eq!((scores.len(), boxes.len()), (200, 400));
            assert!(scores.iter().all(|x| *x <= 1.0));
            let shape = sample[0].tensor().unwrap().shape();
            assert_eq!(parts[0].shape(shape).iter().product::<usize>(), 200);
        }
    }

    #[test]
    fn numbers_of_one_kind_stay_together() {
        let wave: Vec<f32> = (0..600).map(|i| (i as f32 * 0.7).sin()).collect();
        let embedding = vec![Value::Tensor(Tensor::new(&[1, 6, 100], wave.clone()).unwrap())];
        let unit: Vec<f32> = wave.iter().map(|x| x.abs()).collect();
        let mask = vec![Value::Tensor(Tensor::new(&[1, 6, 100], unit).unwrap())];
        for o in [embedding, mask, vec![]] {
            assert!(parts(std::slice::from_ref(&o)).iter().all(|p| p.channels.is_none()));
            assert_eq!(parts(std::slice::from_ref(&o)).len(), o.len());
        }
    }
}
