//! Support vector machines: kernels between rows and vectors, and for classes a vote of all pairs.

use super::scores::{Post, logistic, probit};
use super::{DOMAIN, FLOATS, LABELS, Label, NUMBERS, Names, a, f, rows, table};
use crate::Op;
use crate::typing::{one, tensor_type};
use ir::DType::F32;
use ir::budget;
use ir::{
    AttrKind, Attrs, Dim, Error, EvalCx, InferCx, Operator, Result, Signature, Tensor, Value, ValueType,
};

pub static OPERATORS: &[&dyn Operator] = &[
    &Op::new("SVMClassifier", &CLASSIFIER, infer_classes, classify).domain(DOMAIN),
    &Op::new("SVMRegressor", &REGRESSOR, infer_value, regress).domain(DOMAIN),
];

static CLASSIFIER: Signature = Signature {
    since: &[1],
    inputs: &[f("X", "T1", NUMBERS)],
    outputs: &[f("Y", "T2", LABELS), f("Z", "O", FLOATS)],
    attrs: &[
        a("classlabels_ints", AttrKind::Ints),
        a("classlabels_strings", AttrKind::Strs),
        a("coefficients", AttrKind::Floats),
        a("kernel_params", AttrKind::Floats),
        a("kernel_type", AttrKind::Str),
        a("post_transform", AttrKind::Str),
        a("prob_a", AttrKind::Floats),
        a("prob_b", AttrKind::Floats),
        a("rho", AttrKind::Floats),
        a("support_vectors", AttrKind::Floats),
        a("vectors_per_class", AttrKind::Ints),
    ],
};
static REGRESSOR: Signature = Signature {
    since: &[1],
    inputs: &[f("X", "T", NUMBERS)],
    outputs: &[f("Y", "O", FLOATS)],
    attrs: &[
        a("coefficients", AttrKind::Floats),
        a("kernel_params", AttrKind::Floats),
        a("kernel_type", AttrKind::Str),
        a("n_supports", AttrKind::Int),
        a("one_class", AttrKind::Int),
        a("post_transform", AttrKind::Str),
        a("rho", AttrKind::Floats),
        a("support_vectors", AttrKind::Floats),
    ],
};

fn floats<'a>(attrs: &'a Attrs, name: &str) -> Result<&'a [f32]> {
    Ok(attrs.floats(name)?.unwrap_or(&[]))
}

enum Kernel {
    Linear,
    Poly { gamma: f64, offset: f64, degree: f64 },
    Rbf { gamma: f64 },
    Sigmoid { gamma: f64, offset: f64 },
}

impl Kernel {
    fn read(attrs: &Attrs) -> Result<Kernel> {
        let params = floats(attrs, "kernel_params")?;
        let [gamma, offset, degree] = match *params {
            [] => [0.0; 3],
            [g, o, d, ..] => [g, o, d].map(f64::from),
            _ => return Err(Error::model(format!("{} kernel_params, not 3", params.len()))),
        };
        Ok(match attrs.str_or("kernel_type", "LINEAR")? {
            "LINEAR" => Kernel::Linear,
            "POLY" => Kernel::Poly { gamma, offset, degree },
            "RBF" => Kernel::Rbf { gamma },
            "SIGMOID" => Kernel::Sigmoid { gamma, offset },
            k => return Err(Error::model(format!("kernel_type '{}' is not known", k.escape_debug()))),
        })
    }

    fn of(&self, x: &[f32], v: &[f32]) -> f64 {
        let dot = || x.iter().zip(v).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
        match *self {
            Kernel::Linear => dot(),
            Kernel::Poly { gamma, offset, degree } => (gamma * dot() + offset).powf(degree),
            Kernel::Rbf { gamma } => {
                let square = |(&a, &b): (&f32, &f32)| (f64::from(a) - f64::from(b)).powi(2);
                (-gamma * x.iter().zip(v).map(square).sum::<f64>()).exp()
            }
            Kernel::Sigmoid { gamma, offset } => (gamma * dot() + offset).tanh(),
        }
    }
}

