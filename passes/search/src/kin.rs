//! Samples that resemble each other, which count as fewer than they are.
//!
//! A bound at 95 % takes samples for independent draws. Copies are not; neither are crops of one photograph or windows of
//! one recording: what is true of one is true of its kin. Copies count as one sample. Kin are kept on one side of every
//! split, so that held-back errors are those of data the search did not see.

use rayon::prelude::*;
use std::collections::BTreeMap;

/// Inputs are copies when their squared distance is below this share of the median distance of two samples,
const COPY: f64 = 0.005;
/// or below this share of their power.
const SAME: f64 = 1e-6;
/// Correlations of inputs and of outputs, both without their mean over samples, from which two samples are kin. Few numbers
/// correlate by chance, and classes do where there are few: short vectors say nothing.
const INPUTS: f64 = 0.25;
const OUTPUTS: f64 = 0.7;
const LEAST: usize = 64;
/// Copies are told apart by fewer numbers.
const FEWEST: usize = 8;
/// Numbers looked at in one sample.
pub const SKETCH: usize = 1024;

/// For every sample the class of its copies and the group of its kin, numbered by first members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kin {
    pub copies: Vec<usize>,
    pub groups: Vec<usize>,
}

/// What is looked at of one sample.
#[derive(Debug, Clone, Default)]
pub struct Sketch {
    pub inputs: Vec<f32>,
    pub outputs: Vec<f32>,
}

impl Kin {
    /// Samples without kin.
    pub fn alone(n: usize) -> Kin {
        Kin { copies: (0..n).collect(), groups: (0..n).collect() }
    }

    /// By what `sketches` show; samples of one `source` are copies.
    pub fn of(sources: &[usize], sketches: &[Sketch]) -> Kin {
        let inputs: Vec<&[f32]> = sketches.iter().map(|s| &s.inputs[..]).collect();
        let outputs: Vec<&[f32]> = sketches.iter().map(|s| &s.outputs[..]).collect();
        let (inputs, outputs) = (Centred::of(&inputs, FEWEST), Centred::of(&outputs, LEAST));
        let mut copies = Union::new(sources.len());
        let first: BTreeMap<usize, usize> = sources.iter().enumerate().rev().map(|(i, &s)| (s, i)).collect();
        sources.iter().enumerate().for_each(|(i, s)| copies.join(i, first[s]));
        let mut groups = copies.clone();
        if let Some(x) = &inputs {
            x.pairs(|a, b, _| x.copies(a, b)).into_iter().for_each(|(a, b)| {
                copies.join(a, b);
                groups.join(a, b);
            });
        }
        if let (Some(x), Some(y)) = (inputs.as_ref().filter(|x| x.width >= LEAST), &outputs) {
            let alike = |a: usize, b: usize, cosine: f64| cosine > INPUTS && y.cosine(a, b) > OUTPUTS;
            x.pairs(alike).into_iter().for_each(|(a, b)| groups.join(a, b));
        }
        Kin { copies: copies.classes(), groups: groups.classes() }
    }

    /// Of these samples alone.
    pub fn only(&self, which: &[usize]) -> Kin {
        let of = |class: &[usize]| which.iter().map(|&i| class.get(i).copied().unwrap_or(i)).collect();
        Kin { copies: of(&self.copies), groups: of(&self.groups) }
    }

    /// Samples that are no copies.
    pub fn distinct(&self) -> usize {
        count(&self.copies)
    }

    /// Groups that do not resemble each other.
    pub fn apart(&self) -> usize {
        count(&self.groups)
    }

    /// True when some samples that are no copies resemble each other.
    pub fn clusters(&self) -> bool {
        self.apart() < self.distinct()
    }
}

fn count(class: &[usize]) -> usize {
    class.iter().collect::<std::collections::BTreeSet<_>>().len()
}

