//! How close a compressed model's outputs are to the original's, in the measure a user of the model would look at.

use crate::confidence::{self, Level};
use crate::distortion::centred;
use crate::kin::{Kin, averaged};
use crate::margins::{Margins, Noise};
use crate::parts::{Part, parts};
use ir::Value;
use serde::{Deserialize, Serialize};

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// Share of samples whose best class equals the label.
    Top1,
    /// Share of positions whose best class equals the original's.
    Agreement,
    /// Overlap of the masks above a threshold with the original's.
    Overlap,
    /// Mean cosine similarity with the original's output.
    Cosine,
    /// Share of samples whose label is among the five best classes; without labels, whose best class of the original is.
    Top5,
    /// One minus the power of the error over that of the original's output: 0.99 is a signal-to-noise ratio of 20 dB.
    Sqnr,
    /// A number that a judge outside gives each model, relative to that of the original.
    Judged,
    /// Share of the variance of the original's output between samples that is kept (R²): for outputs of few numbers, which
    /// have no direction to compare, and for masks and scores that stay below all thresholds.
    Explained,
}

/// Metrics that a user may ask for by name.
pub const NAMED: &[(&str, Metric)] = &[
    ("top1", Metric::Top1),
    ("top5", Metric::Top5),
    ("agreement", Metric::Agreement),
    ("overlap", Metric::Overlap),
    ("cosine", Metric::Cosine),
    ("sqnr", Metric::Sqnr),
];

impl Metric {
    pub fn name(self) -> &'static str {
        match self {
            Metric::Top1 => "top-1 accuracy",
            Metric::Agreement => "agreement with the original",
            Metric::Overlap => "mask overlap with the original",
            Metric::Cosine => "cosine similarity with the original",
            Metric::Top5 => "top-5 accuracy",
            Metric::Sqnr => "share of the signal kept",
            Metric::Judged => "score of the judge",
            Metric::Explained => "share of the original's variance kept",
        }
    }

    /// True when samples are right or wrong, which says little of few samples.
    pub fn counts(self) -> bool {
        matches!(self, Metric::Top1 | Metric::Top5 | Metric::Agreement)
    }

    /// True when the distance of the best class to the next tells how likely a change is.
    pub fn has_margins(self) -> bool {
        matches!(self, Metric::Top1 | Metric::Agreement)
    }
}

/// Outputs of the original model on some samples.
pub struct Reference {
    pub metric: Metric,
    /// What is compared.
    pub(crate) parts: Vec<Part>,
    /// The one of them that is judged.
    pub(crate) judged: usize,
    /// Outputs are probabilities; their logarithms are compared.
    pub(crate) probabilities: bool,
    pub(crate) samples: Vec<Vec<f32>>,
    pub(crate) classes: usize,
    labels: Vec<Option<i64>>,
    /// Mean squared value of every part, per position.
    pub(crate) power: Vec<f64>,
    /// Mean squared deviation of the judged part from its mean over samples.
    variance: f64,
    /// The other parts that count, and their variance as above: none where the metric was asked for.
    pub(crate) others: Vec<(usize, f64)>,
    /// All parts, those that are probabilities as [`crate::distortion::centred`] logarithms.
    pub(crate) all: Vec<Vec<Option<Vec<f32>>>>,
    kin: Option<Kin>,
}

/// What was measured on a set of samples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// The metric itself.
    pub value: f64,
    /// The metric of the original.
    pub base: f64,
    /// Expected fall of the metric: for classes from margins and errors, so that few samples say more.
    pub drop: f64,
    /// Upper bound of the fall, at 95 % over all looks at these samples: for classes from margins, else from the spread.
    pub bound: f64,
    /// The least that `bound` can be with so few samples.
    pub finest: f64,
    /// Samples (or shares of samples) lost and gained, counted.
    pub lost: f64,
    pub gained: f64,
    /// Copies count once.
    pub samples: usize,
    /// Squared output error relative to the output's power, of probabilities in their logarithms.
    pub distortion: f64,
    /// The output beside the judged one whose loss is `drop`, where that is more than the judged one's.
    #[serde(default)]
    pub decided_by: Option<usize>,
}

