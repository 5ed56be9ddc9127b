//! Gated linear units: SwiGLU.

use crate::arith::{Real, by_real};
use crate::typing::{like_first, one};
use crate::{Op, schema};
use ir::{Attrs, Error, EvalCx, Expr, Kind, Operator, Result, Tensor, Unary, Value};

pub static OPERATORS: &[&dyn Operator] =
    &[&Op::new("SwiGLU", &schema::SWI_GLU, like_first, eval).kind(|a| Kind::Elementwise(expr(a)))];

/// a·sigmoid(alpha·a)·b
fn expr(attrs: &Attrs) -> Expr {
    let alpha = f64::from(attrs.float_or("alpha", 1.0).unwrap_or(1.0));
    let gate = Expr::unary(Unary::Sigmoid, Expr::Const(alpha) * Expr::In(0));
    Expr::In(0) * gate * Expr::In(1)
}

fn eval(cx: &EvalCx) -> Result<Vec<Value>> {
    let (a, b) = (cx.tensor(0)?, cx.tensor(1)?);
    if a.shape() != b.shape() || a.dtype() != b.dtype() {
        return Err(Error::model(format!("gate {a:?} and value {b:?} must share one type and shape")));
    }
    let alpha = cx.attrs.float_or("alpha", 1.0)?;
    Ok(one(by_real!(a.dtype(), swiglu(a, b, alpha))?))
}

fn swiglu<T: Real>(a: &Tensor, b: &Tensor, alpha: f32) -> Result<Tensor> {
    let mut y = T::read(a)?.into_owned();
    let alpha = T::of(f64::from(alpha));
    y.iter_mut().zip(T::read(b)?.iter()).for_each(|(a, &b)| *a = *a / (T::ONE + (-(alpha * *a)).exp()) * b);
    T::write(a.dtype(), a.shape(), y)
}
