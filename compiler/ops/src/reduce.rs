//! Reductions along axes: Reduce*, ArgMax and ArgMin.

use crate::arith::Number;
use crate::broadcast::axis;
use crate::typing::{one, tensor_type};
use crate::window::check_product;
use crate::{Op, schema};
use ir::{Accuracy, Attrs, DType, Dim, Error, EvalCx, InferCx, Kind, Operator, Result, Shape, Tensor};
use ir::{Value, ValueType, budget};

const fn sum(op: Op) -> Op {
    op.kind(|_| Kind::Reduce).accuracy(Accuracy::Accumulated)
}
const fn exact(op: Op) -> Op {
    op.kind(|_| Kind::Reduce).accuracy(Accuracy::Exact)
}

pub static OPERATORS: &[&dyn Operator] = &[
    &sum(Op::new("ReduceSum", &schema::REDUCE_SUM, infer, |cx| eval(cx, Fold::Sum))),
    &sum(Op::new("ReduceMean", &schema::REDUCE_MEAN, infer, |cx| eval(cx, Fold::Mean))),
    &sum(Op::new("ReduceSumSquare", &schema::REDUCE_SUM_SQUARE, infer, |cx| eval(cx, Fold::SumSquare))),
    &sum(Op::new("ReduceL1", &schema::REDUCE_L1, infer, |cx| eval(cx, Fold::L1))),
    &sum(Op::new("ReduceL2", &schema::REDUCE_L2, infer, |cx| eval(cx, Fold::L2))),
    &sum(Op::new("ReduceLogSum", &schema::REDUCE_LOG_SUM, infer, |cx| eval(cx, Fold::LogSum))),
    &sum(Op::new("ReduceLogSumExp", &schema::REDUCE_LOG_SUM_EXP, infer, |cx| eval(cx, Fold::LogSumExp))),
    &sum(Op::new("ReduceProd", &schema::REDUCE_PROD, infer, |cx| eval(cx, Fold::Prod))),
    &exact(Op::new("ReduceMax", &schema::REDUCE_MAX, infer, |cx| eval(cx, Fold::Max))),
    &exact(Op::new("ReduceMin", &schema::REDUCE_MIN, infer, |cx| eval(cx, Fold::Min))),
    &exact(Op::new("ArgMax", &schema::ARG_MAX, infer_arg, |cx| eval_arg(cx, true))),
    &exact(Op::new("ArgMin", &schema::ARG_MIN, infer_arg, |cx| eval_arg(cx, false))),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fold {
    Sum,
    Mean,
    SumSquare,
    L1,
    L2,
    LogSum,
    LogSumExp,
    Prod,
    Max,
    Min,
}

/// Which axes of a shape are reduced, and how elements map to results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reduction {
    /// Input shape.
    pub input: Shape,
    /// True for reduced axes.
    pub reduced: Vec<bool>,
    /// Output shape, with 1 for reduced axes or without them.
    pub output: Shape,
}

impl Reduction {
    /// A reduction of `input` along `axes` (negative counts from the end; `None`: all of them).
    pub fn new(input: &[usize], axes: Option<&[i64]>, keep: bool) -> Result<Reduction> {
        let reduced = reduced_axes(input.len(), axes)?;
        check_product(input.iter().copied())?;
        let output = input
            .iter()
            .zip(&reduced)
            .filter(|&(_, &r)| keep || !r)
            .map(|(&n, &r)| if r { 1 } else { n })
            .collect();
        Ok(Reduction { input: input.into(), reduced, output })
    }

    /// Elements reduced to one.
    pub fn count(&self) -> usize {
        self.input.iter().zip(&self.reduced).filter(|&(_, &r)| r).map(|(&n, _)| n).product()
    }

    /// Output step of each input axis: 0 for reduced ones.
    fn steps(&self) -> Vec<usize> {
        let mut step = 1;
        let mut steps = vec![0; self.input.len()];
        for i in (0..self.input.len()).rev().filter(|&i| !self.reduced[i]) {
            steps[i] = step;
            step *= self.input[i];
        }
        steps
    }

    /// Calls `f(first output index, output step)` for each line of the last axis, in row-major order.
    fn lines(&self, mut f: impl FnMut(usize, usize)) {
        if self.input.contains(&0) {
            return;
        }
        let steps = self.steps();
        let Some((&last, outer)) = steps.split_last() else { return f(0, 0) };
        let mut index = vec![0usize; outer.len()];
        let mut at = 0;
        let lines: usize = self.input[..outer.len()].iter().product();
        for _ in 0..lines {
            f(at, last);
            for a in (0..outer.len()).rev() {
                index[a] += 1;
                at += outer[a];
                if index[a] < self.input[a] {
                    break;
                }
                at -= outer[a] * self.input[a];
                index[a] = 0;
            }
        }
    }

