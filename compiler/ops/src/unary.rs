//! Element-wise operators of one input, each a scalar expression.

use crate::broadcast::broadcast_dims;
use crate::typing::{like_first, tensor_type};
use crate::{Op, schema};
use ir::{
    Accuracy, Attrs, Binary, DType, Dim, EvalCx, Expr, InferCx, Kind, Operator, Result, Unary, Value,
    ValueType,
};

const X: Expr = Expr::In(0);

fn c(v: f64) -> Expr {
    Expr::Const(v)
}
fn u(op: Unary, e: Expr) -> Expr {
    Expr::unary(op, e)
}
fn e(expr: Expr) -> Kind {
    Kind::Elementwise(expr)
}
/// A float attribute; one of a wrong type is refused by the verifier before it gets here.
fn f(attrs: &Attrs, name: &str, default: f32) -> Expr {
    c(f64::from(attrs.float_or(name, default).unwrap_or(default)))
}

macro_rules! plain {
    ($($name:literal $sig:ident $op:ident;)*) => { &[$(&Op::elementwise($name, &schema::$sig, like_first, |_| e(u(Unary::$op, X)))),*] };
}

/// Functions that are one scalar function.
pub static PLAIN: &[&dyn Operator] = plain! {
    "Abs" ABS Abs; "Neg" NEG Neg; "Sign" SIGN Sign; "Floor" FLOOR Floor; "Ceil" CEIL Ceil; "Round" ROUND Round;
    "Sqrt" SQRT Sqrt; "Reciprocal" RECIPROCAL Reciprocal; "Exp" EXP Exp; "Log" LOG Log;
    "Sin" SIN Sin; "Cos" COS Cos; "Tan" TAN Tan; "Asin" ASIN Asin; "Acos" ACOS Acos; "Atan" ATAN Atan;
    "Sinh" SINH Sinh; "Cosh" COSH Cosh; "Tanh" TANH Tanh; "Asinh" ASINH Asinh; "Acosh" ACOSH Acosh; "Atanh" ATANH Atanh;
    "Erf" ERF Erf; "Sigmoid" SIGMOID Sigmoid; "Not" NOT Not; "BitwiseNot" BITWISE_NOT BitNot;
};

/// Activations and other composed functions.
pub static OPERATORS: &[&dyn Operator] = &[
    &Op::new("Identity", &schema::IDENTITY, like_any, |cx| Ok(vec![cx.value(0)?.clone()]))
        .kind(|_| Kind::Movement)
        .shape_value(|cx| cx.dims(0))
        .accuracy(Accuracy::Exact),
    &Op::elementwise("Relu", &schema::RELU, like_first, |_| e(X.max(c(0.0)))),
    &Op::elementwise("LeakyRelu", &schema::LEAKY_RELU, like_first, |a| {
        e(Expr::select(X.lt(c(0.0)), f(a, "alpha", 0.01) * X, X))
    }),
    &Op::elementwise("Elu", &schema::ELU, like_first, |a| {
        e(Expr::select(X.lt(c(0.0)), f(a, "alpha", 1.0) * (u(Unary::Exp, X) - c(1.0)), X))
    }),
    &Op::elementwise("Selu", &schema::SELU, like_first, |a| {
        let (alpha, gamma) = (|| f(a, "alpha", 1.673_263_2), f(a, "gamma", 1.050_701));
        e(gamma * Expr::select(X.lt(c(0.0)), alpha() * u(Unary::Exp, X) - alpha(), X))
    }),
    &Op::elementwise("Celu", &schema::CELU, like_first, |a| {
        let alpha = || f(a, "alpha", 1.0);
        e(X.max(c(0.0)) + (alpha() * (u(Unary::Exp, X / alpha()) - c(1.0))).min(c(0.0)))
    }),
    &Op::elementwise("HardSigmoid", &schema::HARD_SIGMOID, like_first, |a| {
        e((f(a, "alpha", 0.2) * X + f(a, "beta", 0.5)).min(c(1.0)).max(c(0.0)))
    }),
    &Op::elementwise("HardSwish", &schema::HARD_SWISH, like_first, |_| {
        e(X * (X * c(1.0 / 6.0) + c(0.5)).min(c(1.0)).max(c(0.0)))
    }),
    &Op::elementwise("Softplus", &schema::SOFTPLUS, like_first, |_| e(softplus())),
    &Op::elementwise("Softsign", &schema::SOFTSIGN, like_first, |_| e(X / (u(Unary::Abs, X) + c(1.0)))),
    &Op::elementwise("Mish", &schema::MISH, like_first, |_| e(X * u(Unary::Tanh, softplus()))),
    &Op::elementwise("Gelu", &schema::GELU, like_first, |a| {
        e(if a.str_or("approximate", "none").is_ok_and(|s| s == "tanh") { gelu_tanh() } else { gelu_erf() })
    }),
    &Op::elementwise("Swish", &schema::SWISH, like_first, |a| {
        e(X * u(Unary::Sigmoid, f(a, "alpha", 1.0) * X))
    }),
    &Op::elementwise("ThresholdedRelu", &schema::THRESHOLDED_RELU, like_first, |a| {
        e(Expr::select(f(a, "alpha", 1.0).lt(X), X, c(0.0)))
    }),
    &Op::new("Shrink", &schema::SHRINK, like_first, eval_shrink).kind(|a| e(shrink(a))),
    &Op::elementwise("IsNaN", &schema::IS_NA_N, boolean, |_| e(u(Unary::IsNan, X))),
    &Op::elementwise("IsInf", &schema::IS_INF, boolean, |a| {
        let on = |n: &str| a.int_or(n, 1).unwrap_or(1) != 0;
        let inf = u(Unary::IsInf, X);
        e(match (on("detect_negative"), on("detect_positive")) {
            (true, true) => inf,
            (true, false) => Expr::binary(Binary::And, inf, X.lt(c(0.0))),
            (false, true) => Expr::binary(Binary::And, inf, c(0.0).lt(X)),
            (false, false) => X.lt(X),
        })
    }),
];

