//! Gather, GatherElements, GatherND and Compress.

use crate::broadcast::axis;
use crate::movement::{for_each, gather, gather_runs, strides, volume};
use crate::typing::{one, tensor_type};
use crate::{Op, schema};
use ir::{
    Accuracy, DType, Dim, Error, EvalCx, InferCx, Kind, Operator, Result, Tensor, Value, ValueType, budget,
};

macro_rules! row {
    ($name:literal, $sig:ident, $infer:ident, $eval:ident) => {
        Op::new($name, &schema::$sig, $infer, $eval).kind(|_| Kind::Movement).accuracy(Accuracy::Exact)
    };
}

pub static OPERATORS: &[&dyn Operator] = &[
    &row!("Gather", GATHER, infer_gather, eval_gather).shape_value(gather_dims),
    &row!("GatherElements", GATHER_ELEMENTS, infer_elements, eval_elements),
    &row!("GatherND", GATHER_ND, infer_nd, eval_nd),
    &row!("Compress", COMPRESS, infer_compress, eval_compress),
];

/// A possibly negative index into a dimension of size `n`.
pub fn wrap_index(i: i64, n: usize) -> Result<usize> {
    let j = if i < 0 { i.checked_add_unsigned(n as u64) } else { Some(i) };
    j.and_then(|j| usize::try_from(j).ok())
        .filter(|&j| j < n)
        .ok_or_else(|| Error::data(format!("index {i} is outside a dimension of size {n}")))
}

fn infer_gather(cx: &InferCx) -> Result<Vec<ValueType>> {
    let dtype = cx.dtype(0)?;
    let (Some(x), Some(i)) = (cx.shape(0), cx.shape(1)) else { return Ok(vec![tensor_type(dtype, None)]) };
    let a = axis(cx.attrs.int_or("axis", 0)?, x.len())?;
    let shape = [&x[..a], i, &x[a + 1..]].concat();
    Ok(vec![tensor_type(dtype, Some(shape))])
}

fn gather_dims(cx: &InferCx) -> Option<Vec<Dim>> {
    let (d, i) = (cx.dims(0)?, cx.ints(1)?);
    if cx.rank(0)? != 1 {
        return None;
    }
    i.into_iter().map(|i| Some(d[wrap_index(i, d.len()).ok()?].clone())).collect()
}

fn eval_gather(cx: &EvalCx) -> Result<Vec<Value>> {
    let (x, indices) = (cx.tensor(0)?, cx.tensor(1)?);
    let a = axis(cx.attrs.int_or("axis", 0)?, x.rank())?;
    let n = x.shape()[a];
    let (outer, inner) = (volume(&x.shape()[..a]), volume(&x.shape()[a + 1..]));
    let shape = [&x.shape()[..a], indices.shape(), &x.shape()[a + 1..]].concat();
    budget::bytes(x.dtype(), &shape)?;
    // Decoded weights have an index per element: they are read where they are.
    if indices.dtype() == DType::I32 {
        let at = indices.data::<i32>()?;
        at.iter().try_for_each(|&i| wrap_index(i64::from(i), n).map(drop))?;
        let place = move |i: i32| if i < 0 { n - i.unsigned_abs() as usize } else { i as usize };
        let starts = (0..outer).flat_map(|o| at.iter().map(move |&i| (o * n + place(i)) * inner));
        return Ok(one(gather_runs(x, &shape, inner, starts)?));
    }
    let at: Vec<usize> = indices.to_i64s()?.into_iter().map(|i| wrap_index(i, n)).collect::<Result<_>>()?;
    let starts = (0..outer).flat_map(|o| at.iter().map(move |&i| (o * n + i) * inner));
    Ok(one(gather_runs(x, &shape, inner, starts)?))
}

fn infer_elements(cx: &InferCx) -> Result<Vec<ValueType>> {
    Ok(vec![tensor_type(cx.dtype(0)?, cx.shape(1).map(<[Dim]>::to_vec))])
}

