//! Where and Clip.

use crate::broadcast::broadcast_shapes;
use crate::expr::{evaluate, for_each_index};
use crate::typing::like_first;
use crate::unary::broadcast_type;
use crate::{Op, schema};
use ir::{
    Accuracy, Binary, DType, Dim, EvalCx, Expr, InferCx, Kind, Operator, Result, Tensor, Value, ValueType,
    budget,
};

pub static OPERATORS: &[&dyn Operator] = &[
    &Op::new("Where", &schema::WHERE, infer_where, eval_where)
        .kind(|_| Kind::Elementwise(Expr::select(Expr::In(0), Expr::In(1), Expr::In(2))))
        .shape_value(where_dims)
        .accuracy(Accuracy::Exact),
    // Describes a node with both bounds; with one absent the other side is open.
    &Op::new("Clip", &schema::CLIP, like_first, eval_clip).kind(|_| Kind::Elementwise(clip(true, true))),
];

fn infer_where(cx: &InferCx) -> Result<Vec<ValueType>> {
    broadcast_type(cx, Some(1))
}

fn where_dims(cx: &InferCx) -> Option<Vec<Dim>> {
    let (c, a, b) = (cx.ints(0)?, cx.dims(1)?, cx.dims(2)?);
    let n = c.len().max(a.len()).max(b.len());
    let pick = |len: usize, i: usize| if len == 1 { Some(0) } else { Some(i).filter(|_| len == n) };
    (0..n)
        .map(|i| {
            let taken = c[pick(c.len(), i)?] != 0;
            Some(if taken { a[pick(a.len(), i)?].clone() } else { b[pick(b.len(), i)?].clone() })
        })
        .collect()
}

fn eval_where(cx: &EvalCx) -> Result<Vec<Value>> {
    let (c, a, b) = (cx.tensor(0)?, cx.tensor(1)?, cx.tensor(2)?);
    if a.dtype() != b.dtype() {
        return Err(ir::Error::model(format!("branches have types {} and {}", a.dtype(), b.dtype())));
    }
    let shape = broadcast_shapes(&[c.shape(), a.shape(), b.shape()])?;
    let n = budget::elements(&shape)?;
    let cond = c.data::<bool>()?;
    let mut from = budget::vec::<(bool, usize)>(n)?;
    for_each_index(c.shape(), &shape, |i| from.push((cond[i], 0)));
    let mut at = 0;
    for_each_index(a.shape(), &shape, |i| {
        if from[at].0 {
            from[at].1 = i;
        }
        at += 1;
    });
    at = 0;
    for_each_index(b.shape(), &shape, |i| {
        if !from[at].0 {
            from[at].1 = i;
        }
        at += 1;
    });
    Ok(vec![Value::Tensor(gather(a, b, &shape, &from)?)])
}

/// Elements of `a` (true) or `b` by index.
fn gather(a: &Tensor, b: &Tensor, shape: &[usize], from: &[(bool, usize)]) -> Result<Tensor> {
    let dtype = a.dtype();
    if dtype == DType::String {
        let (x, y) = (a.string_data()?, b.string_data()?);
        return Tensor::strings(
            shape,
            from.iter().map(|&(c, i)| if c { x[i].clone() } else { y[i].clone() }).collect(),
        );
    }
    if dtype.bits() < 8 {
        let (x, y) = (a.unpacked()?, b.unpacked()?);
        let bytes: Vec<u8> = from.iter().map(|&(c, i)| if c { x[i] } else { y[i] }).collect();
        return Tensor::from_unpacked(dtype, shape, &bytes);
    }
    let width = dtype.bits() / 8;
    let mut out = budget::vec(from.len() * width)?;
    for &(c, i) in from {
        let source = if c { a.bytes() } else { b.bytes() };
        out.extend_from_slice(&source[i * width..(i + 1) * width]);
    }
    Tensor::from_bytes(dtype, shape, out)
}

fn clip(lo: bool, hi: bool) -> Expr {
    let mut e = Expr::In(0);
    if lo {
        e = Expr::binary(Binary::Max, e, Expr::In(1));
    }
    if hi {
        e = Expr::binary(Binary::Min, e, Expr::In(if lo { 2 } else { 1 }));
    }
    e
}

fn eval_clip(cx: &EvalCx) -> Result<Vec<Value>> {
    let (x, lo, hi) = (cx.tensor(0)?, cx.optional(1)?, cx.optional(2)?);
    for b in [lo, hi].into_iter().flatten() {
        if b.len() != 1 {
            return Err(ir::Error::model(format!("a bound must be a scalar, got shape {:?}", b.shape())));
        }
    }
    let bounds: Vec<Tensor> =
        [lo, hi].into_iter().flatten().map(|b| b.reshaped(&[])).collect::<Result<_>>()?;
    let inputs: Vec<&Tensor> = std::iter::once(x).chain(&bounds).collect();
    let e = clip(lo.is_some(), hi.is_some());
    Ok(vec![Value::Tensor(if inputs.len() == 1 { x.clone() } else { evaluate(&e, &inputs)? })])
}
