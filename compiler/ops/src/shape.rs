//! Shape and Size.

use crate::typing::{one, tensor_type};
use crate::{Op, schema};
use ir::{Accuracy, Attrs, DType, Dim, EvalCx, InferCx, Kind, Operator, Result, Tensor, Value, ValueType};

pub static OPERATORS: &[&dyn Operator] = &[
    &Op::new("Shape", &schema::SHAPE, infer_shape, eval_shape)
        .shape_value(|cx| {
            let s = cx.shape(0)?;
            let (a, b) = range(cx.attrs, s.len()).ok()?;
            Some(s[a..b].to_vec())
        })
        .accuracy(Accuracy::Exact),
    &Op::new(
        "Size",
        &schema::SIZE,
        |_| Ok(vec![ValueType::known(DType::I64, &[])]),
        |cx| Ok(one(Tensor::scalar(cx.tensor(0)?.len() as i64))),
    )
    .shape_value(|cx| {
        let s = cx.shape(0)?.iter().map(Dim::known).collect::<Option<Vec<_>>>()?;
        Some(vec![Dim::Known(ir::budget::elements(&s).ok()?)])
    })
    .accuracy(Accuracy::Exact)
    .kind(|_| Kind::Opaque),
];

/// `start` and `end` clamped into `0..=rank`, in order.
fn range(attrs: &Attrs, rank: usize) -> Result<(usize, usize)> {
    let r = rank as i64;
    let clamp = |x: i64| (if x < 0 { x.saturating_add(r) } else { x }).clamp(0, r) as usize;
    let start = clamp(attrs.int_or("start", 0)?);
    let end = clamp(attrs.int_or("end", r)?);
    Ok((start, end.max(start)))
}

fn infer_shape(cx: &InferCx) -> Result<Vec<ValueType>> {
    let n = match cx.rank(0) {
        Some(r) => {
            let (a, b) = range(cx.attrs, r)?;
            Dim::Known(b - a)
        }
        None => Dim::Unknown,
    };
    Ok(vec![tensor_type(Some(DType::I64), Some(vec![n]))])
}

fn eval_shape(cx: &EvalCx) -> Result<Vec<Value>> {
    let s = cx.tensor(0)?.shape();
    let (a, b) = range(cx.attrs, s.len())?;
    Ok(one(Tensor::vector(s[a..b].iter().map(|&d| d as i64).collect())))
}
