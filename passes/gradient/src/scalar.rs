//! Derivatives of scalar expressions, for every element-wise operator at once.

use crate::build::Build;
use crate::rules::Cx;
use ir::{Attrs, Binary, DType, Error, Expr, Kind, Node, Result, Unary, ValueId};

/// What an element-wise node computes from its inputs, by position.
pub fn expression(node: &Node) -> Option<Expr> {
    let present: Vec<usize> = (0..node.inputs().len()).filter(|&i| node.input(i).is_some()).collect();
    let fold = |op| present.iter().map(|&i| Expr::In(i)).reduce(|a, b| Expr::binary(op, a, b));
    match (node.op.domain(), node.op.name()) {
        ("", "Sum") => fold(Binary::Add),
        ("", "Max") => fold(Binary::Max),
        ("", "Min") => fold(Binary::Min),
        ("", "Mean") => fold(Binary::Add).map(|sum| sum * Expr::Const(1.0 / present.len().max(1) as f64)),
        ("", "Clip") => {
            let low = present.contains(&1).then_some(Expr::In(1));
            let high = present.contains(&2).then_some(Expr::In(2));
            let x = low.map_or(Expr::In(0), |l| Expr::In(0).max(l));
            Some(high.map_or(x.clone(), |h| x.min(h)))
        }
        _ => match node.op.kind(&node.attrs) {
            Kind::Elementwise(e) => Some(e),
            _ => None,
        },
    }
}

/// Gradients for the inputs of an element-wise node.
pub fn pull(cx: &mut Cx, expr: &Expr) -> Result<Vec<Option<ValueId>>> {
    let g = cx.g()?;
    let out = cx.output_shape(0)?;
    let mut grads = Vec::new();
    for i in 0..cx.needs.len() {
        let derivative = if cx.needs[i] { differentiate(expr, i) } else { None };
        let Some(d) = derivative else {
            grads.push(None);
            continue;
        };
        let to = cx.shape(i)?;
        let x = cx.x(i)?;
        let mut emit = Emit { b: cx.b, inputs: cx.node.inputs(), known: Vec::new() };
        let product = match d {
            Expr::Const(1.0) => g,
            Expr::Const(-1.0) => emit.b.op("Neg", &[g])?,
            // A conversion's gradient is converted back.
            Expr::Cast(_, inner) if *inner == Expr::Const(1.0) => {
                emit.b.with("Cast", to_type(emit.b.dtype(x)?), &[g])?
            }
            d => {
                let d = emit.value(&d, emit.b.dtype(x)?)?;
                emit.b.op("Mul", &[g, d])?
            }
        };
        grads.push(Some(cx.b.sum_to(product, &out, &to)?));
    }
    Ok(grads)
}

fn to_type(d: DType) -> Attrs {
    Attrs::new().with("to", i64::from(d.onnx()))
}

fn c(x: f64) -> Expr {
    Expr::Const(x)
}

fn u(op: Unary, a: &Expr) -> Expr {
    Expr::unary(op, a.clone())
}

fn times(a: Expr, b: Expr) -> Expr {
    match (a, b) {
        (Expr::Const(x), Expr::Const(y)) => c(x * y),
        (Expr::Const(1.0), e) | (e, Expr::Const(1.0)) => e,
        (a, b) => a * b,
    }
}

fn plus(a: Option<Expr>, b: Option<Expr>) -> Option<Expr> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a + b),
        (a, b) => a.or(b),
    }
}

fn squared(e: &Expr) -> Expr {
    e.clone() * e.clone()
}

/// ∂e/∂In(i); `None` where it is zero everywhere (or almost).
pub fn differentiate(e: &Expr, i: usize) -> Option<Expr> {
    match e {
        Expr::In(n) => (*n == i).then_some(c(1.0)),
        Expr::Const(_) => None,
        Expr::Unary(op, a) => {
            let inner = differentiate(a, i)?;
            unary(*op, a, e).map(|d| times(inner, d))
        }
        Expr::Binary(op, a, b) => binary(*op, a, b, e, i),
        Expr::Select(p, a, b) => {
            let (x, y) = (differentiate(a, i), differentiate(b, i));
            if x.is_none() && y.is_none() {
                return None;
            }
            Some(Expr::select((**p).clone(), x.unwrap_or(c(0.0)), y.unwrap_or(c(0.0))))
        }
        Expr::Cast(d, a) => {
            let inner = differentiate(a, i).filter(|_| d.is_float())?;
            Some(Expr::cast(*d, inner))
        }
    }
}

