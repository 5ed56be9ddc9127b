//! How close a compressed model's outputs are to the original's, in the measure a user of the model would look at.

use ir::{Tensor, Value};
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
}

impl Metric {
    pub fn name(self) -> &'static str {
        match self {
            Metric::Top1 => "top-1 accuracy",
            Metric::Agreement => "agreement with the original",
            Metric::Overlap => "mask overlap with the original",
            Metric::Cosine => "cosine similarity with the original",
        }
    }
}

/// Outputs of the original model on some samples.
pub struct Reference {
    pub metric: Metric,
    /// The output that is judged.
    output: usize,
    /// Outputs are probabilities; their logarithms are compared.
    probabilities: bool,
    samples: Vec<Vec<f32>>,
    classes: usize,
    labels: Vec<Option<i64>>,
    /// Mean squared value of every output, per output position.
    power: Vec<f64>,
    all: Vec<Vec<Option<Vec<f32>>>>,
}

/// What was measured on a set of samples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// The metric itself.
    pub value: f64,
    /// The metric of the original.
    pub base: f64,
    /// Expected fall of the metric: for classes, from margins and errors, so that few samples say more.
    pub drop: f64,
    /// Squared output error relative to the output's power.
    pub distortion: f64,
}

impl Measured {
    /// True when the expected drop is within `allowed` and what was counted does not contradict it: one sample of `n`
    /// may count more.
    pub fn within(&self, allowed: f64, n: usize) -> bool {
        self.drop <= allowed && self.base - self.value <= allowed + 1.0 / n.max(1) as f64
    }
}

/// Thresholds of masks.
const THRESHOLDS: [f32; 2] = [0.3, 0.5];

impl Reference {
    /// Chooses the metric from the outputs' form; `name` of each output helps to tell scores from embeddings.
    pub fn new(outputs: Vec<Vec<Value>>, names: &[String], labels: Vec<Option<i64>>) -> Reference {
        let all: Vec<Vec<Option<Vec<f32>>>> =
            outputs.iter().map(|o| o.iter().map(floats).collect()).collect();
        let shapes: Vec<Vec<usize>> = outputs
            .first()
            .map(|o| o.iter().map(|v| v.tensor().map_or(Vec::new(), |t| t.shape().to_vec())).collect())
            .unwrap_or_default();
        let labelled = !labels.is_empty() && labels.iter().all(Option::is_some);
        let form = |i: usize| {
            form(
                &all,
                i,
                shapes.get(i).map_or(&[][..], Vec::as_slice),
                names.get(i).map_or("", String::as_str),
                labelled,
            )
        };
        let count = shapes.len();
        // The first output of the most telling form is judged.
        let output = (0..count).min_by_key(|&i| (form(i) as usize, i)).unwrap_or(0);
        let form = if count == 0 { Form::Plain } else { form(output) };
        let classes = shapes.get(output).and_then(|s| s.last().copied()).unwrap_or(1).max(1);
        let samples: Vec<Vec<f32>> =
            all.iter().map(|o| o.get(output).cloned().flatten().unwrap_or_default()).collect();
        let one = samples.iter().all(|s| s.len() == classes);
        let metric = match form {
            Form::Classes if labelled && one => Metric::Top1,
            Form::Classes => Metric::Agreement,
            Form::Mask => Metric::Overlap,
            Form::Plain => Metric::Cosine,
        };
        let probabilities =
            matches!(metric, Metric::Top1 | Metric::Agreement) && sums_to_one(&samples, classes);
        let power = (0..count).map(|i| mean_power(&all, i)).collect();
        Reference { metric, output, probabilities, samples, classes, labels, power, all }
    }

    /// Compares the outputs of the same samples, in the same order.
    pub fn measure(&self, outputs: &[Vec<Value>]) -> Measured {
        let floats: Vec<Vec<Option<Vec<f32>>>> =
            outputs.iter().map(|o| o.iter().map(floats).collect()).collect();
        let distortion = self.distortion(&floats);
        let found: Vec<&[f32]> =
            floats.iter().map(|o| o.get(self.output).and_then(|x| x.as_deref()).unwrap_or(&[])).collect();
        let (mut value, mut base, mut drop, mut n) = (0.0, 0.0, 0.0, 0usize);
        for (i, (a, b)) in self.samples.iter().zip(&found).enumerate() {
            let one = self.sample(a, b, self.labels.get(i).copied().flatten());
            value += one.0;
            base += one.1;
            drop += one.2;
            n += 1;
        }
        let n = n.max(1) as f64;
        Measured { value: value / n, base: base / n, drop: drop / n, distortion }
    }