impl Measured {
    /// True when the expected drop is within `allowed`, and its upper bound too where so few samples can bound it: the
    /// finest bound is that of no error at all, so it must leave room.
    pub fn expected_within(&self, allowed: f64) -> bool {
        self.drop <= allowed && (self.bound <= allowed || !self.bounds(allowed))
    }

    /// The share of `allowed` that is lost, by what counts there.
    pub fn used(&self, allowed: f64) -> f64 {
        let bound = if self.bounds(allowed) { self.bound } else { 0.0 };
        self.drop.max(bound) / allowed.max(f64::MIN_POSITIVE)
    }

    /// Whether so few samples can bound a drop of `allowed`.
    pub fn bounds(&self, allowed: f64) -> bool {
        2.0 * self.finest <= allowed
    }

    /// The least drop that counting losses among these samples could promise.
    pub fn countable(&self, level: Level) -> f64 {
        confidence::unseen(self.samples, level)
    }

    /// The upper bound from counted losses and gains alone.
    pub fn counted(&self, level: Level) -> f64 {
        net_losses(self.lost, self.gained, self.samples, level)
    }
}

fn net_losses(lost: f64, gained: f64, samples: usize, level: Level) -> f64 {
    let whole = |x: f64| (x - 1e-9).ceil().max(0.0) as usize;
    confidence::net_losses(whole(lost), whole(gained), samples, level)
}

/// Outputs of fewer numbers are not compared by direction: one positive number is always parallel to another.
const DIRECTION: usize = 8;

/// Below so many groups of samples that resemble each other their means have no spread to speak of: the samples count.
const GROUPS: usize = 5;

/// What varies by less of its power is constant but for rounding.
const STILL: f64 = 1e-6;

/// Thresholds of masks.
const THRESHOLDS: [f32; 2] = [0.3, 0.5];

impl Reference {
    /// Chooses the metric from the outputs' form unless one is `wanted`; the name of each output helps to tell scores from
    /// embeddings.
    pub fn new(
        outputs: Vec<Vec<Value>>,
        names: &[String],
        labels: Vec<Option<i64>>,
        wanted: Option<Metric>,
    ) -> Reference {
        let parts = parts(&outputs);
        let mut all = floats(&parts, &outputs);
        let shape = |p: &Part| {
            let t = outputs.first()?.get(p.output())?.tensor().ok()?;
            Some(p.shape(t.shape()))
        };
        let shapes: Vec<Vec<usize>> = parts.iter().map(|p| shape(p).unwrap_or_default()).collect();
        let labelled = !labels.is_empty() && labels.iter().all(Option::is_some);
        let form = |i: usize| {
            if parts[i].is_scores() {
                return Form::Mask;
            }
            let name = names.get(parts[i].output()).map_or("", String::as_str);
            form(&all, i, &shapes[i], name, labelled)
        };
        let count = parts.len();
        // The first part of the most telling form is judged.
        let judged = (0..count).min_by_key(|&i| (form(i) as usize, i)).unwrap_or(0);
        let form = if count == 0 { Form::Plain } else { form(judged) };
        let classes = shapes.get(judged).and_then(|s| s.last().copied()).unwrap_or(1).max(1);
        let samples: Vec<Vec<f32>> =
            all.iter().map(|o| o.get(judged).cloned().flatten().unwrap_or_default()).collect();
        let one = samples.iter().all(|s| s.len() == classes);
        // Masks that are empty agree whatever a model has become.
        let telling =
            2 * samples.iter().filter(|s| s.iter().any(|x| *x > THRESHOLDS[0])).count() >= samples.len();
        let metric = match form {
            Form::Classes if labelled && one => Metric::Top1,
            Form::Classes => Metric::Agreement,
            Form::Mask if telling => Metric::Overlap,
            Form::Mask => Metric::Explained,
            Form::Plain if samples.iter().all(|s| s.len() < DIRECTION) => Metric::Explained,
            Form::Plain => Metric::Cosine,
        };
        let metric = wanted.unwrap_or(metric);
        let probabilities =
            matches!(metric, Metric::Top1 | Metric::Agreement) && sums_to_one(&samples, classes);
        if probabilities {
            all.iter_mut().filter_map(|o| o.get_mut(judged)?.as_mut()).for_each(|x| centred(x, classes));
        }
        let power: Vec<f64> = (0..count).map(|i| mean_power(&all, i)).collect();
        let spread = |i: usize| {
            let part: Option<Vec<&[f32]>> = all.iter().map(|o| o.get(i)?.as_deref()).collect();
            let power = power.get(i).copied().unwrap_or(0.0);
            part.map(|p| variance(&p).max(STILL * power))
        };
        let others = (0..count).filter(|&i| i != judged && wanted.is_none());
        let others = others.filter_map(|i| Some((i, spread(i).filter(|v| *v > 0.0)?))).collect();
        let all_judged: Vec<&[f32]> = samples.iter().map(Vec::as_slice).collect();
        let variance = Some(variance(&all_judged)).filter(|&v| v > 0.0);
        let variance = variance.unwrap_or_else(|| power.get(judged).copied().unwrap_or(0.0));
        Reference {
            metric,
            parts,
            judged,
            probabilities,
            samples,
            classes,
            labels,
            power,
            variance,
            others,
            all,
            kin: None,
        }
    }

