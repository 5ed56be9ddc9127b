//! Slice and Split.

use crate::broadcast::axis;
use crate::movement::{strided, strides};
use crate::typing::{list, one, tensor_type};
use crate::{Op, schema};
use ir::{Accuracy, Dim, Error, EvalCx, InferCx, Kind, Operator, Result, Tensor, Value, ValueType};

pub static OPERATORS: &[&dyn Operator] = &[
    &Op::new("Slice", &schema::SLICE, infer_slice, eval_slice)
        .kind(|_| Kind::Movement)
        .shape_value(slice_dims)
        .accuracy(Accuracy::Exact),
    &Op::new("Split", &schema::SPLIT, infer_split, eval_split)
        .kind(|_| Kind::Movement)
        .shape_value(|cx| {
            let d = cx.dims(0).filter(|_| cx.rank(0) == Some(1))?;
            let sizes =
                split_sizes(d.len(), cx.ints(1), cx.attrs.int("num_outputs").ok()?, cx.outputs).ok()?;
            Some(d.get(..*sizes.first()?)?.to_vec())
        })
        .accuracy(Accuracy::Exact),
];

/// First element, step and count of a slice of a dimension of size `n` (ONNX Slice, clamping rules).
pub fn clamp(n: usize, start: i64, end: i64, step: i64) -> Result<(usize, i64, usize)> {
    let size = i64::try_from(n).map_err(|_| Error::limit("dimension too large"))?;
    let wrap = |x: i64| if x < 0 { x.saturating_add(size) } else { x };
    if step == 0 || step == i64::MIN {
        return Err(Error::model(format!("slice step {step} is not allowed")));
    }
    let (start, end) = if step > 0 {
        (wrap(start).clamp(0, size), wrap(end).clamp(0, size))
    } else {
        (wrap(start).clamp(-1, size - 1), wrap(end).clamp(-1, size - 1))
    };
    let span = if step > 0 { end - start } else { start - end };
    let count = if span <= 0 { 0 } else { (span - 1) / step.abs() + 1 };
    Ok((start.max(0) as usize, step, count as usize))
}

struct Spec {
    axis: usize,
    start: i64,
    end: i64,
    step: i64,
}

fn specs(
    rank: usize,
    starts: &[i64],
    ends: &[i64],
    axes: Option<Vec<i64>>,
    steps: Option<Vec<i64>>,
) -> Result<Vec<Spec>> {
    let axes = axes.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = steps.unwrap_or_else(|| vec![1; starts.len()]);
    if [ends.len(), axes.len(), steps.len()].iter().any(|&l| l != starts.len()) {
        return Err(Error::model("starts, ends, axes and steps differ in length"));
    }
    let mut seen = vec![false; rank];
    (0..starts.len())
        .map(|i| {
            let axis = axis(axes[i], rank)?;
            if std::mem::replace(&mut seen[axis], true) {
                return Err(Error::model(format!("axis {axis} is sliced twice")));
            }
            Ok(Spec { axis, start: starts[i], end: ends[i], step: steps[i] })
        })
        .collect()
}

fn infer_slice(cx: &InferCx) -> Result<Vec<ValueType>> {
    let dtype = cx.dtype(0)?;
    let Some(shape) = cx.shape(0) else { return Ok(vec![tensor_type(dtype, None)]) };
    let axes = if cx.has(3) { cx.ints(3) } else { Some(Vec::new()) };
    let Some(axes) = axes else {
        return Ok(vec![tensor_type(dtype, Some(vec![Dim::Unknown; shape.len()]))]);
    };
    let mut out = shape.to_vec();
    let known = (cx.ints(1), cx.ints(2), if cx.has(4) { cx.ints(4).map(Some) } else { Some(None) });
    if let (Some(s), Some(e), Some(steps)) = known {
        let axes = cx.has(3).then_some(axes);
        for p in specs(shape.len(), &s, &e, axes, steps)? {
            out[p.axis] = match &shape[p.axis] {
                Dim::Known(n) => Dim::Known(clamp(*n, p.start, p.end, p.step)?.2),
                d if p.start == 0 && p.end >= i64::from(i32::MAX) && p.step == 1 => d.clone(),
                _ => Dim::Unknown,
            };
        }
    } else if cx.has(3) {
        for a in axes {
            out[axis(a, shape.len())?] = Dim::Unknown;
        }
    } else {
        let n =
            cx.shape(1).and_then(|s| s.first()).and_then(Dim::known).unwrap_or(shape.len()).min(shape.len());
        out[..n].fill(Dim::Unknown);
    }
    Ok(vec![tensor_type(dtype, Some(out))])
}

fn slice_dims(cx: &InferCx) -> Option<Vec<Dim>> {
    let d = cx.dims(0)?;
    if cx.rank(0)? != 1 {
        return None;
    }
    let step = if cx.has(4) { *cx.ints(4)?.first()? } else { 1 };
    let (start, step, count) = clamp(d.len(), *cx.ints(1)?.first()?, *cx.ints(2)?.first()?, step).ok()?;
    (0..count as i64).map(|i| d.get(usize::try_from(start as i64 + i * step).ok()?).cloned()).collect()
}

