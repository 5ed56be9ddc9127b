//! Einsum: the Einstein summation convention over any number of operands, contracted pairwise as matrix products.

use crate::arith::{Number, Strided, by_number};
use crate::typing::{one, tensor_type};
use crate::{Op, schema};
use ir::{Accuracy, Dim, Error, EvalCx, InferCx, Kind, Operator, Result, Tensor, Value, ValueType, budget};
use std::collections::{BTreeMap, BTreeSet};

pub static OPERATORS: &[&dyn Operator] = &[&Op::new("Einsum", &schema::EINSUM, infer, eval)
    .kind(|_| Kind::Contract)
    .accuracy(Accuracy::Accumulated)];

/// An index of the summation: a letter, or a dimension of the ellipsis (256 and up, leftmost first).
pub type Label = u32;
const ELLIPSIS: Label = 256;

/// One term of an equation: letters before and after the ellipsis, if there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    before: Vec<Label>,
    after: Option<Vec<Label>>,
}

impl Term {
    fn parse(s: &str) -> Result<Term> {
        let bad = |c: char| Error::model(format!("einsum term '{}': unexpected {c:?}", s.escape_debug()));
        let mut t = Term { before: vec![], after: None };
        let mut chars = s.chars().filter(|&c| c != ' ');
        while let Some(c) = chars.next() {
            match c {
                'a'..='z' | 'A'..='Z' => t.after.as_mut().unwrap_or(&mut t.before).push(u32::from(c)),
                '.' if t.after.is_none() && chars.next() == Some('.') && chars.next() == Some('.') => {
                    t.after = Some(vec![]);
                }
                c => return Err(bad(c)),
            }
        }
        Ok(t)
    }

    fn letters(&self) -> usize {
        self.before.len() + self.after.as_ref().map_or(0, Vec::len)
    }

    /// Labels with `n` dimensions under the ellipsis, out of `most` in any operand.
    fn labels(&self, n: usize, most: usize) -> Vec<Label> {
        let mut out = self.before.clone();
        if let Some(after) = &self.after {
            out.extend((most - n..most).map(|i| ELLIPSIS + i as Label));
            out.extend(after);
        }
        out
    }
}

/// An equation fitted to the ranks of its operands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Equation {
    /// Labels of each operand's dimensions; repeated ones take the diagonal.
    pub inputs: Vec<Vec<Label>>,
    /// Labels of the result's dimensions, each once.
    pub output: Vec<Label>,
}

impl Equation {
    /// Parses `equation` for operands of these ranks.
    pub fn parse(equation: &str, ranks: &[usize]) -> Result<Equation> {
        let (left, right) = match equation.split_once("->") {
            Some((l, r)) => (l, Some(r)),
            None => (equation, None),
        };
        let terms: Vec<Term> = left.split(',').map(Term::parse).collect::<Result<_>>()?;
        if terms.len() != ranks.len() {
            return Err(Error::model(format!(
                "einsum names {} terms for {} operands",
                terms.len(),
                ranks.len()
            )));
        }
        let mut extra = vec![];
        for (t, &rank) in terms.iter().zip(ranks) {
            let n = rank.checked_sub(t.letters()).filter(|&n| n == 0 || t.after.is_some());
            extra.push(n.ok_or_else(|| {
                Error::model(format!("einsum term of {} letters does not fit rank {rank}", t.letters()))
            })?);
        }
        let most = extra.iter().copied().max().unwrap_or(0);
        let inputs: Vec<Vec<Label>> = terms.iter().zip(&extra).map(|(t, &n)| t.labels(n, most)).collect();
        let output = match right {
            Some(r) => Term::parse(r)?.labels(most, most),
            None => implicit_output(&inputs, most),
        };
        let known: BTreeSet<Label> = inputs.iter().flatten().copied().collect();
        let unique: BTreeSet<Label> = output.iter().copied().collect();
        if unique.len() != output.len() || !unique.is_subset(&known) {
            return Err(Error::model("einsum output repeats a letter or names one that no operand has"));
        }
        Ok(Equation { inputs, output })
    }
}

/// Ellipsis dimensions, then letters that occur once, in ASCII order.
fn implicit_output(inputs: &[Vec<Label>], most: usize) -> Vec<Label> {
    let mut count = BTreeMap::<Label, usize>::new();
    inputs.iter().flatten().for_each(|&l| *count.entry(l).or_default() += 1);
    let once = count.into_iter().filter(|&(l, n)| l < ELLIPSIS && n == 1).map(|(l, _)| l);
    (0..most).map(|i| ELLIPSIS + i as Label).chain(once).collect()
}