    /// With what is known of the resemblance of the samples.
    pub fn among(mut self, kin: Kin) -> Reference {
        self.kin = Some(kin);
        self
    }

    /// Compares the outputs of the same samples, in the same order. `margins` tell how changes of class are to be
    /// expected on others.
    pub fn measure(&self, outputs: &[Vec<Value>], margins: Option<&Margins>, level: Level) -> Measured {
        let found: Vec<Vec<f32>> = outputs.iter().map(|o| self.judged(o).unwrap_or_default()).collect();
        let (mut values, mut bases, mut drops) = (0.0, 0.0, Vec::new());
        let (mut noise, mut broken) = (Noise::default(), 0usize);
        for (i, (a, b)) in self.samples.iter().zip(&found).enumerate() {
            if a.len() != b.len() || b.iter().any(|x| !x.is_finite()) {
                (bases, broken) = (bases + 1.0, broken + 1);
                drops.push(1.0);
                continue;
            }
            let (value, base) = self.sample(a, b, self.labels.get(i).copied().flatten());
            (values, bases) = (values + value, bases + base);
            drops.push(base - value);
            if margins.is_some() {
                let rows = a.chunks_exact(self.classes).zip(b.chunks_exact(self.classes));
                let group = self.kin.as_ref().and_then(|k| k.groups.get(i).copied()).unwrap_or(i);
                rows.for_each(|(x, y)| noise.push(group, &self.logits(x), &self.logits(y), self.reach()));
            }
        }
        let n = drops.len().max(1) as f64;
        let counted = drops.iter().sum::<f64>() / n;
        let once = averaged(&drops, self.classes_of(|k| &k.copies));
        let lost = once.iter().filter(|d| **d > 0.0).sum::<f64>().abs();
        let gained = once.iter().filter(|d| **d < 0.0).sum::<f64>().abs();
        let (drop, bound, finest) = match margins {
            Some(m) => {
                let e = m.estimate(&noise, level);
                let broken = broken as f64 / n;
                (e.expected + broken, (e.bound + broken).min(1.0), m.finest(level))
            }
            // One sample has no spread to judge by.
            None if once.len() < 2 => (counted, counted, 0.0),
            None if self.metric.counts() => {
                let bound = net_losses(lost, gained, once.len(), level);
                (counted, bound, confidence::unseen(once.len(), level))
            }
            None => (counted, self.bound(&drops, level).max(counted), 0.0),
        };
        // What is promised holds for every output.
        let elsewhere = self.elsewhere(outputs, level);
        let worst = elsewhere.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1)).filter(|w| w.1 > drop);
        let bound = elsewhere.iter().fold(bound, |most, e| most.max(e.2)).min(bound.max(1.0));
        let drop = worst.map_or(drop, |w| w.1);
        Measured {
            value: values / n,
            base: bases / n,
            drop,
            bound,
            finest,
            lost,
            gained,
            samples: once.len(),
            distortion: self.distance(outputs),
            decided_by: worst.and_then(|w| Some(self.parts.get(w.0)?.output())),
        }
    }

    pub(crate) fn classes_of(&self, of: fn(&Kin) -> &[usize]) -> &[usize] {
        self.kin.as_ref().map_or(&[][..], of)
    }

    /// Upper bound of the mean of losses that the samples show.
    pub(crate) fn bound(&self, losses: &[f64], level: Level) -> f64 {
        let once = averaged(losses, self.classes_of(|k| &k.copies));
        let groups = averaged(losses, self.classes_of(|k| &k.groups));
        confidence::mean_of_few(if groups.len() < GROUPS { &once } else { &groups }, level)
    }

    /// The metric of the `at`-th sample for these outputs of it.
    pub fn value(&self, at: usize, outputs: &[Value]) -> f64 {
        let (Some(a), b) = (self.samples.get(at), self.judged(outputs)) else { return 0.0 };
        let b = b.unwrap_or_default();
        let broken = a.len() != b.len() || b.iter().any(|x| !x.is_finite());
        if broken { 0.0 } else { self.sample(a, &b, self.labels.get(at).copied().flatten()).0 }
    }

    /// Adds what one sample's outputs of the original say about margins.
    pub fn add_margins(&self, margins: &mut Margins, outputs: &[Value], label: Option<i64>) {
        let Some(scores) = self.judged(outputs) else { return };
        let label = label.filter(|_| self.metric == Metric::Top1).and_then(|l| usize::try_from(l).ok());
        margins.push(&self.logits(&scores), self.classes, label);
    }

    /// What is judged of a sample's outputs.
    fn judged(&self, outputs: &[Value]) -> Option<Vec<f32>> {
        self.parts.get(self.judged)?.of(outputs)
    }

    /// Scores on a scale where errors are alike: logarithms of probabilities.
    fn logits(&self, scores: &[f32]) -> Vec<f64> {
        let one = |&x: &f32| if self.probabilities { f64::from(x.max(1e-12)).ln() } else { f64::from(x) };
        scores.iter().map(one).collect()
    }

    /// Classes further below the best than this say nothing about errors near it.
    fn reach(&self) -> f64 {
        if self.probabilities { 12.0 } else { f64::INFINITY }
    }

    /// (value, value of the original) of one sample.
    fn sample(&self, a: &[f32], b: &[f32], label: Option<i64>) -> (f64, f64) {
        match self.metric {
            Metric::Top1 => {
                let right = |x: &[f32]| f64::from(u8::from(i64::try_from(best(x)).ok() == label));
                (right(b), right(a))
            }
            Metric::Agreement => {
                let rows = (a.len() / self.classes).max(1) as f64;
                let pairs = a.chunks_exact(self.classes).zip(b.chunks_exact(self.classes));
                (pairs.filter(|(x, y)| best(x) == best(y)).count() as f64 / rows, 1.0)
            }
            Metric::Overlap => {
                let v = THRESHOLDS.iter().map(|&t| overlap(a, b, t)).sum::<f64>() / THRESHOLDS.len() as f64;
                (v, 1.0)
            }
            Metric::Cosine => (cosine(a, b), 1.0),
            Metric::Top5 => {
                let wanted = label.and_then(|l| usize::try_from(l).ok()).unwrap_or_else(|| best(a));
                let among = |x: &[f32]| f64::from(u8::from(rank(x, wanted).is_some_and(|r| r < 5)));
                (among(b), among(a))
            }
            Metric::Sqnr => {
                let power: f64 = a.iter().map(|&x| f64::from(x).powi(2)).sum();
                let noise: f64 = a.iter().zip(b).map(|(x, y)| f64::from(x - y).powi(2)).sum();
                (if noise == 0.0 { 1.0 } else { (1.0 - noise / power.max(f64::MIN_POSITIVE)).max(0.0) }, 1.0)
            }
            // Judged models are not compared by outputs.
            Metric::Judged => (0.0, 0.0),
            Metric::Explained => {
                let e: f64 = a.iter().zip(b).map(|(x, y)| f64::from(x - y).powi(2)).sum();
                let lost = e / (self.variance * a.len().max(1) as f64);
                (if e == 0.0 { 1.0 } else { (1.0 - lost).max(0.0) }, 1.0)
            }
        }
    }
}

