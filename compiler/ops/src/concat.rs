//! Concat.

use crate::broadcast::axis;
use crate::movement::assemble;
use crate::typing::{one, tensor_type};
use crate::{Op, schema};
use ir::{Accuracy, Dim, Error, EvalCx, InferCx, Kind, Operator, Result, Tensor, ValueType};

pub static OPERATORS: &[&dyn Operator] = &[&Op::new("Concat", &schema::CONCAT, infer, |cx: &EvalCx| {
    let a = cx.attrs.require_int("axis")?;
    Ok(one(concat(&cx.tensors()?, a)?))
})
.kind(|_| Kind::Movement)
.shape_value(|cx| {
    let parts: Option<Vec<Vec<Dim>>> = (0..cx.inputs.len()).map(|i| cx.dims(i)).collect();
    Some(parts?.concat())
})
.accuracy(Accuracy::Exact)];

fn infer(cx: &InferCx) -> Result<Vec<ValueType>> {
    let mut out: Option<Vec<Dim>> = None;
    let dtype = cx.dtype(0)?;
    for i in 0..cx.inputs.len() {
        if let (Some(a), Some(b)) = (dtype, cx.dtype(i)?)
            && a != b
        {
            return Err(Error::model(format!("inputs have types {a} and {b}")));
        }
        let Some(s) = cx.shape(i) else { return Ok(vec![tensor_type(dtype, None)]) };
        let a = axis(cx.attrs.require_int("axis")?, s.len())?;
        out = Some(match out {
            None => s.to_vec(),
            Some(acc) => join(acc, s, a)?,
        });
    }
    Ok(vec![tensor_type(dtype, out)])
}

fn join(acc: Vec<Dim>, s: &[Dim], a: usize) -> Result<Vec<Dim>> {
    if acc.len() != s.len() {
        return Err(Error::model("inputs differ in rank"));
    }
    acc.iter()
        .zip(s)
        .enumerate()
        .map(|(i, (x, y))| match (x, y) {
            (Dim::Known(x), Dim::Known(y)) if i == a => {
                x.checked_add(*y).map(Dim::Known).ok_or_else(|| Error::limit("a dimension overflows"))
            }
            _ if i == a => Ok(Dim::Unknown),
            _ => x.merge(y),
        })
        .collect()
}

/// Tensors of one type joined along an axis; all other dims must agree.
pub fn concat(parts: &[&Tensor], raw_axis: i64) -> Result<Tensor> {
    let first = parts.first().ok_or_else(|| Error::model("needs at least one input"))?;
    let a = axis(raw_axis, first.rank())?;
    let mut shape = first.shape().to_vec();
    shape[a] = 0;
    for t in parts {
        let same =
            t.rank() == first.rank() && (0..t.rank()).all(|i| i == a || t.shape()[i] == first.shape()[i]);
        if !same {
            return Err(Error::model(format!(
                "shapes {:?} and {:?} do not join along axis {a}",
                first.shape(),
                t.shape()
            )));
        }
        shape[a] = shape[a].checked_add(t.shape()[a]).ok_or_else(|| Error::limit("a dimension overflows"))?;
    }
    let outer: usize = shape[..a].iter().product();
    let inner: usize = shape[a + 1..].iter().product();
    let runs = (0..outer).flat_map(|o| {
        parts.iter().enumerate().map(move |(p, t)| {
            let len = t.shape()[a] * inner;
            (p, o * len, len)
        })
    });
    assemble(parts, &shape, runs)
}