fn infer(cx: &InferCx) -> Result<Vec<ValueType>> {
    let equation =
        cx.attrs.str("equation")?.ok_or_else(|| Error::model("attribute 'equation' is missing"))?;
    let dtype = cx.dtype(0)?;
    let shapes: Option<Vec<&[Dim]>> = (0..cx.inputs.len()).map(|i| cx.shape(i)).collect();
    let Some(shapes) = shapes else { return Ok(vec![tensor_type(dtype, None)]) };
    let ranks: Vec<usize> = shapes.iter().map(|s| s.len()).collect();
    let eq = Equation::parse(equation, &ranks)?;
    let mut sizes = BTreeMap::<Label, Dim>::new();
    for (labels, shape) in eq.inputs.iter().zip(&shapes) {
        for (&l, d) in labels.iter().zip(*shape) {
            let merged = match sizes.get(&l) {
                None => d.clone(),
                Some(Dim::Known(1)) => d.clone(),
                Some(old) if *d == Dim::Known(1) => old.clone(),
                Some(old @ Dim::Known(_)) if d.known().is_none() => old.clone(),
                Some(Dim::Symbol(a)) if !matches!(d, Dim::Symbol(b) if a == b) && d.known().is_none() => {
                    Dim::Unknown
                }
                Some(old) => old.merge(d)?,
            };
            sizes.insert(l, merged);
        }
    }
    let shape = eq.output.iter().map(|l| sizes.get(l).cloned().unwrap_or(Dim::Unknown)).collect();
    Ok(vec![tensor_type(dtype, Some(shape))])
}

fn eval(cx: &EvalCx) -> Result<Vec<Value>> {
    let equation =
        cx.attrs.str("equation")?.ok_or_else(|| Error::model("attribute 'equation' is missing"))?;
    let tensors = cx.tensors()?;
    let first = tensors.first().ok_or_else(|| Error::model("Einsum needs an operand"))?;
    if tensors.iter().any(|t| t.dtype() != first.dtype()) {
        return Err(Error::model("operands of Einsum must share one element type"));
    }
    Ok(one(by_number!(first.dtype(), einsum(equation, &tensors))?))
}

/// A row-major operand and the labels of its dimensions, each once.
struct Operand<T> {
    labels: Vec<Label>,
    dims: Vec<usize>,
    data: Vec<T>,
}

impl<T: Number> Operand<T> {
    fn strides(&self) -> Vec<usize> {
        let mut step = 1;
        let mut s = vec![0; self.dims.len()];
        for (s, &d) in s.iter_mut().zip(&self.dims).rev() {
            *s = step;
            step *= d;
        }
        s
    }

    /// The elements with dimensions in the order of `labels`, and the product of each group of sizes.
    fn permuted(&self, labels: &[Label]) -> Result<Operand<T>> {
        let strides = self.strides();
        let at = |l: &Label| self.labels.iter().position(|m| m == l);
        let axes: Option<Vec<usize>> = labels.iter().map(at).collect();
        let axes = axes.ok_or_else(|| Error::internal("einsum lost a label"))?;
        let walk: Vec<(usize, usize)> = axes.iter().map(|&a| (self.dims[a], strides[a])).collect();
        Ok(Operand {
            labels: labels.to_vec(),
            dims: walk.iter().map(|w| w.0).collect(),
            data: strided_copy(&self.data, &walk)?,
        })
    }

    /// Sums over every label not in `keep`.
    fn summed(self, keep: &BTreeSet<Label>) -> Result<Operand<T>> {
        let (kept, gone): (Vec<Label>, Vec<Label>) = self.labels.iter().partition(|l| keep.contains(l));
        if gone.is_empty() {
            return Ok(self);
        }
        let p = self.permuted(&kept.iter().chain(&gone).copied().collect::<Vec<_>>())?;
        let (dims, over) = p.dims.split_at(kept.len());
        let n: usize = over.iter().product();
        let mut data = budget::filled(budget::elements(dims)?, T::ZERO)?;
        for (y, x) in data.iter_mut().zip(p.data.chunks_exact(n.max(1))) {
            *y = x.iter().fold(T::ZERO, |a, &b| a.plus(b));
        }
        Ok(Operand { labels: kept, dims: dims.to_vec(), data })
    }
}