/// How many classes are better than `class`, or as good and before it.
fn rank(x: &[f32], class: usize) -> Option<usize> {
    let own = *x.get(class)?;
    Some(x.iter().enumerate().filter(|&(i, &v)| v > own || (v == own && i < class)).count())
}

#[derive(Clone, Copy, PartialEq)]
enum Form {
    Classes,
    Mask,
    Plain,
}

/// The numbers of all parts, sample by sample.
fn floats(parts: &[Part], outputs: &[Vec<Value>]) -> Vec<Vec<Option<Vec<f32>>>> {
    outputs.iter().map(|o| parts.iter().map(|p| p.of(o)).collect()).collect()
}

fn form(all: &[Vec<Option<Vec<f32>>>], i: usize, shape: &[usize], name: &str, labelled: bool) -> Form {
    let data = || all.iter().filter_map(|o| o.get(i)?.as_deref());
    let classes = shape.last().copied().unwrap_or(0);
    if data().count() == 0 {
        return Form::Plain;
    }
    let unit = data().flatten().all(|x| (0.0..=1.0).contains(x));
    let named = ["logit", "prob", "score", "label", "class", "softmax", "pred"]
        .iter()
        .any(|w| name.to_ascii_lowercase().contains(w));
    let rows = || data().flat_map(|d| d.chunks_exact(classes.max(1)));
    let norms = || rows().map(|r| r.iter().map(|x| x * x).sum::<f32>().sqrt());
    let normalised = norms().all(|n| (n - 1.0).abs() < 1e-3);
    let summed = unit && rows().all(|r| (r.iter().sum::<f32>() - 1.0).abs() < 1e-2);
    // Such numbers along the only axis, as of windows in time, are no classes of one sample.
    let apart = shape.len() == 1 && unit && !labelled;
    if classes > 1 && (summed || (!normalised && !apart && (named || labelled) && shape.len() <= 3)) {
        return Form::Classes;
    }
    if unit && shape.len() >= 3 && classes > 8 {
        return Form::Mask;
    }
    Form::Plain
}