    /// Folds `x` (of the input shape) in row-major order into one accumulator for each output element.
    pub fn fold<T: Copy, A: Copy>(&self, x: &[T], start: A, f: impl Fn(A, T) -> A) -> Result<Vec<A>> {
        let mut out = budget::filled(budget::elements(&self.output)?, start)?;
        let n = self.input.last().copied().unwrap_or(1);
        let mut lines = x.chunks_exact(n.max(1));
        if x.is_empty() {
            return Ok(out);
        }
        self.lines(|at, step| {
            let Some(line) = lines.next() else { return };
            if step == 0 {
                out[at] = line.iter().fold(out[at], |a, &x| f(a, x));
            } else {
                out[at..][..n].iter_mut().zip(line).for_each(|(a, &x)| *a = f(*a, x));
            }
        });
        Ok(out)
    }

    /// `x = f(x, y)` for each element of `x` and the output element it is reduced to.
    pub fn zip_back<T: Copy, A: Copy>(&self, x: &mut [T], y: &[A], f: impl Fn(T, A) -> T) {
        let n = self.input.last().copied().unwrap_or(1);
        let mut lines = x.chunks_exact_mut(n.max(1));
        self.lines(|at, step| {
            let line = lines.next().into_iter().flatten();
            line.enumerate().for_each(|(i, x)| *x = f(*x, y[at + i * step]));
        });
    }
}

fn reduced_axes(rank: usize, axes: Option<&[i64]>) -> Result<Vec<bool>> {
    let Some(axes) = axes else { return Ok(vec![true; rank]) };
    let mut reduced = vec![false; rank];
    for &a in axes {
        reduced[axis(a, rank)?] = true;
    }
    Ok(reduced)
}

/// The axes of a `Reduce*` node: `None` is all of them.
fn effective_axes(attrs: &Attrs, axes: Option<Vec<i64>>) -> Result<Option<Vec<i64>>> {
    let noop = attrs.int_or("noop_with_empty_axes", 0)? != 0;
    Ok(match axes.filter(|a| !a.is_empty()) {
        None if noop => Some(vec![]),
        a => a,
    })
}

fn infer(cx: &InferCx) -> Result<Vec<ValueType>> {
    let dtype = cx.dtype(0)?;
    let keep = cx.attrs.int_or("keepdims", 1)? != 0;
    let axes = cx.ints(1);
    let shape = match cx.shape(0) {
        Some(x) if !cx.has(1) || axes.is_some() => {
            let reduced = reduced_axes(x.len(), effective_axes(cx.attrs, axes)?.as_deref())?;
            Some(reduced_dims(x, &reduced, keep))
        }
        Some(x) if keep => Some(vec![Dim::Unknown; x.len()]),
        _ => None,
    };
    Ok(vec![tensor_type(dtype, shape)])
}

fn reduced_dims(x: &[Dim], reduced: &[bool], keep: bool) -> Vec<Dim> {
    let kept = x.iter().zip(reduced).filter(|&(_, &r)| keep || !r);
    kept.map(|(d, &r)| if r { Dim::Known(1) } else { d.clone() }).collect()
}

fn eval(cx: &EvalCx, fold: Fold) -> Result<Vec<Value>> {
    let x = cx.tensor(0)?;
    let axes = effective_axes(cx.attrs, cx.optional_ints(1)?)?;
    let keep = cx.attrs.int_or("keepdims", 1)? != 0;
    let plan = Reduction::new(x.shape(), axes.as_deref(), keep)?;
    Ok(one(match x.dtype() {
        d if d.is_float() => Tensor::from_f64s(d, &plan.output, floats(&x.to_f64s()?, &plan, fold)?)?,
        DType::U64 => unsigned(x, &plan, fold)?,
        d => {
            let mut y = integers(&<i64 as Number>::read(x)?, &plan, fold)?;
            if plan.count() == 0 && matches!(fold, Fold::Max | Fold::Min) {
                let (lo, hi) = d.int_range().unwrap_or((0, 1));
                y.fill((if fold == Fold::Max { lo } else { hi }) as i64);
            }
            Tensor::from_i64s(d, &plan.output, y)?
        }
    }))
}