fn eval_elements(cx: &EvalCx) -> Result<Vec<Value>> {
    let (x, indices) = (cx.tensor(0)?, cx.tensor(1)?);
    let a = axis(cx.attrs.int_or("axis", 0)?, x.rank())?;
    if indices.rank() != x.rank() || (0..x.rank()).any(|d| d != a && indices.shape()[d] > x.shape()[d]) {
        return Err(Error::model(format!("indices {:?} do not fit data {:?}", indices.shape(), x.shape())));
    }
    let at = element_offsets(x.shape(), indices, a)?;
    Ok(one(gather(x, indices.shape(), at.into_iter())?))
}

/// For each of `indices` the element of a tensor of shape `x` that stands there but for axis `a`, where the index says.
pub(crate) fn element_offsets(x: &[usize], indices: &Tensor, a: usize) -> Result<Vec<usize>> {
    let (own, values) = (strides(x), indices.to_i64s()?);
    let mut at = budget::vec(values.len())?;
    let (Some((&row, outer)), Some(last)) = (indices.shape().split_last(), x.len().checked_sub(1)) else {
        return Err(Error::model("indices must have at least one dim"));
    };
    // The dims before a last one of zero may be of any size.
    if values.is_empty() {
        return Ok(at);
    }
    let mut rows = values.chunks_exact(row);
    let mut bad = None;
    for_each(outer, |i| {
        let base: usize =
            i.iter().zip(&own).enumerate().filter(|(d, _)| *d != a).map(|(_, (i, s))| i * s).sum();
        let along = if a == last { 0 } else { 1 };
        for (k, &v) in rows.next().unwrap_or_default().iter().enumerate() {
            match wrap_index(v, x[a]) {
                Ok(j) => at.push(base + k * along + j * own[a]),
                Err(e) => bad = Some(e),
            }
        }
    });
    bad.map_or(Ok(at), Err)
}

fn infer_nd(cx: &InferCx) -> Result<Vec<ValueType>> {
    let dtype = cx.dtype(0)?;
    let unknown = Ok(vec![tensor_type(dtype, None)]);
    let (Some(x), Some(i)) = (cx.shape(0), cx.shape(1)) else { return unknown };
    let Some((Dim::Known(k), lead)) = i.split_last() else { return unknown };
    let b = batch_dims(cx.attrs.int_or("batch_dims", 0)?, x.len(), i.len())?;
    let rest = b
        .checked_add(*k)
        .and_then(|n| x.get(n..))
        .ok_or_else(|| Error::model(format!("index tuples of {k} for {} dims", x.len())))?;
    Ok(vec![tensor_type(dtype, Some([lead, rest].concat()))])
}

fn batch_dims(b: i64, x: usize, i: usize) -> Result<usize> {
    usize::try_from(b)
        .ok()
        .filter(|&b| b < x.min(i))
        .ok_or_else(|| Error::model(format!("batch_dims {b} is out of range")))
}

/// First element of each indexed slice: index tuples of the last dim, after `batch` shared leading dims.
pub(crate) fn nd_offsets(x: &[usize], indices: &Tensor, batch: usize) -> Result<(Vec<usize>, usize, usize)> {
    let shape = indices.shape();
    let k = *shape.last().ok_or_else(|| Error::model("indices must have at least one dim"))?;
    if k > x.len() || batch + k > x.len() || batch >= shape.len() || shape[..batch] != x[..batch] {
        return Err(Error::model(format!("indices {shape:?} do not fit data {x:?}")));
    }
    let (own, values) = (strides(x), indices.to_i64s()?);
    let tuples = volume(&shape[..shape.len() - 1]);
    let batches = volume(&shape[..batch]);
    let per_batch = tuples.checked_div(batches).unwrap_or(0);
    let batch_step = volume(&x[batch..]);
    let mut at = budget::vec(tuples)?;
    for t in 0..tuples {
        let mut offset = t.checked_div(per_batch).unwrap_or(0) * batch_step;
        for j in 0..k {
            offset += wrap_index(values[t * k + j], x[batch + j])? * own[batch + j];
        }
        at.push(offset);
    }
    Ok((at, k, volume(&x[batch + k..])))
}

