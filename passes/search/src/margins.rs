//! How often the best class will change, from the original's margins and the errors of the compressed model's scores.
//!
//! Counting changes on a few dozen samples says little: none among 32 allows 9 % at 95 %. The margins between the best
//! class and its rivals are known for every sample of the original, and the size of score errors is known well from a few
//! samples; a margin m then changes with probability P(Z > m/σ). Changes are rare events with these probabilities as
//! weights, which bounds their rate.

use crate::confidence::{self, Level, tail};
use crate::kin::{Kin, averaged};
use std::collections::BTreeMap;

/// Rivals of the best class looked at in each row.
const RIVALS: usize = 8;
/// Rows of scores kept of one sample.
const ROWS: usize = 256;
/// Errors are widened until so many of the samples are expected to change, but to no more than this share of them and by no
/// more than this factor.
const SEEN: f64 = 4.0;
const SHARE: f64 = 0.125;
const WIDEST: f64 = 8.0;
/// Steps of the search for that factor.
const STEPS: usize = 16;
/// Errors of usual size that those near the best class are mixed with.
const USUAL: f64 = 32.0;
/// Most that errors of few groups of samples are doubted by.
const DOUBT: f64 = 1.5;
/// Margins of so many errors do not change.
const FAR: f64 = 8.0;
/// Spreads of errors that stand for all that were measured.
const SPREADS: usize = 16;

/// The original's margins in one row of scores.
struct Row {
    /// From the best class to its nearest rivals.
    gaps: Vec<f64>,
    /// Where the original's best class is wrong: the gap to the right one.
    towards: Option<f64>,
}

/// Margins of the original on samples of the data.
#[derive(Default)]
pub struct Margins {
    samples: Vec<Vec<Row>>,
    kin: Option<Kin>,
}

/// Sizes of score errors: one standard deviation of the difference of two scores for each row measured.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Noise {
    spreads: Vec<f64>,
    /// Squared errors of differences near the best class in units of the row's spread, and their number.
    near: (f64, usize),
    /// Squared spreads and their number for each group of samples that resemble each other.
    groups: BTreeMap<usize, (f64, f64)>,
}

/// Rate of changes of the best class among unseen samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// Expected net losses: changes away from a right class less changes towards it.
    pub expected: f64,
    /// Upper bound of losses.
    pub bound: f64,
}

impl Margins {
    /// Adds one sample's `scores`, rows of `classes`; `label` when the metric is accuracy.
    pub fn push(&mut self, scores: &[f64], classes: usize, label: Option<usize>) {
        let all = scores.len() / classes.max(1);
        let step = all.div_ceil(ROWS).max(1);
        let rows = scores.chunks_exact(classes.max(1)).step_by(step).map(|x| row(x, label));
        self.samples.push(rows.collect());
    }

    /// With what is known of the resemblance of samples.
    pub fn among(mut self, kin: Kin) -> Margins {
        self.kin = Some(kin);
        self
    }

    /// Samples that are no copies of others.
    pub fn distinct(&self) -> usize {
        self.kin.as_ref().map_or(self.samples.len(), Kin::distinct)
    }

    /// The least bound that so many samples can give.
    pub fn finest(&self, level: Level) -> f64 {
        confidence::weighted_count(&[], 0.5 / WIDEST, level) / self.distinct().max(1) as f64
    }

    /// The rate of changes under errors like these. The bound takes two things for uncertain: how many of all samples have such
    /// margins, and how large errors are on other groups of samples than those they were measured on.
    pub fn estimate(&self, noise: &Noise, level: Level) -> Estimate {
        let spreads = noise.typical();
        let copies = self.kin.as_ref().map_or(&[][..], |k| &k.copies);
        let n = self.distinct().max(1) as f64;
        let gained: Vec<f64> = self.samples.iter().map(|s| gains(s, &spreads)).collect();
        let gained: f64 = averaged(&gained, copies).iter().sum();
        let plain = mean(&averaged(&self.each(&spreads, 1.0), copies));
        let wider = self.wider(&spreads);
        let each = self.each(&spreads, wider);
        let weights = averaged(&each, copies);
        let seen = mean(&weights);
        // A row at a tie changes in half of all cases.
        let largest = if spreads.is_empty() { 0.0 } else { 0.5 / wider };
        let mut most = confidence::weighted_count(&weights, largest, level) / n;
        if let Some(k) = self.kin.as_ref().filter(|k| k.clusters()) {
            // Kin stand or fall together: the spread is that of their means.
            most = most.max(confidence::mean(&averaged(&each, &k.groups), level));
        }
        let doubt = noise.doubt(level);
        // Never less than what these samples alone tell: the few at a tie may be no accident.
        let bound = confidence::product([(seen, most), (1.0, doubt)]).max(plain * doubt);
        Estimate { expected: seen - gained / n, bound: bound.min(1.0) }
    }