/// `n` vectors of `features` each, cut out of a list.
fn vectors(list: &[f32], n: usize, features: usize) -> Result<std::slice::ChunksExact<'_, f32>> {
    if n.checked_mul(features) != Some(list.len()) || features == 0 {
        return Err(Error::model(format!("{} numbers for {n} vectors of {features}", list.len())));
    }
    Ok(list.chunks_exact(features))
}

fn infer_value(cx: &InferCx) -> Result<Vec<ValueType>> {
    Ok(vec![tensor_type(Some(F32), Some(vec![rows(cx), Dim::Known(1)]))])
}

fn regress(cx: &EvalCx) -> Result<Vec<Value>> {
    let x = cx.tensor(0)?;
    let (rows, features) = table(x)?;
    let (data, w) = (x.to_f32s()?, floats(cx.attrs, "coefficients")?);
    let rho = *floats(cx.attrs, "rho")?.first().ok_or_else(|| Error::model("rho is empty"))?;
    let n = cx.attrs.int_or("n_supports", 0)?;
    let (kernel, support) = match usize::try_from(n) {
        Ok(0) | Err(_) => (Kernel::Linear, None),
        Ok(n) if w.len() == n => {
            (Kernel::read(cx.attrs)?, Some(vectors(floats(cx.attrs, "support_vectors")?, n, features)?))
        }
        Ok(n) => return Err(Error::model(format!("{} coefficients for {n} vectors", w.len()))),
    };
    if support.is_none() && w.len() != features {
        return Err(Error::model(format!("{} coefficients for {features} features", w.len())));
    }
    let one_class = cx.attrs.int_or("one_class", 0)? != 0;
    let mut y: Vec<f32> = budget::vec(rows)?;
    for r in 0..rows {
        let row = &data[r * features..(r + 1) * features];
        let sum = match &support {
            Some(s) => s.clone().zip(w).map(|(v, &c)| kernel.of(row, v) * f64::from(c)).sum::<f64>(),
            None => kernel.of(row, w),
        };
        let v = (sum + f64::from(rho)) as f32;
        y.push(if !one_class {
            v
        } else if v > 0.0 {
            1.0
        } else {
            -1.0
        });
    }
    Ok(one(Tensor::new(&[rows, 1], y)?))
}

/// A classifier: with one line of coefficients for each class, or with support vectors.
struct Machine {
    names: Names,
    /// Vectors of each class; none for a linear machine.
    counts: Vec<usize>,
    probabilities: bool,
    post: Post,
}

impl Machine {
    fn read(attrs: &Attrs) -> Result<Machine> {
        let names = Names::read(attrs, "classlabels_ints")?;
        let counts = attrs.ints("vectors_per_class")?.unwrap_or(&[]);
        let counts = counts.iter().map(|&c| usize::try_from(c));
        let counts: Vec<usize> =
            counts.collect::<Result<_, _>>().map_err(|_| Error::model("vectors_per_class is negative"))?;
        let all = counts.iter().try_fold(0usize, |n, &c| n.checked_add(c));
        let all = all.ok_or_else(|| Error::model("vectors_per_class has a sum out of range"))?;
        let machine = Machine {
            counts: if all == 0 { Vec::new() } else { counts },
            probabilities: !floats(attrs, "prob_a")?.is_empty(),
            post: Post::read(attrs)?,
            names,
        };
        if !machine.counts.is_empty()
            && (machine.counts.len() != machine.names.len() || machine.names.len() < 2)
        {
            return Err(Error::model(format!(
                "vectors of {} classes, labels of {}",
                machine.counts.len(),
                machine.names.len()
            )));
        }
        Ok(machine)
    }
    fn pairs(&self) -> usize {
        let n = self.names.len();
        n.saturating_mul(n.saturating_sub(1)) / 2
    }
    fn columns(&self) -> usize {
        let n = self.names.len();
        if self.counts.is_empty() || self.probabilities || n <= 2 { n } else { self.pairs() }
    }
}

