//! Losses: NegativeLogLikelihoodLoss and SoftmaxCrossEntropyLoss, with class weights, ignored targets and reductions.

use crate::typing::{one, tensor_type};
use crate::window::check_product;
use crate::{Op, schema};
use ir::{
    Accuracy, Attrs, Dim, Error, EvalCx, InferCx, Operator, Result, Shape, Tensor, Value, ValueType, budget,
};

pub static OPERATORS: &[&dyn Operator] = &[
    &Op::new("NegativeLogLikelihoodLoss", &schema::NEGATIVE_LOG_LIKELIHOOD_LOSS, infer, eval_likelihood)
        .accuracy(Accuracy::Accumulated),
    &Op::new("SoftmaxCrossEntropyLoss", &schema::SOFTMAX_CROSS_ENTROPY_LOSS, infer, eval_entropy)
        .accuracy(Accuracy::Accumulated),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reduction {
    None,
    Sum,
    Mean,
}

fn reduction(attrs: &Attrs) -> Result<Reduction> {
    match attrs.str_or("reduction", "mean")? {
        "none" => Ok(Reduction::None),
        "sum" => Ok(Reduction::Sum),
        "mean" => Ok(Reduction::Mean),
        r => Err(Error::model(format!("reduction '{}' is not known", r.escape_debug()))),
    }
}

fn infer(cx: &InferCx) -> Result<Vec<ValueType>> {
    let dtype = cx.dtype(0)?;
    let shape = match reduction(cx.attrs)? {
        Reduction::None => cx.shape(1).map(<[Dim]>::to_vec),
        _ => Some(vec![]),
    };
    Ok(vec![tensor_type(dtype, shape), cx.input(0)?.clone()])
}

fn eval_likelihood(cx: &EvalCx) -> Result<Vec<Value>> {
    let x = cx.tensor(0)?;
    Ok(one(likelihood(cx, x)?))
}

fn eval_entropy(cx: &EvalCx) -> Result<Vec<Value>> {
    let x = cx.tensor(0)?;
    let log = crate::softmax::along(x, 1, &crate::softmax::log_softmax)?;
    Ok(vec![likelihood(cx, &log)?.into(), log.into()])
}

/// The loss of log-probabilities (batch, classes, …) against inputs 1 (targets) and 2 (class weights).
fn likelihood(cx: &EvalCx, x: &Tensor) -> Result<Tensor> {
    let target = cx.tensor(1)?;
    let bad = || Error::model(format!("scores {:?} and targets {:?} do not fit", x.shape(), target.shape()));
    let [n, classes, rest @ ..] = x.shape() else { return Err(bad()) };
    let shape: Shape = std::iter::once(*n).chain(rest.iter().copied()).collect();
    if target.shape() != &shape[..] {
        return Err(bad());
    }
    check_product(x.shape().iter().copied())?;
    let plane: usize = rest.iter().product();
    let weights = match cx.optional(2)? {
        Some(w) if w.shape() == [*classes] => w.to_f64s()?,
        Some(w) => return Err(Error::model(format!("weights {:?} must be [{classes}]", w.shape()))),
        None => budget::filled(*classes, 1.0)?,
    };
    let ignored = cx.attrs.int("ignore_index")?;
    let data = x.to_f64s()?;
    let mut losses = budget::vec(target.len())?;
    let (mut sum, mut total) = (0.0, 0.0);
    for (i, &t) in target.to_i64s()?.iter().enumerate() {
        if Some(t) == ignored {
            losses.push(0.0);
            continue;
        }
        let class = usize::try_from(t).ok().filter(|c| c < classes);
        let class = class.ok_or_else(|| Error::data(format!("target {t} is outside 0..{classes}")))?;
        let loss = -data[(i / plane * classes + class) * plane + i % plane] * weights[class];
        losses.push(loss);
        sum += loss;
        total += weights[class];
    }
    match reduction(cx.attrs)? {
        Reduction::None => Tensor::from_f64s(x.dtype(), &shape, losses),
        Reduction::Sum => Tensor::from_f64s(x.dtype(), &[], vec![sum]),
        Reduction::Mean => Tensor::from_f64s(x.dtype(), &[], vec![sum / total]),
    }
}