fn sums_to_one(samples: &[Vec<f32>], classes: usize) -> bool {
    samples
        .iter()
        .flat_map(|s| s.chunks_exact(classes))
        .all(|r| r.iter().all(|x| (0.0..=1.0).contains(x)) && (r.iter().sum::<f32>() - 1.0).abs() < 1e-2)
}

fn mean_power(all: &[Vec<Option<Vec<f32>>>], i: usize) -> f64 {
    let (mut sum, mut n) = (0.0, 0usize);
    for x in all.iter().filter_map(|o| o.get(i)?.as_deref()) {
        sum += x.iter().filter(|v| v.is_finite()).map(|&v| f64::from(v).powi(2)).sum::<f64>();
        n += x.len();
    }
    sum / n.max(1) as f64
}

/// Mean squared deviation from the mean over samples, position by position; over all values where lengths differ.
fn variance(samples: &[&[f32]]) -> f64 {
    let width = samples.first().map_or(1, |s| s.len()).max(1);
    let width = if samples.iter().all(|s| s.len() == width) { width } else { 1 };
    let rows = || samples.iter().flat_map(|s| s.chunks_exact(width));
    let n = rows().count().max(1) as f64;
    let mut sum = 0.0;
    for i in 0..width {
        let mean = rows().map(|r| f64::from(r[i])).sum::<f64>() / n;
        sum += rows().map(|r| (f64::from(r[i]) - mean).powi(2)).sum::<f64>();
    }
    sum / (n * width as f64)
}

/// Position of the largest entry; the first of equals.
pub(crate) fn best(x: &[f32]) -> usize {
    (0..x.len()).fold(0, |b, i| if x[i] > x[b] { i } else { b })
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(&p, &q)| f64::from(p) * f64::from(q)).sum::<f64>();
    let n = (dot(a, a) * dot(b, b)).sqrt();
    if n > 0.0 { dot(a, b) / n } else { f64::from(u8::from(a == b)) }
}