    /// Squared error of all float outputs relative to their power, per sample, averaged.
    pub fn distortion(&self, outputs: &[Vec<Option<Vec<f32>>>]) -> f64 {
        let (mut sum, mut n) = (0.0, 0usize);
        for (a, b) in self.all.iter().zip(outputs) {
            for (i, (x, y)) in a.iter().zip(b).enumerate() {
                let (Some(x), Some(y), Some(p)) = (x, y, self.power.get(i)) else { continue };
                if x.len() != y.len() || *p <= 0.0 {
                    sum += f64::from(u8::from(x.len() != y.len()));
                    continue;
                }
                let e: f64 = x.iter().zip(y).map(|(a, b)| f64::from(a - b).powi(2)).sum();
                sum += if e.is_finite() { e / (p * x.len().max(1) as f64) } else { 1e6 };
            }
            n += 1;
        }
        sum / n.max(1) as f64
    }

    /// As [`Reference::distortion`], from values.
    pub fn distance(&self, outputs: &[Vec<Value>]) -> f64 {
        let f: Vec<Vec<Option<Vec<f32>>>> = outputs.iter().map(|o| o.iter().map(floats).collect()).collect();
        self.distortion(&f)
    }

    /// (value, value of the original, expected drop) of one sample.
    fn sample(&self, a: &[f32], b: &[f32], label: Option<i64>) -> (f64, f64, f64) {
        if a.len() != b.len() || b.iter().any(|x| !x.is_finite()) {
            return (0.0, 1.0, 1.0);
        }
        match self.metric {
            Metric::Top1 => self.labelled(a, b, label.unwrap_or(-1)),
            Metric::Agreement => {
                let rows = (a.len() / self.classes).max(1) as f64;
                let (mut same, mut flips) = (0.0, 0.0);
                for (x, y) in a.chunks_exact(self.classes).zip(b.chunks_exact(self.classes)) {
                    same += f64::from(u8::from(best(x) == best(y)));
                    flips += self.flip(x, y).0;
                }
                (same / rows, 1.0, flips / rows)
            }
            Metric::Overlap => {
                let v = THRESHOLDS.iter().map(|&t| overlap(a, b, t)).sum::<f64>() / THRESHOLDS.len() as f64;
                (v, 1.0, 1.0 - v)
            }
            Metric::Cosine => {
                let c = cosine(a, b);
                (c, 1.0, 1.0 - c)
            }
        }
    }

    fn labelled(&self, a: &[f32], b: &[f32], label: i64) -> (f64, f64, f64) {
        let right = |x: &[f32]| f64::from(u8::from(i64::try_from(best(x)) == Ok(label)));
        let (base, value) = (right(a), right(b));
        let (lost, towards) = self.flip(a, b);
        let gained = usize::try_from(label).ok().and_then(|l| towards.get(l)).copied().unwrap_or(0.0);
        (value, base, if base > 0.0 { lost } else { -gained })
    }

