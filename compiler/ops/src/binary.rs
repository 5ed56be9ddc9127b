//! Arithmetic of two inputs with broadcasting.

use crate::expr::evaluate;
use crate::unary::broadcast_type;
use crate::{Op, schema};
use ir::{
    Accuracy, Binary, DType, Dim, Error, EvalCx, Expr, InferCx, Kind, Operator, Result, Tensor, Value,
    ValueType,
};

fn same(cx: &InferCx) -> Result<Vec<ValueType>> {
    if let (Some(a), Some(b)) = (cx.dtype(0)?, cx.dtype(1)?)
        && a != b
    {
        return Err(Error::model(format!("operands have types {a} and {b}")));
    }
    broadcast_type(cx, Some(0))
}

fn e(op: Binary) -> Kind {
    Kind::Elementwise(Expr::binary(op, Expr::In(0), Expr::In(1)))
}

macro_rules! arithmetic {
    ($name:literal, $sig:ident, $op:ident) => {
        Op::elementwise($name, &schema::$sig, same, |_| e(Binary::$op))
    };
}

pub static OPERATORS: &[&dyn Operator] = &[
    &arithmetic!("Add", ADD, Add).shape_value(|cx| shape_arithmetic(cx, usize::checked_add, 0)),
    &arithmetic!("Sub", SUB, Sub).shape_value(|cx| shape_arithmetic(cx, usize::checked_sub, 0)),
    &arithmetic!("Mul", MUL, Mul).shape_value(|cx| shape_arithmetic(cx, usize::checked_mul, 1)),
    &arithmetic!("Div", DIV, Div).shape_value(|cx| shape_arithmetic(cx, usize::checked_div, 1)),
    &arithmetic!("BitwiseAnd", BITWISE_AND, BitAnd).accuracy(Accuracy::Exact),
    &arithmetic!("BitwiseOr", BITWISE_OR, BitOr).accuracy(Accuracy::Exact),
    &arithmetic!("BitwiseXor", BITWISE_XOR, BitXor).accuracy(Accuracy::Exact),
    &Op::elementwise("BitShift", &schema::BIT_SHIFT, same, |a| {
        let left = a.str_or("direction", "LEFT").is_ok_and(|d| d == "LEFT");
        e(if left { Binary::Shl } else { Binary::Shr })
    })
    .accuracy(Accuracy::Exact),
    &Op::elementwise("Mod", &schema::MOD, same, |a| {
        e(if a.int_or("fmod", 0).unwrap_or(0) != 0 { Binary::Rem } else { Binary::Mod })
    }),
    &Op::elementwise("PRelu", &schema::P_RELU, same, |_| {
        Kind::Elementwise(Expr::select(
            Expr::In(0).lt(Expr::Const(0.0)),
            Expr::In(0) * Expr::In(1),
            Expr::In(0),
        ))
    }),
    // The exponent may be of another type than the base, so the expression holds only where they agree.
    &Op::new("Pow", &schema::POW, |cx| broadcast_type(cx, Some(0)), pow).kind(|_| e(Binary::Pow)),
];

/// Known sizes compute; a named one survives an operation that does not change it.
fn shape_arithmetic(cx: &InferCx, f: fn(usize, usize) -> Option<usize>, neutral: usize) -> Option<Vec<Dim>> {
    if !cx.dtype(0).ok()??.is_int() {
        return None;
    }
    let (a, b) = (cx.dims(0)?, cx.dims(1)?);
    let n = a.len().max(b.len());
    if (a.len() != n && a.len() != 1) || (b.len() != n && b.len() != 1) {
        return None;
    }
    let at = |v: &[Dim], i: usize| v[if v.len() == 1 { 0 } else { i }].clone();
    let one = |i: usize| match (at(&a, i), at(&b, i)) {
        (Dim::Known(x), Dim::Known(y)) => f(x, y).map_or(Dim::Unknown, Dim::Known),
        (d, Dim::Known(y)) if y == neutral => d,
        _ => Dim::Unknown,
    };
    Some((0..n).map(one).collect())
}

fn pow(cx: &EvalCx) -> Result<Vec<Value>> {
    let (x, y) = (cx.tensor(0)?, cx.tensor(1)?);
    let expr = Expr::binary(Binary::Pow, Expr::In(0), Expr::In(1));
    let power = |dtype: DType, t: &Tensor| evaluate(&Expr::cast(dtype, Expr::In(0)), &[t]);
    let result = match (x.dtype(), y.dtype()) {
        (a, b) if a == b => evaluate(&expr, &[x, y])?,
        // An integer base with a float exponent computes in double and truncates.
        (a, b) if a.is_int() && b.is_float() => {
            let r = evaluate(&expr, &[&power(DType::F64, x)?, &power(DType::F64, y)?])?;
            power(a, &r)?
        }
        (a, b) if a.is_int() && b.is_int() => {
            let r = evaluate(&expr, &[&power(DType::I64, x)?, &power(DType::I64, y)?])?;
            power(a, &r)?
        }
        (a, _) => evaluate(&expr, &[x, &power(a, y)?])?,
    };
    Ok(vec![Value::Tensor(result)])
}