fn overlap(a: &[f32], b: &[f32], threshold: f32) -> f64 {
    let (mut both, mut any) = (0usize, 0usize);
    for (x, y) in a.iter().zip(b) {
        let (p, q) = (*x > threshold, *y > threshold);
        both += usize::from(p && q);
        any += usize::from(p || q);
    }
    if any == 0 { 1.0 } else { both as f64 / any as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::confidence::WHOLE;
    use ir::Tensor;

    fn outputs(rows: &[&[f32]], shape: &[usize]) -> Vec<Vec<Value>> {
        rows.iter().map(|r| vec![Value::Tensor(Tensor::new(shape, r.to_vec()).unwrap())]).collect()
    }

    fn reference(rows: &[&[f32]], shape: &[usize], name: &str, labels: &[i64]) -> Reference {
        Reference::new(outputs(rows, shape), &[name.into()], labels.iter().map(|&l| Some(l)).collect(), None)
    }

    #[test]
    fn a_metric_may_be_asked_for() {
        let rows: &[&[f32]] = &[&[6.0, 5.0, 4.0, 3.0, 2.0, 1.0], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]];
        let at = |metric, found: &[&[f32]], labels: &[i64]| {
            let labels = labels.iter().map(|&l| Some(l)).collect();
            let r = Reference::new(outputs(rows, &[1, 6]), &["y".into()], labels, Some(metric));
            r.measure(&outputs(found, &[1, 6]), None, WHOLE)
        };
        let turned: &[&[f32]] = &[&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]];
        let m = at(Metric::Top5, turned, &[0, 5]);
        assert_eq!((m.base, m.value, m.lost), (1.0, 0.5, 1.0));
        // Two samples promise nothing, whatever they show.
        assert!(at(Metric::Top5, rows, &[0, 5]).bound > 0.7);
        let noisy: &[&[f32]] = &[&[6.0, 5.0, 4.0, 3.0, 2.0, 0.0], rows[1]];
        assert!((at(Metric::Sqnr, noisy, &[]).drop - 0.5 / 91.0).abs() < 1e-6);
    }

    #[test]
    fn the_form_of_the_output_chooses_the_metric() {
        assert_eq!(reference(&[&[1.0, 5.0, 2.0]], &[1, 3], "logits", &[]).metric, Metric::Agreement);
        assert_eq!(reference(&[&[1.0, 5.0, 2.0]], &[1, 3], "y", &[1]).metric, Metric::Top1);
        assert_eq!(reference(&[&[0.2, 0.7, 0.1]], &[1, 3], "y", &[]).metric, Metric::Agreement);
        // Voice in four windows of a recording, or scores.
        let windows: &[f32] = &[0.9, 0.8, 0.1, 0.9];
        assert_eq!(reference(&[windows], &[4], "speech_probs", &[]).metric, Metric::Explained);
        assert_eq!(reference(&[windows], &[4], "speech_probs", &[1]).metric, Metric::Top1);
        let direction: &[f32] = &[0.6, 0.8, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        assert_eq!(reference(&[direction], &[1, 8], "embedding", &[]).metric, Metric::Cosine);
        assert_eq!(reference(&[&[0.6]], &[1, 1], "y", &[]).metric, Metric::Explained);
        let mask = [0.5f32; 256];
        assert_eq!(reference(&[&mask], &[1, 1, 16, 16], "y", &[]).metric, Metric::Overlap);
        // What is nowhere above a threshold overlaps with anything.
        assert_eq!(reference(&[&[0.01; 256]], &[1, 1, 16, 16], "y", &[]).metric, Metric::Explained);
    }

    /// Boxes in pixels beside scores: noise in the scores changes the array's direction by nothing.
    #[test]
    fn scores_beside_boxes_are_judged_by_themselves() {
        let row = |seed: usize, scores: f32| -> Vec<f32> {
            let pixel = |i: usize| ((i * 37 + seed) % 320) as f32;
            let score = |i: usize| if i % 25 == seed % 5 { scores } else { 0.02 };
            (0..400).map(pixel).chain((0..200).map(score)).collect()
        };
        let rows: Vec<Vec<f32>> = (0..6).map(|s| row(s, 0.9)).collect();
        let of = |rows: &[Vec<f32>]| outputs(&rows.iter().map(|r| &r[..]).collect::<Vec<_>>(), &[1, 6, 100]);
        let r = Reference::new(of(&rows), &["output0".into()], vec![None; 6], None);
        assert_eq!((r.metric, r.parts.len()), (Metric::Overlap, 2));
        let lost: Vec<Vec<f32>> = (0..6).map(|s| row(s, 0.02)).collect();
        assert!(cosine(&rows[0], &lost[0]) > 0.999);
        let m = r.measure(&of(&lost), None, WHOLE);
        assert!(m.value == 0.0 && m.distortion > 0.5, "{m:?}");
    }

    #[test]
    fn equal_outputs_lose_nothing() {
        let rows: &[&[f32]] = &[&[1.0, 5.0, 2.0], &[4.0, 0.0, 1.0]];
        let r = reference(rows, &[1, 3], "logits", &[1, 2]);
        let m = r.measure(&outputs(rows, &[1, 3]), None, WHOLE);
        assert_eq!((m.value, m.base, m.drop, m.distortion), (0.5, 0.5, 0.0, 0.0));
    }

    #[test]
    fn expected_changes_follow_margin_and_noise() {
        let rows: &[&[f32]] = &[&[1.0, 1.1, -3.0, 0.0]];
        let r = reference(rows, &[1, 4], "logits", &[]);
        let mut margins = Margins::default();
        r.add_margins(&mut margins, &outputs(rows, &[1, 4])[0], None);
        let noisy = |s: f32| {
            let m = r.measure(&outputs(&[&[1.0 + s, 1.1 - s, -3.0 + s, -s]], &[1, 4]), Some(&margins), WHOLE);
            assert!(m.bound >= m.drop);
            m.drop
        };
        assert!(noisy(0.001) < 0.01 && noisy(0.2) > 0.1, "{} {}", noisy(0.001), noisy(0.2));
        assert!(noisy(0.02) < noisy(0.05));
    }

    #[test]
    fn continuous_drops_are_bounded_by_their_spread() {
        let row = |x: f32, y: f32| vec![x, y, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        let rows = [row(0.6, 0.8), row(0.8, 0.6), row(1.0, 0.0)];
        let found = [row(0.59, 0.81), row(0.8, 0.6), row(1.0, 0.1)];
        let (rows, found) = (rows.each_ref().map(|r| &r[..]), found.each_ref().map(|r| &r[..]));
        let r = reference(&rows, &[1, 8], "embedding", &[]);
        let m = r.measure(&outputs(&found, &[1, 8]), None, WHOLE);
        assert!(m.bound > 2.0 * m.drop && m.drop > 0.0, "{m:?}");
        assert!(!m.expected_within(m.drop) && m.expected_within(m.bound));
    }

    #[test]
    fn single_numbers_are_compared_with_their_spread() {
        let rows: &[&[f32]] = &[&[0.1], &[0.9], &[0.1], &[0.9]];
        let r = reference(rows, &[1, 1], "y", &[]);
        // Parallel, and wrong.
        let constant: &[&[f32]] = &[&[0.5], &[0.5], &[0.5], &[0.5]];
        assert!((r.measure(&outputs(constant, &[1, 1]), None, WHOLE).value - 0.0).abs() < 1e-6);
        let near: &[&[f32]] = &[&[0.1], &[0.86], &[0.1], &[0.9]];
        let m = r.measure(&outputs(near, &[1, 1]), None, WHOLE);
        assert!((m.drop - 0.01 / 4.0).abs() < 1e-6, "{m:?}");
        // One sample has no spread: its size takes the place.
        let one = reference(&[&[0.5]], &[1, 1], "y", &[]);
        assert!((one.measure(&outputs(&[&[0.4]], &[1, 1]), None, WHOLE).value - 0.96).abs() < 1e-6);
    }

    #[test]
    fn bad_outputs_count_as_lost() {
        let r = reference(&[&[0.6, 0.8]], &[1, 2], "e", &[]);
        assert_eq!(r.measure(&outputs(&[&[f32::NAN, 1.0]], &[1, 2]), None, WHOLE).drop, 1.0);
    }
}