    /// Probability that errors of the size seen here change the best class, and the probability of each other class.
    ///
    /// The error of a score difference is taken as normal with the spread seen over this sample's classes; the
    /// original's margins then give a chance for every rival. This estimates the rate of changes from all samples
    /// instead of counting the few that happen to change.
    fn flip(&self, a: &[f32], b: &[f32]) -> (f64, Vec<f64>) {
        let score = |x: f32| if self.probabilities { f64::from(x.max(1e-12)).ln() } else { f64::from(x) };
        let top = best(a);
        let Some(&highest) = a.get(top) else { return (0.0, Vec::new()) };
        let highest = score(highest);
        // Classes far below the best say nothing about the noise near it when scores are logarithms.
        let near = |x: f32| !self.probabilities || highest - score(x) < 12.0;
        let errors: Vec<f64> =
            a.iter().zip(b).filter(|(x, _)| near(**x)).map(|(&x, &y)| score(y) - score(x)).collect();
        let n = errors.len().max(1) as f64;
        let mean = errors.iter().sum::<f64>() / n;
        let variance = errors.iter().map(|e| (e - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
        let spread = (2.0 * variance).sqrt();
        let chance = |i: usize, x: f32| match i == top {
            true => 0.0,
            false if spread <= 0.0 => 0.0,
            false => normal_tail((highest - score(x)) / spread),
        };
        let each: Vec<f64> = a.iter().enumerate().map(|(i, &x)| chance(i, x)).collect();
        (each.iter().sum::<f64>().min(1.0), each)
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Form {
    Classes,
    Mask,
    Plain,
}

fn floats(v: &Value) -> Option<Vec<f32>> {
    let t: &Tensor = v.tensor().ok()?;
    t.dtype().is_float().then(|| t.to_f32s().ok()).flatten()
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
    if classes > 1 && (summed || (!normalised && (named || labelled) && shape.len() <= 3)) {
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

/// Position of the largest entry; the first of equals.
fn best(x: &[f32]) -> usize {
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

/// P(Z > z) of a standard normal variable (Abramowitz & Stegun 26.2.17, |ε| < 7.5e-8).
fn normal_tail(z: f64) -> f64 {
    if z < 0.0 {
        return 1.0 - normal_tail(-z);
    }
    let t = 1.0 / (1.0 + 0.2316419 * z);
    let p = t * (0.319381530 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))));
    (-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt() * p
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outputs(rows: &[&[f32]], shape: &[usize]) -> Vec<Vec<Value>> {
        rows.iter().map(|r| vec![Value::Tensor(Tensor::new(shape, r.to_vec()).unwrap())]).collect()
    }

    fn reference(rows: &[&[f32]], shape: &[usize], name: &str, labels: &[i64]) -> Reference {
        Reference::new(outputs(rows, shape), &[name.into()], labels.iter().map(|&l| Some(l)).collect())
    }

    #[test]
    fn the_form_of_the_output_chooses_the_metric() {
        assert_eq!(reference(&[&[1.0, 5.0, 2.0]], &[1, 3], "logits", &[]).metric, Metric::Agreement);
        assert_eq!(reference(&[&[1.0, 5.0, 2.0]], &[1, 3], "y", &[1]).metric, Metric::Top1);
        assert_eq!(reference(&[&[0.2, 0.7, 0.1]], &[1, 3], "y", &[]).metric, Metric::Agreement);
        assert_eq!(reference(&[&[0.6, 0.8]], &[1, 2], "embedding", &[]).metric, Metric::Cosine);
        let mask = [0.5f32; 256];
        assert_eq!(reference(&[&mask], &[1, 1, 16, 16], "y", &[]).metric, Metric::Overlap);
    }

    #[test]
    fn equal_outputs_lose_nothing() {
        let rows: &[&[f32]] = &[&[1.0, 5.0, 2.0], &[4.0, 0.0, 1.0]];
        let r = reference(rows, &[1, 3], "logits", &[1, 2]);
        let m = r.measure(&outputs(rows, &[1, 3]));
        assert_eq!((m.value, m.base, m.drop, m.distortion), (0.5, 0.5, 0.0, 0.0));
    }

    #[test]
    fn expected_flips_follow_margin_and_noise() {
        let rows: &[&[f32]] = &[&[1.0, 1.1, -3.0, 0.0]];
        let r = reference(rows, &[1, 4], "logits", &[]);
        let noisy = |s: f32| r.measure(&outputs(&[&[1.0 + s, 1.1 - s, -3.0 + s, -s]], &[1, 4])).drop;
        assert!(noisy(0.01) < 0.01 && noisy(0.2) > 0.2, "{} {}", noisy(0.01), noisy(0.2));
        assert!(noisy(0.02) < noisy(0.05));
    }

    #[test]
    fn bad_outputs_count_as_lost() {
        let r = reference(&[&[0.6, 0.8]], &[1, 2], "e", &[]);
        assert_eq!(r.measure(&outputs(&[&[f32::NAN, 1.0]], &[1, 2])).drop, 1.0);
        assert!((normal_tail(1.96) - 0.025).abs() < 1e-4);
    }
}