fn infer_classes(cx: &InferCx) -> Result<Vec<ValueType>> {
    let m = Machine::read(cx.attrs)?;
    let n = rows(cx);
    let scores = vec![n.clone(), Dim::Known(m.columns())];
    Ok(vec![tensor_type(Some(m.names.dtype()), Some(vec![n])), tensor_type(Some(F32), Some(scores))])
}

fn first_most<T: PartialOrd + Copy>(all: &[T]) -> usize {
    let mut best = 0;
    for (i, v) in all.iter().enumerate() {
        if *v > all[best] {
            best = i;
        }
    }
    best
}

fn classify(cx: &EvalCx) -> Result<Vec<Value>> {
    let x = cx.tensor(0)?;
    let (rows, features) = table(x)?;
    let (m, data) = (Machine::read(cx.attrs)?, x.to_f32s()?);
    let (n, columns) = (m.names.len(), m.columns());
    let mut z = budget::filled(budget::elements(&[rows, columns])?, 0f32)?;
    let mut labels = budget::vec(rows)?;
    let w = floats(cx.attrs, "coefficients")?;
    let rho = floats(cx.attrs, "rho")?;
    let line = |r: usize| &data[r * features..(r + 1) * features];
    if m.counts.is_empty() {
        let rho = f64::from(*rho.first().ok_or_else(|| Error::model("rho is empty"))?);
        let all = vectors(w, n, features)?;
        let positive = w.iter().all(|&c| c >= 0.0);
        for (r, out) in z.chunks_mut(columns).enumerate() {
            let sum = |v: &[f32]| f64::from((Kernel::Linear.of(line(r), v) + rho) as f32);
            let mut scores: Vec<f64> = all.clone().map(sum).collect();
            let best = first_most(&scores);
            let sure = if positive { scores[best] >= 0.5 } else { scores[best] > 0.0 };
            labels.push(Label::Class(if n == 2 && !m.probabilities && sure { 1 } else { best }));
            match (&mut scores[..], m.post) {
                ([s], Post::Probit) => *s = probit(*s),
                ([_], _) => {}
                (all, post) => post.row(all),
            }
            out.iter_mut().zip(scores).for_each(|(o, s)| *o = s as f32);
        }
    } else {
        let pairs = Pairs::read(cx.attrs, &m, w, rho, features)?;
        for (r, out) in z.chunks_mut(columns).enumerate() {
            let (votes, mut scores) = pairs.scores(line(r));
            labels.push(Label::Class(first_most(&votes)));
            if let Some((a, b)) = pairs.probabilities {
                scores = probabilities(n, &scores, a, b);
                m.post.row(&mut scores);
            } else if let [s] = scores[..] {
                scores = match m.post {
                    Post::Plain => vec![-s, s],
                    Post::Logistic => vec![logistic(-s), logistic(s)],
                    Post::Probit => vec![probit(s); 2],
                    Post::Softmax | Post::SoftmaxZero => vec![1.0 - s, s],
                };
            } else {
                m.post.row(&mut scores);
            }
            out.iter_mut().zip(scores).for_each(|(o, s)| *o = s as f32);
        }
    }
    Ok(vec![m.names.of(&labels)?.into(), Tensor::new(&[rows, columns], z)?.into()])
}

/// One machine for each pair of classes, on support vectors that all share.
struct Pairs<'a> {
    kernel: Kernel,
    support: std::slice::ChunksExact<'a, f32>,
    /// Where the vectors of each class are.
    ranges: Vec<std::ops::Range<usize>>,
    /// A line of coefficients for each class but one.
    weights: &'a [f32],
    rho: &'a [f32],
    probabilities: Option<(&'a [f32], &'a [f32])>,
}