fn eval_nd(cx: &EvalCx) -> Result<Vec<Value>> {
    let (x, indices) = (cx.tensor(0)?, cx.tensor(1)?);
    let b = batch_dims(cx.attrs.int_or("batch_dims", 0)?, x.rank(), indices.rank())?;
    let (at, k, run) = nd_offsets(x.shape(), indices, b)?;
    let shape = [&indices.shape()[..indices.rank() - 1], &x.shape()[b + k..]].concat();
    Ok(one(gather_runs(x, &shape, run, at.into_iter())?))
}

fn infer_compress(cx: &InferCx) -> Result<Vec<ValueType>> {
    let shape = match (cx.attrs.int("axis")?, cx.shape(0)) {
        (None, _) => Some(vec![Dim::Unknown]),
        (Some(a), Some(s)) => {
            let mut s = s.to_vec();
            let a = axis(a, s.len())?;
            s[a] = Dim::Unknown;
            Some(s)
        }
        _ => None,
    };
    Ok(vec![tensor_type(cx.dtype(0)?, shape)])
}

fn eval_compress(cx: &EvalCx) -> Result<Vec<Value>> {
    let x = cx.tensor(0)?;
    let mask = cx.tensor(1)?.data::<bool>()?;
    let (shape, a) = match cx.attrs.int("axis")? {
        Some(a) => (x.shape().to_vec(), axis(a, x.rank())?),
        None => (vec![x.len()], 0),
    };
    let n = shape[a];
    let kept: Vec<usize> = mask.iter().take(n).enumerate().filter(|(_, m)| **m).map(|(i, _)| i).collect();
    let (outer, inner) = (volume(&shape[..a]), volume(&shape[a + 1..]));
    let mut out = shape.clone();
    out[a] = kept.len();
    let starts = (0..outer).flat_map(|o| kept.iter().map(move |&i| (o * n + i) * inner));
    Ok(one(gather_runs(x, &out, inner, starts)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::apply;
    use ir::Attrs;

    fn matrix() -> Tensor {
        Tensor::new::<i64>(&[2, 3], (0..6).collect()).unwrap()
    }

    #[test]
    fn indices_wrap_once_and_no_further() {
        let take = |i: i64| {
            apply("Gather", Attrs::new().with("axis", 1), &[matrix(), Tensor::vector(vec![i])])?.to_i64s()
        };
        assert_eq!(take(-1).unwrap(), [2, 5]);
        assert!(take(3).is_err() && take(-4).is_err() && take(i64::MIN).is_err());
        let at = Tensor::new::<i64>(&[1, 3], vec![1, 0, -1]).unwrap();
        assert_eq!(
            apply("GatherElements", Attrs::new(), &[matrix(), at]).unwrap().to_i64s().unwrap(),
            [3, 1, 5]
        );
    }

    #[test]
    fn tuples_index_leading_dims_after_the_batch() {
        let at = Tensor::new::<i64>(&[2, 1], vec![2, 0]).unwrap();
        let batched = Attrs::new().with("batch_dims", 1);
        assert_eq!(apply("GatherND", batched, &[matrix(), at.clone()]).unwrap().to_i64s().unwrap(), [2, 3]);
        assert!(apply("GatherND", Attrs::new(), &[matrix(), at]).is_err());
        let empty = Tensor::new::<i64>(&[1 << 40, 0], vec![]).unwrap();
        let none = apply("GatherElements", Attrs::new().with("axis", 1), &[empty.clone(), empty]).unwrap();
        assert!(none.is_empty());
        let huge = Tensor::new::<i64>(&[0, usize::MAX], vec![]).unwrap();
        assert!(apply("GatherND", Attrs::new(), &[matrix(), huge]).is_err());
    }
}
