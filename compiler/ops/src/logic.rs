//! Comparisons and boolean connectives.

use crate::broadcast::broadcast_shapes;
use crate::expr::for_each_index;
use crate::unary::{broadcast_type, interpret};
use crate::{Op, schema};
use ir::{Accuracy, Binary, DType, EvalCx, Expr, InferCx, Kind, Operator, Result, Tensor, Value, ValueType};

fn boolean(cx: &InferCx) -> Result<Vec<ValueType>> {
    broadcast_type(cx, None)
}

fn expr(op: Binary) -> Expr {
    Expr::binary(op, Expr::In(0), Expr::In(1))
}

macro_rules! row {
    ($name:literal, $sig:ident, $op:ident) => {
        Op::elementwise($name, &schema::$sig, boolean, |_| Kind::Elementwise(expr(Binary::$op)))
            .accuracy(Accuracy::Exact)
    };
}

pub static OPERATORS: &[&dyn Operator] = &[
    &row!("And", AND, And),
    &row!("Or", OR, Or),
    &row!("Xor", XOR, Xor),
    &row!("Less", LESS, Lt),
    &row!("LessOrEqual", LESS_OR_EQUAL, Le),
    &row!("Greater", GREATER, Gt),
    &row!("GreaterOrEqual", GREATER_OR_EQUAL, Ge),
    &Op::new("Equal", &schema::EQUAL, boolean, equal)
        .kind(|_| Kind::Elementwise(expr(Binary::Eq)))
        .accuracy(Accuracy::Exact),
];

fn equal(cx: &EvalCx) -> Result<Vec<Value>> {
    let (a, b) = (cx.tensor(0)?, cx.tensor(1)?);
    if a.dtype() != DType::String {
        return interpret(&expr(Binary::Eq), cx);
    }
    let shape = broadcast_shapes(&[a.shape(), b.shape()])?;
    let (x, y) = (a.string_data()?, b.string_data()?);
    let mut left = Vec::new();
    for_each_index(a.shape(), &shape, |i| left.push(i));
    let mut result = Vec::with_capacity(left.len());
    let mut at = left.into_iter();
    for_each_index(b.shape(), &shape, |j| result.push(at.next().is_some_and(|i| x[i] == y[j])));
    Ok(vec![Value::Tensor(Tensor::new(&shape, result)?)])
}