fn floats(x: &[f64], plan: &Reduction, fold: Fold) -> Result<Vec<f64>> {
    let then = |mut y: Vec<f64>, f: &dyn Fn(f64) -> f64| {
        y.iter_mut().for_each(|y| *y = f(*y));
        y
    };
    let sum = |f: fn(f64) -> f64| plan.fold(x, 0.0, move |a, x| a + f(x));
    Ok(match fold {
        Fold::Sum => sum(|x| x)?,
        Fold::Mean => then(sum(|x| x)?, &|y| y / plan.count() as f64),
        Fold::SumSquare => sum(|x| x * x)?,
        Fold::L1 => sum(f64::abs)?,
        Fold::L2 => then(sum(|x| x * x)?, &f64::sqrt),
        Fold::LogSum => then(sum(|x| x)?, &f64::ln),
        Fold::LogSumExp => log_sum_exp(x, plan)?,
        Fold::Prod => plan.fold(x, 1.0, |a, x| a * x)?,
        Fold::Max => plan.fold(x, f64::NEG_INFINITY, |a, x| if x > a || x.is_nan() { x } else { a })?,
        Fold::Min => plan.fold(x, f64::INFINITY, |a, x| if x < a || x.is_nan() { x } else { a })?,
    })
}

/// Shifted by the maximum, so that large values do not overflow.
fn log_sum_exp(x: &[f64], plan: &Reduction) -> Result<Vec<f64>> {
    let max = floats(x, plan, Fold::Max)?;
    let mut shifted = x.to_vec();
    plan.zip_back(&mut shifted, &max, |x, m| if m.is_finite() { (x - m).exp() } else { x.exp() });
    let mut y = plan.fold(&shifted, 0.0, |a, x| a + x)?;
    y.iter_mut().zip(&max).for_each(|(y, m)| *y = if m.is_finite() { y.ln() + m } else { y.ln() });
    Ok(y)
}

fn integers(x: &[i64], plan: &Reduction, fold: Fold) -> Result<Vec<i64>> {
    let through_f64 = || -> Result<Vec<i64>> {
        let x: Vec<f64> = x.iter().map(|&x| x as f64).collect();
        Ok(floats(&x, plan, fold)?.into_iter().map(|y| y as i64).collect())
    };
    Ok(match fold {
        Fold::Sum => plan.fold(x, 0, i64::wrapping_add)?,
        Fold::Mean => {
            let n = plan.count() as i128;
            let sums = plan.fold(x, 0i128, |a, x| a + i128::from(x))?;
            sums.into_iter().map(|s| s.checked_div(n).unwrap_or(0) as i64).collect()
        }
        Fold::SumSquare => plan.fold(x, 0, |a: i64, x| a.wrapping_add(x.wrapping_mul(x)))?,
        Fold::L1 => plan.fold(x, 0, |a: i64, x: i64| a.wrapping_add(x.wrapping_abs()))?,
        Fold::Prod => plan.fold(x, 1, i64::wrapping_mul)?,
        Fold::Max => plan.fold(x, i64::MIN, i64::max)?,
        Fold::Min => plan.fold(x, i64::MAX, i64::min)?,
        Fold::L2 | Fold::LogSum | Fold::LogSumExp => through_f64()?,
    })
}

/// uint64 differs from int64 where order or magnitude matters.
fn unsigned(t: &Tensor, plan: &Reduction, fold: Fold) -> Result<Tensor> {
    let x = t.data::<u64>()?;
    let y = match fold {
        Fold::Max => plan.fold(&x, 0, u64::max)?,
        Fold::Min => plan.fold(&x, u64::MAX, u64::min)?,
        Fold::L1 => plan.fold(&x, 0, u64::wrapping_add)?,
        Fold::Mean => {
            let sums = plan.fold(&x, 0u128, |a, x| a + u128::from(x))?;
            sums.into_iter().map(|s| s.checked_div(plan.count() as u128).unwrap_or(0) as u64).collect()
        }
        Fold::L2 | Fold::LogSum | Fold::LogSumExp => {
            let x: Vec<f64> = x.iter().map(|&x| x as f64).collect();
            floats(&x, plan, fold)?.into_iter().map(|y| y as u64).collect()
        }
        _ => integers(&<i64 as Number>::read(t)?, plan, fold)?.into_iter().map(|y| y as u64).collect(),
    };
    Tensor::new(&plan.output, y)
}

fn infer_arg(cx: &InferCx) -> Result<Vec<ValueType>> {
    let keep = cx.attrs.int_or("keepdims", 1)? != 0;
    let shape = match cx.shape(0) {
        Some(x) => {
            let reduced = reduced_axes(x.len(), Some(&[cx.attrs.int_or("axis", 0)?]))?;
            Some(reduced_dims(x, &reduced, keep))
        }
        None => None,
    };
    Ok(vec![tensor_type(Some(DType::I64), shape)])
}