    /// How much wider errors may be taken to be: margins that are a little larger tell how many are as small as errors are,
    /// and the more of them are looked at, the less it is left to chance; those much larger say nothing of it. A factor that
    /// changes as errors do, so that the bound has no steps.
    fn wider(&self, spreads: &[f64]) -> f64 {
        let copies = self.kin.as_ref().map_or(&[][..], |k| &k.copies);
        let n = self.distinct() as f64;
        let enough = |wider: f64| {
            let each = self.each(spreads, wider);
            averaged(&each, copies).iter().sum::<f64>() * wider >= SEEN.min(SHARE * n)
        };
        if spreads.is_empty() || enough(1.0) {
            return 1.0;
        }
        let (mut low, mut high) = (1.0, WIDEST);
        for _ in 0..STEPS {
            let middle = f64::sqrt(low * high);
            if enough(middle) { high = middle } else { low = middle }
        }
        high
    }

    /// The chance of each sample to change, under errors so many times wider: changes grow in proportion to small errors, and
    /// errors as large as the margins saturate.
    fn each(&self, spreads: &[f64], wider: f64) -> Vec<f64> {
        self.samples.iter().map(|s| losses(s, spreads, wider) / wider).collect()
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

fn row(scores: &[f64], label: Option<usize>) -> Row {
    let top = (0..scores.len()).fold(0, |b, i| if scores[i] > scores[b] { i } else { b });
    let highest = scores.get(top).copied().unwrap_or(0.0);
    let mut gaps: Vec<f64> =
        scores.iter().enumerate().filter(|(i, _)| *i != top).map(|(_, x)| highest - x).collect();
    gaps.sort_by(f64::total_cmp);
    gaps.truncate(RIVALS);
    let towards = label.filter(|&l| l != top).map(|l| scores.get(l).map_or(f64::INFINITY, |x| highest - x));
    Row { gaps, towards }
}

/// Probability that a right row of the sample changes, averaged over rows and spreads.
fn losses(rows: &[Row], spreads: &[f64], wider: f64) -> f64 {
    let chance = |r: &Row, s: f64| -> f64 {
        if r.towards.is_some() {
            0.0
        } else {
            r.gaps.iter().map(|g| g / (wider * s)).take_while(|&z| z < FAR).map(tail).sum::<f64>().min(1.0)
        }
    };
    average(rows, spreads, chance)
}

fn gains(rows: &[Row], spreads: &[f64]) -> f64 {
    average(rows, spreads, |r, s| r.towards.map_or(0.0, |g| tail(g / s)))
}

fn average(rows: &[Row], spreads: &[f64], f: impl Fn(&Row, f64) -> f64) -> f64 {
    let total: f64 = rows.iter().map(|r| spreads.iter().map(|&s| f(r, s)).sum::<f64>()).sum();
    total / (rows.len().max(1) * spreads.len().max(1)) as f64
}

impl Noise {
    /// Adds the errors of one row of a sample of `group`: `a` of the original, `b` of the compressed model. Classes more than
    /// `reach` below the best say nothing about the errors near it.
    pub fn push(&mut self, group: usize, a: &[f64], b: &[f64], reach: f64) {
        let top = (0..a.len()).fold(0, |t, i| if a[i] > a[t] { i } else { t });
        let Some(&highest) = a.get(top) else { return };
        let errors: Vec<f64> =
            a.iter().zip(b).filter(|(x, _)| highest - **x < reach).map(|(x, y)| y - x).collect();
        let n = errors.len() as f64;
        let mean = errors.iter().sum::<f64>() / n.max(1.0);
        let variance = errors.iter().map(|e| (e - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
        let spread = (2.0 * variance).sqrt();
        self.spreads.push(spread);
        let of_group = self.groups.entry(group).or_default();
        *of_group = (of_group.0 + spread * spread, of_group.1 + 1.0);
        if spread <= 0.0 {
            return;
        }
        let mut rivals: Vec<usize> = (0..a.len()).filter(|&i| i != top).collect();
        rivals.sort_by(|&i, &j| a[j].total_cmp(&a[i]).then(i.cmp(&j)));
        for i in rivals.into_iter().take(RIVALS).filter(|&i| highest - a[i] < reach) {
            let error = (b[top] - highest) - (b[i] - a[i]);
            self.near.0 += (error / spread).powi(2);
            self.near.1 += 1;
        }
    }

    /// How many times as large errors may be as they were seen to be: they vary between groups of samples, and few groups
    /// tell their mean power to within the upper limit of it.
    fn doubt(&self, level: Level) -> f64 {
        let power: Vec<f64> = self.groups.values().map(|(sum, n)| sum / n).collect();
        let mean = power.iter().sum::<f64>() / power.len().max(1) as f64;
        if mean > 0.0 { (confidence::mean(&power, level) / mean).sqrt().min(DOUBT) } else { 1.0 }
    }

    /// A few spreads that stand for all; larger ones where errors near the best class are larger than elsewhere.
    fn typical(&self) -> Vec<f64> {
        let mut sorted: Vec<f64> = self.spreads.iter().copied().filter(|s| *s > 0.0).collect();
        sorted.sort_by(f64::total_cmp);
        // Few errors near the best class say little: they are mixed with so many of the expected size.
        let near = ((self.near.0 + USUAL) / (self.near.1 as f64 + USUAL)).sqrt();
        let n = sorted.len().min(SPREADS);
        (0..n).map(|i| sorted[(2 * i + 1) * sorted.len() / (2 * n)] * near.max(1.0)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::confidence::WHOLE;

    /// SplitMix64 as nearly normal values.
    fn normal(state: &mut u64) -> f64 {
        let mut uniform = || {
            *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
        };
        (0..12).map(|_| uniform()).sum::<f64>() - 6.0
    }

    /// Scores of ten classes and a noisy copy.
    fn pair(state: &mut u64, sigma: f64) -> (Vec<f64>, Vec<f64>) {
        let a: Vec<f64> = (0..10).map(|_| 3.0 * normal(state)).collect();
        let b = a.iter().map(|x| x + sigma * normal(state)).collect();
        (a, b)
    }

    fn best(x: &[f64]) -> usize {
        (0..x.len()).fold(0, |b, i| if x[i] > x[b] { i } else { b })
    }

    #[test]
    fn few_samples_tell_the_rate_that_many_show() {
        for sigma in [0.02, 0.08] {
            let mut state = 3;
            let many: Vec<_> = (0..20_000).map(|_| pair(&mut state, sigma)).collect();
            let truth = many.iter().filter(|(a, b)| best(a) != best(b)).count() as f64 / many.len() as f64;
            let (mut expected, mut covered) = (0.0, 0);
            for part in many.chunks(200).take(100) {
                let (mut margins, mut noise) = (Margins::default(), Noise::default());
                part.iter().for_each(|(a, _)| margins.push(a, 10, None));
                part.iter().take(40).enumerate().for_each(|(i, (a, b))| noise.push(i, a, b, f64::INFINITY));
                let e = margins.estimate(&noise, WHOLE);
                expected += e.expected / 100.0;
                covered += usize::from(e.bound >= truth);
            }
            assert!((expected / truth - 1.0).abs() < 0.2, "{sigma}: {expected} for {truth}");
            assert!(covered >= 90, "{sigma}: {covered} of 100");
        }
    }

    #[test]
    fn a_little_more_error_loses_a_little_more() {
        let bound = |sigma: f64| {
            let (mut state, mut margins, mut noise) = (11, Margins::default(), Noise::default());
            for i in 0..128 {
                let (a, b) = pair(&mut state, sigma);
                margins.push(&a, 10, None);
                noise.push(i / 6, &a, &b, f64::INFINITY);
            }
            margins.estimate(&noise, WHOLE).bound
        };
        let bounds: Vec<f64> = (0..120).map(|i| bound(0.005 * 1.03f64.powi(i))).collect();
        let steps: Vec<f64> = bounds.windows(2).map(|b| b[1] / b[0]).collect();
        assert!(steps.iter().all(|s| (0.98..1.08).contains(s)), "{steps:?}");
    }

    #[test]
    fn copies_and_kin_say_less() {
        let (mut state, mut noise) = (5, Noise::default());
        let some: Vec<_> = (0..30).map(|_| pair(&mut state, 0.05)).collect();
        some.iter().for_each(|(a, b)| noise.push(0, a, b, f64::INFINITY));
        let of = |times: usize| {
            let mut m = Margins::default();
            (0..times).for_each(|_| some.iter().for_each(|(a, _)| m.push(a, 10, None)));
            m
        };
        let class: Vec<usize> = (0..120).map(|i| i % 30).collect();
        let copies = of(4).among(Kin { copies: class.clone(), groups: class.clone() });
        let kin = of(4).among(Kin { copies: (0..120).collect(), groups: class });
        let bound = |m: &Margins| m.estimate(&noise, WHOLE).bound;
        assert!((bound(&copies) - bound(&of(1))).abs() < 1e-12 && bound(&of(4)) < bound(&of(1)));
        assert!(bound(&kin) >= bound(&of(4)));
        assert_eq!(copies.finest(WHOLE), of(1).finest(WHOLE));
    }

    #[test]
    fn labels_credit_changes_towards_the_right_class() {
        let (mut right, mut wrong) = (Margins::default(), Margins::default());
        right.push(&[1.0, 1.1], 2, Some(1));
        wrong.push(&[1.0, 1.1], 2, Some(0));
        let mut noise = Noise::default();
        noise.push(0, &[1.0, 1.1], &[1.05, 1.0], f64::INFINITY);
        assert!(right.estimate(&noise, WHOLE).expected > 0.1);
        assert!(wrong.estimate(&noise, WHOLE).expected < -0.1);
    }

    #[test]
    fn no_errors_change_nothing() {
        let (mut margins, mut noise) = (Margins::default(), Noise::default());
        margins.push(&[1.0, 1.0, 0.5], 3, None);
        noise.push(0, &[1.0, 1.0, 0.5], &[1.0, 1.0, 0.5], f64::INFINITY);
        assert_eq!(margins.estimate(&noise, WHOLE), Estimate { expected: 0.0, bound: 0.0 });
    }
}