impl<'a> Pairs<'a> {
    fn read(
        attrs: &'a Attrs,
        m: &Machine,
        weights: &'a [f32],
        rho: &'a [f32],
        features: usize,
    ) -> Result<Pairs<'a>> {
        let mut at = 0;
        let ranges: Vec<_> = m
            .counts
            .iter()
            .map(|&c| {
                at += c;
                at - c..at
            })
            .collect();
        let (a, b) = (floats(attrs, "prob_a")?, floats(attrs, "prob_b")?);
        let lines = at.checked_mul(m.names.len() - 1);
        let fits = lines.is_some_and(|n| weights.len() >= n) && rho.len() >= m.pairs() && a.len() == b.len();
        if !fits || (m.probabilities && a.len() < m.pairs()) {
            return Err(Error::model(format!(
                "{} coefficients, {} rho, {} prob_a and {} prob_b for {} classes and {at} vectors",
                weights.len(),
                rho.len(),
                a.len(),
                b.len(),
                m.names.len()
            )));
        }
        Ok(Pairs {
            kernel: Kernel::read(attrs)?,
            support: vectors(floats(attrs, "support_vectors")?, at, features)?,
            ranges,
            weights,
            rho,
            probabilities: m.probabilities.then_some((a, b)),
        })
    }

    /// Votes for each class, and the sum of each pair.
    fn scores(&self, row: &[f32]) -> (Vec<usize>, Vec<f64>) {
        let kernels: Vec<f64> =
            self.support.clone().map(|v| f64::from(self.kernel.of(row, v) as f32)).collect();
        let (classes, total) = (self.ranges.len(), kernels.len());
        let (mut votes, mut scores) = (vec![0usize; classes], Vec::new());
        let part = |line: usize, of: &std::ops::Range<usize>| -> f64 {
            let w = &self.weights[line * total + of.start..line * total + of.end];
            w.iter().zip(&kernels[of.clone()]).map(|(&w, k)| f64::from(w) * k).sum()
        };
        for i in 0..classes - 1 {
            for j in i + 1..classes {
                let sum = part(j - 1, &self.ranges[i]) + part(i, &self.ranges[j]);
                let sum = sum + f64::from(self.rho[scores.len()]);
                votes[if sum > 0.0 { i } else { j }] += 1;
                scores.push(f64::from(sum as f32));
            }
        }
        (votes, scores)
    }
}

/// Probabilities of classes from those of pairs, by the iteration of Wu, Lin and Weng that trains such models.
fn probabilities(n: usize, scores: &[f64], a: &[f32], b: &[f32]) -> Vec<f64> {
    const LEAST: f64 = 1e-7;
    const ROUNDS: usize = 100;
    let mut r = vec![0f64; n * n];
    let mut k = 0;
    for i in 0..n - 1 {
        for j in i + 1..n {
            let p = 1.0 - logistic(scores[k] * f64::from(a[k]) + f64::from(b[k]));
            let p = p.clamp(LEAST, 1.0 - LEAST);
            (r[i * n + j], r[j * n + i]) = (p, 1.0 - p);
            k += 1;
        }
    }
    let mut q = vec![0f64; n * n];
    for i in 0..n {
        for j in (0..n).filter(|&j| j != i) {
            q[i * n + i] += r[j * n + i] * r[j * n + i];
            q[i * n + j] = -r[j * n + i] * r[i * n + j];
        }
    }
    let mut p = vec![1.0 / n as f64; n];
    for _ in 0..ROUNDS {
        let mut qp: Vec<f64> =
            q.chunks(n).map(|line| line.iter().zip(&p).map(|(q, p)| q * p).sum()).collect();
        let mut pqp: f64 = p.iter().zip(&qp).map(|(p, q)| p * q).sum();
        let error = qp.iter().fold(0f64, |e, q| e.max((q - pqp).abs()));
        if error < 0.005 / n as f64 {
            break;
        }
        for i in 0..n {
            let own = q[i * n + i];
            let step = (pqp - qp[i]) / own;
            p[i] += step;
            let scale = 1.0 + step;
            pqp = (pqp + step * (step * own + 2.0 * qp[i])) / scale / scale;
            for j in 0..n {
                qp[j] = (qp[j] + step * q[i * n + j]) / scale;
                p[j] /= scale;
            }
        }
    }
    p
}
