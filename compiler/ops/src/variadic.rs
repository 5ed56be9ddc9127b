//! Element-wise operators of any number of inputs.

use crate::expr::evaluate;
use crate::unary::broadcast_type;
use crate::{Op, schema};
use ir::{Binary, Error, EvalCx, Expr, InferCx, Kind, Operator, Result, Tensor, Value, ValueType};

fn infer(cx: &InferCx) -> Result<Vec<ValueType>> {
    broadcast_type(cx, Some(0))
}

fn two(op: Binary) -> Kind {
    Kind::Elementwise(Expr::binary(op, Expr::In(0), Expr::In(1)))
}

// The expressions describe nodes of two inputs.
pub static OPERATORS: &[&dyn Operator] = &[
    &Op::new("Sum", &schema::SUM, infer, |cx| fold(cx, Binary::Add)).kind(|_| two(Binary::Add)),
    &Op::new("Max", &schema::MAX, infer, |cx| fold(cx, Binary::Max)).kind(|_| two(Binary::Max)),
    &Op::new("Min", &schema::MIN, infer, |cx| fold(cx, Binary::Min)).kind(|_| two(Binary::Min)),
    &Op::new("Mean", &schema::MEAN, infer, mean)
        .kind(|_| Kind::Elementwise(Expr::binary(Binary::Div, Expr::In(0) + Expr::In(1), Expr::Const(2.0)))),
];

fn folded(cx: &EvalCx, op: Binary) -> Result<Tensor> {
    let inputs = cx.tensors()?;
    let (first, rest) = inputs.split_first().ok_or_else(|| Error::model("needs at least one input"))?;
    let expr = Expr::binary(op, Expr::In(0), Expr::In(1));
    rest.iter().try_fold((*first).clone(), |acc, t| evaluate(&expr, &[&acc, t]))
}

fn fold(cx: &EvalCx, op: Binary) -> Result<Vec<Value>> {
    Ok(vec![Value::Tensor(folded(cx, op)?)])
}

fn mean(cx: &EvalCx) -> Result<Vec<Value>> {
    let n = cx.tensors()?.len() as f64;
    let sum = folded(cx, Binary::Add)?;
    Ok(vec![Value::Tensor(evaluate(&(Expr::In(0) / Expr::Const(n)), &[&sum])?)])
}