/// Means over the members of each class, in order of the classes; without classes, the values.
pub fn averaged(values: &[f64], class: &[usize]) -> Vec<f64> {
    if class.len() != values.len() {
        return values.to_vec();
    }
    let mut all = BTreeMap::<usize, (f64, f64)>::new();
    for (v, c) in values.iter().zip(class) {
        let one = all.entry(*c).or_default();
        *one = (one.0 + v, one.1 + 1.0);
    }
    all.into_values().map(|(sum, n)| sum / n).collect()
}

/// Vectors less their mean, with what distances need.
struct Centred {
    width: usize,
    rows: Vec<Vec<f32>>,
    /// Squared lengths, after and before the mean was taken away, these of what varies.
    power: Vec<f64>,
    raw: Vec<f64>,
    /// Median squared distance of two samples.
    median: f64,
}

impl Centred {
    /// `None` where vectors are shorter than `least`, or differ in length.
    fn of(rows: &[&[f32]], least: usize) -> Option<Centred> {
        let width = rows.first()?.len();
        if width < least || rows.iter().any(|r| r.len() != width) {
            return None;
        }
        let mean: Vec<f64> = (0..width)
            .map(|j| rows.iter().map(|r| f64::from(r[j])).sum::<f64>() / rows.len() as f64)
            .collect();
        let less = |r: &&[f32]| r.iter().zip(&mean).map(|(x, m)| (f64::from(*x) - m) as f32).collect();
        // What all share, such as a rate of samples, tells none of them apart however large it is.
        let varies: Vec<bool> = (0..width).map(|j| rows.iter().any(|r| r[j] != rows[0][j])).collect();
        let shown =
            |r: &&[f32]| -> Vec<f32> { r.iter().zip(&varies).filter_map(|(&x, v)| v.then_some(x)).collect() };
        let centred: Vec<Vec<f32>> = rows.iter().map(less).collect();
        let length = |r: &[f32]| r.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
        let mut c = Centred {
            width,
            power: centred.iter().map(|r| length(r)).collect(),
            raw: rows.iter().map(|r| length(&shown(r))).collect(),
            rows: centred,
            median: 0.0,
        };
        // Pairs at every distance in the order stand for all.
        let n = c.rows.len();
        let far = (1..n)
            .step_by((n / 32).max(1))
            .flat_map(|d| (0..n - d).step_by((n / 32).max(1)).map(move |i| (i, i + d)));
        let mut distances: Vec<f64> = far.map(|(a, b)| c.distance(a, b)).collect();
        distances.sort_by(f64::total_cmp);
        c.median = distances.get(distances.len() / 2).copied().unwrap_or(0.0);
        Some(c)
    }

    fn dot(&self, a: usize, b: usize) -> f64 {
        let products = self.rows[a].chunks(64).zip(self.rows[b].chunks(64));
        products.map(|(x, y)| f64::from(x.iter().zip(y).map(|(p, q)| p * q).sum::<f32>())).sum()
    }

    fn distance(&self, a: usize, b: usize) -> f64 {
        self.rows[a].iter().zip(&self.rows[b]).map(|(&x, &y)| f64::from(x - y).powi(2)).sum()
    }

    fn cosine(&self, a: usize, b: usize) -> f64 {
        let n = (self.power[a] * self.power[b]).sqrt();
        if n > 0.0 { self.dot(a, b) / n } else { 0.0 }
    }

    fn copies(&self, a: usize, b: usize) -> bool {
        // Close in length first: most pairs end here.
        if (self.power[a].sqrt() - self.power[b].sqrt()).powi(2) > COPY * self.median + SAME * self.raw[a] {
            return false;
        }
        let d = self.distance(a, b);
        d <= COPY * self.median || d <= SAME * self.raw[a].min(self.raw[b])
    }

    /// Pairs (later, earlier) for which `wanted` of the pair and its cosine holds.
    fn pairs(&self, wanted: impl Fn(usize, usize, f64) -> bool + Sync) -> Vec<(usize, usize)> {
        let of = |a: usize| {
            let one = |b: usize| wanted(a, b, self.cosine(a, b)).then_some((a, b));
            (0..a).filter_map(one).collect::<Vec<_>>()
        };
        (0..self.rows.len()).into_par_iter().map(of).collect::<Vec<_>>().concat()
    }
}