/// The derivative of `op` at `a`, whose value is `y`.
fn unary(op: Unary, a: &Expr, y: &Expr) -> Option<Expr> {
    let (a, y) = (a.clone(), y.clone());
    Some(match op {
        Unary::Neg => c(-1.0),
        Unary::Abs => u(Unary::Sign, &a),
        Unary::Sqrt => c(0.5) / y,
        Unary::Reciprocal => -squared(&y),
        Unary::Exp => y,
        Unary::Log => u(Unary::Reciprocal, &a),
        Unary::Sin => u(Unary::Cos, &a),
        Unary::Cos => -u(Unary::Sin, &a),
        Unary::Tan => c(1.0) + squared(&y),
        Unary::Asin => c(1.0) / u(Unary::Sqrt, &(c(1.0) - squared(&a))),
        Unary::Acos => c(-1.0) / u(Unary::Sqrt, &(c(1.0) - squared(&a))),
        Unary::Atan => c(1.0) / (c(1.0) + squared(&a)),
        Unary::Sinh => u(Unary::Cosh, &a),
        Unary::Cosh => u(Unary::Sinh, &a),
        Unary::Tanh => c(1.0) - squared(&y),
        Unary::Asinh => c(1.0) / u(Unary::Sqrt, &(squared(&a) + c(1.0))),
        Unary::Acosh => c(1.0) / u(Unary::Sqrt, &(squared(&a) - c(1.0))),
        Unary::Atanh => c(1.0) / (c(1.0) - squared(&a)),
        Unary::Erf => c(2.0 / std::f64::consts::PI.sqrt()) * u(Unary::Exp, &-squared(&a)),
        Unary::Sigmoid => y.clone() * (c(1.0) - y),
        Unary::Sign | Unary::Floor | Unary::Ceil | Unary::Round => return None,
        Unary::Not | Unary::BitNot | Unary::IsNan | Unary::IsInf => return None,
    })
}

fn binary(op: Binary, a: &Expr, b: &Expr, e: &Expr, i: usize) -> Option<Expr> {
    let (da, db) = (differentiate(a, i), differentiate(b, i));
    let (a, b, y) = (a.clone(), b.clone(), e.clone());
    let pick = |first: Expr| {
        let none = da.is_none() && db.is_none();
        let or = |d: &Option<Expr>| d.clone().unwrap_or(c(0.0));
        (!none).then(|| Expr::select(first, or(&da), or(&db)))
    };
    match op {
        Binary::Add => plus(da, db),
        Binary::Sub => plus(da, db.map(|d| times(c(-1.0), d))),
        Binary::Mul => plus(da.map(|d| times(d, b)), db.map(|d| times(d, a))),
        Binary::Div => plus(da.map(|d| times(d, u(Unary::Reciprocal, &b))), db.map(|d| times(d, -(y / b)))),
        Binary::Pow => plus(
            da.map(|d| times(d, b.clone() * Expr::binary(Binary::Pow, a.clone(), b - c(1.0)))),
            db.map(|d| times(d, y * u(Unary::Log, &a))),
        ),
        // a − b·q with a whole q, constant but for jumps.
        Binary::Rem | Binary::Mod => {
            let whole = Expr::unary(Unary::Round, (a - y) / b);
            plus(da, db.map(|d| times(d, -whole)))
        }
        Binary::Min => pick(Expr::binary(Binary::Le, a, b)),
        Binary::Max => pick(Expr::binary(Binary::Ge, a, b)),
        _ => None,
    }
}

/// Writes an expression as nodes; what occurs twice is computed once.
struct Emit<'a> {
    b: &'a mut Build,
    inputs: &'a [Option<ValueId>],
    known: Vec<(Expr, ValueId)>,
}