fn eval_arg(cx: &EvalCx, max: bool) -> Result<Vec<Value>> {
    let x = cx.tensor(0)?;
    let keep = cx.attrs.int_or("keepdims", 1)? != 0;
    let last = cx.attrs.int_or("select_last_index", 0)? != 0;
    let axis_attr = cx.attrs.int_or("axis", 0)?;
    let plan = Reduction::new(x.shape(), Some(&[axis_attr]), keep)?;
    let a = axis(axis_attr, x.rank())?;
    if x.shape()[a] == 0 && !plan.output.contains(&0) {
        return Err(Error::model(format!("no extremum along empty axis {a} of {:?}", x.shape())));
    }
    let inner: usize = x.shape()[a + 1..].iter().product();
    let y = match x.dtype() {
        d if d.is_float() => arg(&x.to_f64s()?, x.shape()[a], inner, max, last),
        DType::U64 => arg(&x.data::<u64>()?, x.shape()[a], inner, max, last),
        _ => arg(&<i64 as Number>::read(x)?, x.shape()[a], inner, max, last),
    };
    Ok(one(Tensor::new(&plan.output, y)?))
}

/// Position of the extremum in each line of `n` elements `inner` apart; the first NaN wins.
fn arg<T: Copy + PartialOrd>(x: &[T], n: usize, inner: usize, max: bool, last: bool) -> Vec<i64> {
    let nan = |v: T| v.partial_cmp(&v).is_none();
    let better = |new: T, old: T| {
        !nan(old) && (nan(new) || if max { new > old } else { new < old } || (last && new == old))
    };
    let mut out = Vec::with_capacity(x.len() / n.max(1));
    for block in x.chunks_exact((n * inner).max(1)) {
        for i in 0..inner {
            let best =
                (1..n).fold(0, |b, j| if better(block[j * inner + i], block[b * inner + i]) { j } else { b });
            out.push(best as i64);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn empty_reductions_give_the_neutral_element() {
        let plan = Reduction::new(&[2, 0, 3], Some(&[1]), false).unwrap();
        let y = |f| floats(&[], &plan, f).unwrap();
        assert_eq!(y(Fold::Sum), [0.0; 6]);
        assert_eq!(y(Fold::Prod), [1.0; 6]);
        assert_eq!(y(Fold::Max), [f64::NEG_INFINITY; 6]);
        assert_eq!(y(Fold::LogSumExp), [f64::NEG_INFINITY; 6]);
        assert!(y(Fold::Mean).iter().all(|v| v.is_nan()));
    }

    #[test]
    fn large_exponents_do_not_overflow() {
        let plan = Reduction::new(&[2], None, false).unwrap();
        let y = floats(&[1e4, 1e4], &plan, Fold::LogSumExp).unwrap();
        assert!((y[0] - (1e4 + 2f64.ln())).abs() < 1e-9);
        let y = floats(&[f64::INFINITY, 1.0], &plan, Fold::LogSumExp).unwrap();
        assert_eq!(y, [f64::INFINITY]);
    }

    #[test]
    fn extremum_ties_follow_select_last_index() {
        assert_eq!(arg(&[1, 3, 3, 2], 4, 1, true, false), [1]);
        assert_eq!(arg(&[1, 3, 3, 2], 4, 1, true, true), [2]);
        assert_eq!(arg(&[1.0, f64::NAN, 0.0], 3, 1, false, false), [1]);
        assert_eq!(arg(&[5, 1, 2, 9], 2, 2, true, false), [0, 1]);
    }

    proptest! {
        #[test]
        fn sums_equal_ndarray(shape in prop::collection::vec(1usize..4, 1..5), mask in 0u32..16) {
            let n: usize = shape.iter().product();
            let x: Vec<f64> = (0..n).map(|i| (i * 7 % 5) as f64).collect();
            let axes: Vec<i64> = (0..shape.len()).filter(|i| mask >> i & 1 == 1).map(|i| i as i64).collect();
            let plan = Reduction::new(&shape, Some(&axes), false).unwrap();
            let mut a = ndarray::ArrayD::from_shape_vec(shape, x.clone()).unwrap();
            for &i in axes.iter().rev() { a = a.sum_axis(ndarray::Axis(i as usize)); }
            prop_assert_eq!(&plan.output[..], a.shape());
            let want: Vec<f64> = a.iter().copied().collect();
            prop_assert_eq!(floats(&x, &plan, Fold::Sum).unwrap(), want);
        }
    }
}