fn shrink(a: &Attrs) -> Expr {
    let (bias, lambd) = (|| f(a, "bias", 0.0), || f(a, "lambd", 0.5));
    let above = Expr::select(lambd().lt(X), X - bias(), c(0.0));
    Expr::select((X + lambd()).lt(c(0.0)), X + bias(), above)
}

/// Integers are moved as floats and rounded towards zero.
fn eval_shrink(cx: &EvalCx) -> Result<Vec<Value>> {
    let (e, dtype) = (shrink(cx.attrs), cx.tensor(0)?.dtype());
    let float = |_| Expr::cast(DType::F64, X);
    interpret(&if dtype.is_int() { Expr::cast(dtype, e.substitute(&float)) } else { e }, cx)
}

/// ln(1 + e^x) without overflow.
fn softplus() -> Expr {
    X.max(c(0.0)) + u(Unary::Log, c(1.0) + u(Unary::Exp, -u(Unary::Abs, X)))
}

pub(crate) fn gelu_erf() -> Expr {
    c(0.5) * X * (c(1.0) + u(Unary::Erf, X * c(std::f64::consts::FRAC_1_SQRT_2)))
}

pub(crate) fn gelu_tanh() -> Expr {
    let inner = c((2.0 / std::f64::consts::PI).sqrt()) * (X + c(0.044715) * X * X * X);
    c(0.5) * X * (c(1.0) + u(Unary::Tanh, inner))
}

fn like_any(cx: &InferCx) -> Result<Vec<ValueType>> {
    Ok(vec![cx.input(0)?.clone()])
}

fn boolean(cx: &InferCx) -> Result<Vec<ValueType>> {
    cx.dtype(0)?;
    Ok(vec![tensor_type(Some(DType::Bool), cx.shape(0).map(<[Dim]>::to_vec))])
}

/// All inputs broadcast together; element type of input `from`, or boolean for `None`.
pub(crate) fn broadcast_type(cx: &InferCx, from: Option<usize>) -> Result<Vec<ValueType>> {
    let dtype = match from {
        Some(i) => cx.dtype(i)?,
        None => Some(DType::Bool),
    };
    let mut shapes = Vec::new();
    for i in 0..cx.inputs.len() {
        if !cx.has(i) {
            continue;
        }
        cx.dtype(i)?;
        match cx.shape(i) {
            Some(s) => shapes.push(s),
            None => return Ok(vec![tensor_type(dtype, None)]),
        }
    }
    Ok(vec![tensor_type(dtype, Some(broadcast_dims(&shapes)?))])
}

/// One result of interpreting `expr` over all inputs.
pub(crate) fn interpret(expr: &Expr, cx: &EvalCx) -> Result<Vec<Value>> {
    Ok(vec![Value::Tensor(crate::expr::evaluate(expr, &cx.tensors()?)?)])
}

#[cfg(test)]
mod tests {
    use crate::testing::apply;
    use ir::{Attrs, Tensor};

    /// As ONNX Runtime and the reference implementation of ONNX.
    #[test]
    fn integers_shrink_by_fractions_of_one() {
        let x = Tensor::vector(vec![-4, -3, -1, 0, 1, 2, 3, 4]);
        for (bias, lambd, y) in [
            (0.7f32, 1.5f32, [-3, -2, 0, 0, 0, 1, 2, 3]),
            (-0.7, 1.5, [-4, -3, 0, 0, 0, 2, 3, 4]),
            (0.7, -1.5, [-3, -2, 0, 0, 1, 1, 2, 3]),
            (0.0, 0.5, [-4, -3, -1, 0, 1, 2, 3, 4]),
        ] {
            let attrs = Attrs::new().with("bias", bias).with("lambd", lambd);
            let shrunk = apply("Shrink", attrs, std::slice::from_ref(&x)).unwrap();
            assert_eq!(shrunk, Tensor::vector(y.to_vec()), "{bias} {lambd}");
        }
    }
}
