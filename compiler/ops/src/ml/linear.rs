//! Linear models as functions: one product, then labels and the post transform.

use super::scores::{PI, Post, WINITZKI, ZERO};
use super::{DOMAIN, FLOATS, LABELS, NUMBERS, Names, a, f};
use crate::function::{Body, Function, Outputs, plain};
use ir::DType::{F32, I64};
use ir::{AttrKind, Error, Operator, Result, Signature, Tensor, ValueId};

pub static OPERATORS: &[&dyn Operator] = &[
    &Function { domain: DOMAIN, name: "LinearClassifier", signature: &CLASSIFIER, build: classify },
    &Function { domain: DOMAIN, name: "LinearRegressor", signature: &REGRESSOR, build: regress },
];

static CLASSIFIER: Signature = Signature {
    since: &[1],
    inputs: &[f("X", "T1", NUMBERS)],
    outputs: &[f("Y", "T2", LABELS), f("Z", "O", FLOATS)],
    attrs: &[
        a("classlabels_ints", AttrKind::Ints),
        a("classlabels_strings", AttrKind::Strs),
        a("coefficients", AttrKind::Floats),
        a("intercepts", AttrKind::Floats),
        a("multi_class", AttrKind::Int),
        a("post_transform", AttrKind::Str),
    ],
};
static REGRESSOR: Signature = Signature {
    since: &[1],
    inputs: &[f("X", "T", NUMBERS)],
    outputs: &[f("Y", "O", FLOATS)],
    attrs: &[
        a("coefficients", AttrKind::Floats),
        a("intercepts", AttrKind::Floats),
        a("post_transform", AttrKind::Str),
        a("targets", AttrKind::Int),
    ],
};

/// Sums for each row of X and each of `n` columns.
fn sums(b: &mut Body, n: usize) -> Result<ValueId> {
    let x = b.need(0)?;
    let rank = b.rank(x)?;
    let x = b.cast(x, F32)?;
    let x = match rank {
        1 => b.unsqueeze(x, &[0])?,
        2 => x,
        r => return Err(Error::model(format!("X has rank {r}, not 1 or 2"))),
    };
    let w = b.attrs.floats("coefficients")?.unwrap_or(&[]).to_vec();
    let features = w.len() / n.max(1);
    if w.is_empty() || features * n != w.len() {
        return Err(Error::model(format!("{} coefficients for {n} sums", w.len())));
    }
    let bias = b.attrs.floats("intercepts")?.unwrap_or(&[]).to_vec();
    if !bias.is_empty() && bias.len() != n {
        return Err(Error::model(format!("{} intercepts for {n} sums", bias.len())));
    }
    let w = b.constant(Tensor::new(&[n, features], w)?);
    let bias = (!bias.is_empty()).then(|| b.constant(Tensor::vector(bias)));
    b.opt("Gemm", plain().with("transB", 1), &[Some(x), Some(w), bias])
}

fn regress(b: &mut Body) -> Result<Outputs> {
    let n = usize::try_from(b.attrs.int_or("targets", 1)?).ok().filter(|&n| n > 0);
    let n = n.ok_or_else(|| Error::model("targets must be positive"))?;
    let post = Post::read(&b.attrs)?;
    let y = sums(b, n)?;
    // With one sum only this one has a meaning.
    Ok(vec![Some(if n > 1 || post == Post::Probit { transformed(b, y, post)? } else { y })])
}

fn classify(b: &mut Body) -> Result<Outputs> {
    let names = Names::read(&b.attrs, "classlabels_ints")?;
    let n = b.attrs.floats("intercepts")?.map_or(0, <[f32]>::len);
    if n == 0 || names.len() != n.max(2) {
        return Err(Error::model(format!("{n} intercepts for {} classes", names.len())));
    }
    let post = Post::read(&b.attrs)?;
    let sums = sums(b, n)?;
    let class = if n == 1 {
        let zero = b.number(sums, 0.0)?;
        let positive = b.op("Greater", &[sums, zero])?;
        let class = b.cast(positive, I64)?;
        b.reshape(class, &[-1])?
    } else {
        b.op_with("ArgMax", plain().with("axis", 1).with("keepdims", 0), &[sums])?
    };
    let labels = b.constant(names.tensor()?);
    let label = b.op("Gather", &[labels, class])?;
    let scores = if n > 1 {
        transformed(b, sums, post)?
    } else {
        let (no, yes) = match post {
            Post::Logistic => {
                let opposite = b.op("Neg", &[sums])?;
                (b.op("Sigmoid", &[opposite])?, b.op("Sigmoid", &[sums])?)
            }
            Post::Probit => {
                let p = transformed(b, sums, post)?;
                (p, p)
            }
            _ => {
                let one = b.number(sums, 1.0)?;
                (b.op("Sub", &[one, sums])?, sums)
            }
        };
        b.concat(1, &[no, yes])?
    };
    Ok(vec![Some(label), Some(scores)])
}

/// The post transform of several scores a row.
fn transformed(b: &mut Body, x: ValueId, post: Post) -> Result<ValueId> {
    match post {
        Post::Plain => Ok(x),
        Post::Logistic => b.op("Sigmoid", &[x]),
        Post::Softmax => b.op_with("Softmax", plain().with("axis", 1), &[x]),
        Post::SoftmaxZero => {
            let axes = b.ints(&[1]);
            let (size, zero) = (b.op("Abs", &[x])?, b.number(x, ZERO as f32)?);
            let some = b.op("Greater", &[size, zero])?;
            let most = b.op("ReduceMax", &[x, axes])?;
            let (less, opposite) = (b.op("Sub", &[x, most])?, b.op("Neg", &[most])?);
            let (e, none) = (b.op("Exp", &[less])?, b.op("Exp", &[opposite])?);
            let (none, nothing) = (b.op("Mul", &[x, none])?, b.number(x, 0.0)?);
            let counted = b.op("Where", &[some, e, nothing])?;
            let sum = b.op("ReduceSum", &[counted, axes])?;
            let y = b.op("Where", &[some, e, none])?;
            b.op("Div", &[y, sum])
        }
        Post::Probit => probit(b, x),
    }
}

/// [`super::scores::probit`] in operators.
fn probit(b: &mut Body, p: ValueId) -> Result<ValueId> {
    let number = |b: &mut Body, x: f64| b.number(p, x as f32);
    let (one, two) = (number(b, 1.0)?, number(b, 2.0)?);
    let x = b.op("Mul", &[p, two])?;
    let x = b.op("Sub", &[x, one])?;
    let (below, above) = (b.op("Sub", &[one, x])?, b.op("Add", &[one, x])?);
    let log = b.op("Mul", &[below, above])?;
    let log = b.op("Log", &[log])?;
    let (half, start) = (number(b, 0.5)?, number(b, 2.0 / (PI * WINITZKI))?);
    let v = b.op("Mul", &[log, half])?;
    let v = b.op("Add", &[v, start])?;
    let inverse = number(b, 1.0 / WINITZKI)?;
    let (square, other) = (b.op("Mul", &[v, v])?, b.op("Mul", &[log, inverse])?);
    let root = b.op("Sub", &[square, other])?;
    let root = b.op("Sqrt", &[root])?;
    let root = b.op("Sub", &[root, v])?;
    let root = b.op("Sqrt", &[root])?;
    let scale = number(b, std::f64::consts::SQRT_2)?;
    let root = b.op("Mul", &[root, scale])?;
    let zero = number(b, 0.0)?;
    let (negative, opposite) = (b.op("Less", &[x, zero])?, b.op("Neg", &[root])?);
    b.op("Where", &[negative, opposite, root])
}