/// Elements at every index of dims with (size, stride), row-major.
fn strided_copy<T: Copy>(data: &[T], dims: &[(usize, usize)]) -> Result<Vec<T>> {
    let sizes: Vec<usize> = dims.iter().map(|d| d.0).collect();
    let mut out = budget::vec(budget::elements(&sizes)?)?;
    if !sizes.contains(&0) {
        copy_dims(data, dims, 0, &mut out);
    }
    Ok(out)
}

fn copy_dims<T: Copy>(data: &[T], dims: &[(usize, usize)], at: usize, out: &mut Vec<T>) {
    match dims {
        [] => out.push(data[at]),
        [(n, 1)] => out.extend_from_slice(&data[at..][..*n]),
        [(n, s)] => out.extend((0..*n).map(|i| data[at + i * s])),
        [(n, s), rest @ ..] => (0..*n).for_each(|i| copy_dims(data, rest, at + i * s, out)),
    }
}

fn einsum<T: Number>(equation: &str, tensors: &[&Tensor]) -> Result<Tensor> {
    let ranks: Vec<usize> = tensors.iter().map(|t| t.rank()).collect();
    let eq = Equation::parse(equation, &ranks)?;
    let sizes = label_sizes(&eq, tensors)?;
    let mut operands = vec![];
    for (labels, t) in eq.inputs.iter().zip(tensors) {
        operands.push(diagonal::<T>(labels, t, &sizes)?);
    }
    let wanted = |rest: &[Operand<T>]| -> BTreeSet<Label> {
        rest.iter().flat_map(|o| &o.labels).chain(&eq.output).copied().collect()
    };
    operands.reverse();
    let mut acc = operands.pop().ok_or_else(|| Error::model("Einsum needs an operand"))?;
    while let Some(next) = operands.pop() {
        let later = wanted(&operands);
        let with = |o: &Operand<T>| later.iter().chain(&o.labels).copied().collect::<BTreeSet<_>>();
        let (keep_acc, keep_next) = (with(&next), with(&acc));
        acc = contract(acc.summed(&keep_acc)?, next.summed(&keep_next)?, &later)?;
    }
    let y = acc.summed(&wanted(&[]))?.permuted(&eq.output)?;
    T::write(tensors[0].dtype(), &y.dims, y.data)
}

fn label_sizes(eq: &Equation, tensors: &[&Tensor]) -> Result<BTreeMap<Label, usize>> {
    let mut sizes = BTreeMap::new();
    for (&l, &d) in eq.inputs.iter().zip(tensors).flat_map(|(labels, t)| labels.iter().zip(t.shape())) {
        let size = sizes.entry(l).or_insert(d);
        if *size == 1 {
            *size = d;
        } else if d != 1 && d != *size {
            return Err(Error::model(format!("einsum dimension has size {size} and {d}")));
        }
    }
    Ok(sizes)
}

/// The operand with repeated labels reduced to their diagonal and broadcast dimensions dropped.
fn diagonal<T: Number>(labels: &[Label], t: &Tensor, sizes: &BTreeMap<Label, usize>) -> Result<Operand<T>> {
    let whole = Operand { labels: labels.to_vec(), dims: t.shape().to_vec(), data: T::read(t)?.into_owned() };
    if whole.data.is_empty() {
        // Nothing to read: every product and sum over it is empty or zero.
        let unique: BTreeSet<Label> = labels.iter().copied().collect();
        let dims = unique.iter().map(|l| sizes[l]).collect::<Vec<_>>();
        return match budget::elements(&dims)? {
            0 => Ok(Operand { labels: unique.into_iter().collect(), dims, data: vec![] }),
            _ => Err(Error::model("einsum dimension of size 0 cannot broadcast")),
        };
    }
    let strides = whole.strides();
    let mut walk: Vec<(Label, usize, usize)> = vec![];
    for ((&l, &d), s) in labels.iter().zip(t.shape()).zip(strides) {
        match walk.iter_mut().find(|w| w.0 == l) {
            _ if d == 1 && sizes[&l] != 1 => {}
            Some(w) => w.2 += s,
            None => walk.push((l, d, s)),
        }
    }
    let dims: Vec<(usize, usize)> = walk.iter().map(|w| (w.1, w.2)).collect();
    Ok(Operand {
        labels: walk.iter().map(|w| w.0).collect(),
        dims: dims.iter().map(|d| d.0).collect(),
        data: strided_copy(&whole.data, &dims)?,
    })
}