/// Disjoint sets.
#[derive(Clone)]
struct Union(Vec<usize>);

impl Union {
    fn new(n: usize) -> Union {
        Union((0..n).collect())
    }

    fn root(&mut self, mut i: usize) -> usize {
        while self.0[i] != i {
            self.0[i] = self.0[self.0[i]];
            i = self.0[i];
        }
        i
    }

    /// The smaller root stays, so that classes are numbered by first members.
    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        self.0[a.max(b)] = a.min(b);
    }

    fn classes(mut self) -> Vec<usize> {
        (0..self.0.len()).map(|i| self.root(i)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(seed: u64, n: usize) -> Vec<f32> {
        let mut s = seed;
        let mut next = || {
            s = s.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (s >> 40) as f32 / (1u64 << 24) as f32 - 0.5
        };
        (0..n).map(|_| next()).collect()
    }

    fn mixed(a: &[f32], b: &[f32], share: f32) -> Vec<f32> {
        a.iter().zip(b).map(|(x, y)| x + share * y).collect()
    }

    fn sketch(inputs: Vec<f32>, outputs: Vec<f32>) -> Sketch {
        Sketch { inputs, outputs }
    }

    #[test]
    fn independent_samples_have_no_kin() {
        let all: Vec<Sketch> = (0..60).map(|i| sketch(random(i, 200), random(900 + i, 100))).collect();
        let sources: Vec<usize> = (0..60).collect();
        assert_eq!(Kin::of(&sources, &all), Kin::alone(60));
    }

    #[test]
    fn copies_count_once_even_with_a_little_noise() {
        let of = |i: u64| sketch(mixed(&random(i % 5, 200), &random(100 + i, 200), 0.01), random(i % 5, 10));
        let all: Vec<Sketch> = (0..50).map(of).collect();
        let k = Kin::of(&(0..50).collect::<Vec<_>>(), &all);
        assert_eq!((k.distinct(), k.apart(), k.copies[7]), (5, 5, 2));
        let one: Vec<Sketch> = (0..9).map(|_| sketch(vec![1.0; 30], vec![2.0; 3])).collect();
        assert_eq!(Kin::of(&(0..9).collect::<Vec<_>>(), &one).distinct(), 1);
        assert_eq!(Kin::of(&[0, 1, 0, 1], &vec![Sketch::default(); 4]).copies, [0, 1, 0, 1]);
    }

    #[test]
    fn a_large_input_that_all_samples_share_makes_them_no_copies() {
        let rated = |i: u64| [&random(i, 200)[..], &[16000.0]].concat();
        let all: Vec<Sketch> = (0..30).map(|i| sketch(rated(i), Vec::new())).collect();
        assert_eq!(Kin::of(&(0..30).collect::<Vec<_>>(), &all).distinct(), 30);
    }

    #[test]
    fn crops_of_one_photograph_are_kin_and_not_copies() {
        let of = |i: u64| {
            let part = |seed, n| mixed(&random(seed + i % 6, n), &random(50 * seed + i, n), 0.5);
            sketch(part(1000, 300), part(2000, 100))
        };
        let all: Vec<Sketch> = (0..48).map(of).collect();
        let k = Kin::of(&(0..48).collect::<Vec<_>>(), &all);
        assert_eq!((k.distinct(), k.apart()), (48, 6));
        assert!(k.clusters() && k.only(&[0, 6, 1]).apart() == 2);
        // Ten scores that agree say nothing.
        let few: Vec<Sketch> =
            all.iter().map(|s| sketch(s.inputs.clone(), s.outputs[..10].to_vec())).collect();
        assert_eq!(Kin::of(&(0..48).collect::<Vec<_>>(), &few).apart(), 48);
    }

    #[test]
    fn classes_are_averaged() {
        assert_eq!(averaged(&[1.0, 3.0, 5.0], &[0, 0, 2]), [2.0, 5.0]);
        assert_eq!(averaged(&[1.0, 3.0], &[]), [1.0, 3.0]);
    }
}