fn eval_slice(cx: &EvalCx) -> Result<Vec<Value>> {
    let x = cx.tensor(0)?;
    let given = |i: usize| cx.has(i).then(|| list(cx, i)).transpose();
    let list = specs(x.rank(), &list(cx, 1)?, &list(cx, 2)?, given(3)?, given(4)?)?;
    let own = strides(x.shape());
    let mut shape = x.shape().to_vec();
    let mut steps: Vec<isize> = own.iter().map(|&s| s as isize).collect();
    let mut start = 0usize;
    for p in list {
        let (first, step, count) = clamp(x.shape()[p.axis], p.start, p.end, p.step)?;
        shape[p.axis] = count;
        start = start.saturating_add(first.saturating_mul(own[p.axis]));
        steps[p.axis] =
            isize::try_from(step).ok().and_then(|s| s.checked_mul(own[p.axis] as isize)).unwrap_or(0);
    }
    Ok(one(strided(x, &shape, start, &steps)?))
}

/// Sizes of the parts of a dimension of size `n`.
fn split_sizes(
    n: usize,
    split: Option<Vec<i64>>,
    num_outputs: Option<i64>,
    outputs: usize,
) -> Result<Vec<usize>> {
    if let Some(s) = split {
        let sizes: Vec<usize> = s
            .iter()
            .map(|&x| usize::try_from(x).map_err(|_| Error::model(format!("split size {x} is negative"))))
            .collect::<Result<_>>()?;
        if sizes.iter().try_fold(0usize, |a, &b| a.checked_add(b)) != Some(n) {
            return Err(Error::model(format!("split sizes {s:?} do not add up to {n}")));
        }
        return Ok(sizes);
    }
    let parts = match num_outputs {
        Some(p) => usize::try_from(p)
            .ok()
            .filter(|&p| p > 0)
            .ok_or_else(|| Error::model("num_outputs must be positive"))?,
        None => outputs.max(1),
    };
    if parts > outputs.max(1) {
        return Err(Error::model(format!("num_outputs is {parts}, the node has {outputs} outputs")));
    }
    let size = n.div_ceil(parts);
    Ok((0..parts).map(|i| size.min(n.saturating_sub(i * size))).collect())
}

fn infer_split(cx: &InferCx) -> Result<Vec<ValueType>> {
    let dtype = cx.dtype(0)?;
    let Some(shape) = cx.shape(0) else { return Ok(vec![tensor_type(dtype, None); cx.outputs]) };
    let a = axis(cx.attrs.int_or("axis", 0)?, shape.len())?;
    let with = |d: Dim| {
        let mut s = shape.to_vec();
        s[a] = d;
        tensor_type(dtype, Some(s))
    };
    let given = cx.ints(1);
    let sizes = match (&shape[a], &given) {
        (Dim::Known(n), _) if given.is_some() || !cx.has(1) => {
            Some(split_sizes(*n, given, cx.attrs.int("num_outputs")?, cx.outputs)?)
        }
        (_, Some(s)) => Some(s.iter().map(|&x| usize::try_from(x).unwrap_or(0)).collect()),
        _ => None,
    };
    Ok((0..cx.outputs)
        .map(|i| {
            with(sizes.as_ref().map_or(Dim::Unknown, |s| s.get(i).map_or(Dim::Unknown, |&n| Dim::Known(n))))
        })
        .collect())
}

fn eval_split(cx: &EvalCx) -> Result<Vec<Value>> {
    let x = cx.tensor(0)?;
    let a = axis(cx.attrs.int_or("axis", 0)?, x.rank())?;
    let sizes = split_sizes(
        x.shape()[a],
        cx.has(1).then(|| list(cx, 1)).transpose()?,
        cx.attrs.int("num_outputs")?,
        cx.outputs,
    )?;
    let (mut at, mut parts) = (0, Vec::new());
    for n in sizes {
        parts.push(Value::Tensor(section(x, a, at, n)?));
        at += n;
    }
    Ok(parts)
}

/// Entries `start..start + n` along axis `a`.
pub fn section(x: &Tensor, a: usize, start: usize, n: usize) -> Result<Tensor> {
    let own = strides(x.shape());
    let steps: Vec<isize> = own.iter().map(|&s| s as isize).collect();
    let mut shape = x.shape().to_vec();
    shape[a] = n;
    strided(x, &shape, start.saturating_mul(own[a]), &steps)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::apply;
    use ir::Attrs;

    fn slice(start: i64, end: i64, step: i64) -> Result<Vec<i64>> {
        let list = |v: i64| Tensor::vector(vec![v]);
        let x = Tensor::vector((0..5i64).collect());
        apply("Slice", Attrs::new(), &[x, list(start), list(end), list(0), list(step)])?.to_i64s()
    }

    #[test]
    fn bounds_are_clamped_and_steps_checked() {
        assert_eq!(slice(1, i64::MAX, 2).unwrap(), [1, 3]);
        assert_eq!(slice(-1, i64::MIN, -2).unwrap(), [4, 2, 0]);
        assert_eq!(slice(0, 5, i64::MAX).unwrap(), [0]);
        assert_eq!(slice(i64::MAX, 0, -i64::MAX).unwrap(), [4]);
        assert_eq!(slice(3, 1, 1).unwrap(), Vec::<i64>::new());
        assert!(slice(0, 5, 0).is_err() && slice(0, 5, i64::MIN).is_err());
    }
}