/// The product of two operands, summed over shared labels that nothing later needs.
fn contract<T: Number>(a: Operand<T>, b: Operand<T>, later: &BTreeSet<Label>) -> Result<Operand<T>> {
    let (shared, a_only): (Vec<Label>, Vec<Label>) = a.labels.iter().partition(|l| b.labels.contains(l));
    let (batch, inner): (Vec<Label>, Vec<Label>) = shared.into_iter().partition(|l| later.contains(l));
    let b_only: Vec<Label> = b.labels.iter().copied().filter(|l| !a.labels.contains(l)).collect();
    let a = a.permuted(&[&batch[..], &a_only, &inner].concat())?;
    let b = b.permuted(&[&batch[..], &inner, &b_only].concat())?;
    let size = |o: &Operand<T>, from: usize, n: usize| o.dims[from..from + n].iter().product::<usize>();
    let labels = [&batch[..], &a_only, &b_only].concat();
    let dims = [&a.dims[..batch.len() + a_only.len()], &b.dims[batch.len() + inner.len()..]].concat();
    let mut data = budget::filled(budget::elements(&dims)?, T::ZERO)?;
    if !data.is_empty() && !a.data.is_empty() && !b.data.is_empty() {
        let m = size(&a, batch.len(), a_only.len());
        let k = size(&b, batch.len(), inner.len());
        let n = size(&b, batch.len() + inner.len(), b_only.len());
        let pairs = a.data.chunks_exact(m * k).zip(b.data.chunks_exact(k * n));
        for (c, (a, b)) in data.chunks_exact_mut(m * n).zip(pairs) {
            T::gemm([m, k, n], Strided(a, k, 1), Strided(b, n, 1), c, n)?;
        }
    }
    Ok(Operand { labels, dims, data })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(equation: &str, operands: &[(&[usize], &[i64])]) -> Result<(Vec<usize>, Vec<i64>)> {
        let t: Vec<Tensor> = operands.iter().map(|(s, d)| Tensor::new(s, d.to_vec()).unwrap()).collect();
        let y = einsum::<i64>(equation, &t.iter().collect::<Vec<_>>())?;
        Ok((y.shape().to_vec(), y.to_i64s()?))
    }

    #[test]
    fn contractions_follow_the_convention() {
        let m: (&[usize], &[i64]) = (&[2, 2], &[1, 2, 3, 4]);
        assert_eq!(run("ij->ji", &[m]).unwrap(), (vec![2, 2], vec![1, 3, 2, 4]));
        assert_eq!(run("ii", &[m]).unwrap(), (vec![], vec![5]));
        assert_eq!(run("ii->i", &[m]).unwrap(), (vec![2], vec![1, 4]));
        assert_eq!(run("ij, jk", &[m, m]).unwrap(), (vec![2, 2], vec![7, 10, 15, 22]));
        assert_eq!(run("ij,kj,j->ik", &[m, m, (&[2], &[1, -1])]).unwrap().1, [-3, -5, -5, -7]);
        assert_eq!(run("i,j", &[(&[2], &[1, 2]), (&[1], &[3])]).unwrap(), (vec![2, 1], vec![3, 6]));
    }

    #[test]
    fn ellipsis_broadcasts_from_the_right() {
        let a: (&[usize], &[i64]) = (&[2, 1, 2], &[1, 2, 3, 4]);
        let b: (&[usize], &[i64]) = (&[2, 3], &[1, 0, 1, 0, 1, 1]);
        assert_eq!(run("...ij,...jk->...ik", &[a, b]).unwrap(), (vec![2, 1, 3], vec![1, 2, 3, 3, 4, 7]));
        assert_eq!(run("...->...", &[a]).unwrap().0, [2, 1, 2]);
    }

    #[test]
    fn malformed_equations_are_errors() {
        let m: (&[usize], &[i64]) = (&[2, 2], &[1, 2, 3, 4]);
        for e in ["", "i", "ijk", "ij->k", "ij->ii", "i.j", "ij..", "ij,ij", "i1", "ij->i->j", "......ij"] {
            assert!(run(e, &[m]).is_err(), "{e}");
        }
        assert!(run("ij,jk", &[m, (&[3, 1], &[1, 2, 3])]).is_err());
    }

    #[test]
    fn empty_sums_are_zero() {
        assert_eq!(run("ij,jk", &[(&[2, 0], &[]), (&[0, 1], &[])]).unwrap(), (vec![2, 1], vec![0, 0]));
        assert_eq!(run("ij->i", &[(&[2, 0], &[])]).unwrap(), (vec![2], vec![0, 0]));
    }
}