impl Emit<'_> {
    /// `dtype` is the type of constants.
    fn value(&mut self, e: &Expr, dtype: DType) -> Result<ValueId> {
        if let Some((_, v)) = self.known.iter().find(|(k, _)| k == e) {
            return Ok(*v);
        }
        let v = match e {
            Expr::In(i) => {
                let v = self.inputs.get(*i).copied().flatten();
                return v.ok_or_else(|| Error::model(format!("input {i} is missing")));
            }
            Expr::Const(x) => {
                let t = ir::Tensor::from_f64s(dtype, &[], vec![*x])?;
                self.b.constant(t)
            }
            Expr::Unary(op, a) => {
                let a = self.value(a, dtype)?;
                self.b.op(unary_name(*op), &[a])?
            }
            Expr::Binary(op, a, b) => {
                let inputs = [self.value(a, dtype)?, self.value(b, dtype)?];
                let (name, attrs) = binary_name(*op)?;
                self.b.with(name, attrs, &inputs)?
            }
            Expr::Select(p, a, b) => {
                let inputs = [self.value(p, dtype)?, self.value(a, dtype)?, self.value(b, dtype)?];
                self.b.op("Where", &inputs)?
            }
            Expr::Cast(d, a) => {
                let inner = self.input_type(a).unwrap_or(dtype);
                let a = self.value(a, inner)?;
                self.b.with("Cast", to_type(*d), &[a])?
            }
        };
        self.known.push((e.clone(), v));
        Ok(v)
    }

    /// The type of the first input that an expression reads.
    fn input_type(&self, e: &Expr) -> Option<DType> {
        match e {
            Expr::In(i) => self.b.graph.dtype(self.inputs.get(*i).copied().flatten()?),
            Expr::Const(_) => None,
            Expr::Unary(_, a) => self.input_type(a),
            Expr::Binary(_, a, b) | Expr::Select(_, a, b) => {
                self.input_type(a).or_else(|| self.input_type(b))
            }
            Expr::Cast(d, _) => Some(*d),
        }
    }
}

fn unary_name(op: Unary) -> &'static str {
    match op {
        Unary::Neg => "Neg",
        Unary::Abs => "Abs",
        Unary::Sign => "Sign",
        Unary::Floor => "Floor",
        Unary::Ceil => "Ceil",
        Unary::Round => "Round",
        Unary::Sqrt => "Sqrt",
        Unary::Reciprocal => "Reciprocal",
        Unary::Exp => "Exp",
        Unary::Log => "Log",
        Unary::Sin => "Sin",
        Unary::Cos => "Cos",
        Unary::Tan => "Tan",
        Unary::Asin => "Asin",
        Unary::Acos => "Acos",
        Unary::Atan => "Atan",
        Unary::Sinh => "Sinh",
        Unary::Cosh => "Cosh",
        Unary::Tanh => "Tanh",
        Unary::Asinh => "Asinh",
        Unary::Acosh => "Acosh",
        Unary::Atanh => "Atanh",
        Unary::Erf => "Erf",
        Unary::Sigmoid => "Sigmoid",
        Unary::Not => "Not",
        Unary::BitNot => "BitwiseNot",
        Unary::IsNan => "IsNaN",
        Unary::IsInf => "IsInf",
    }
}

fn binary_name(op: Binary) -> Result<(&'static str, Attrs)> {
    let name = match op {
        Binary::Add => "Add",
        Binary::Sub => "Sub",
        Binary::Mul => "Mul",
        Binary::Div => "Div",
        Binary::Pow => "Pow",
        Binary::Rem => return Ok(("Mod", Attrs::new().with("fmod", 1i64))),
        Binary::Mod => "Mod",
        Binary::Min => "Min",
        Binary::Max => "Max",
        Binary::Eq => "Equal",
        Binary::Lt => "Less",
        Binary::Le => "LessOrEqual",
        Binary::Gt => "Greater",
        Binary::Ge => "GreaterOrEqual",
        Binary::And => "And",
        Binary::Or => "Or",
        Binary::Xor => "Xor",
        _ => return Err(Error::unsupported("a derivative would need operations on bits")),
    };
    Ok((name, Attrs::new()))
}
