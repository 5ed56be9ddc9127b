//! Normalization: batch, instance, layer, group, RMS, local response, Lp and mean-variance. Statistics are in f64.

use crate::broadcast::{axis, broadcast_shapes, broadcast_strides};
use crate::reduce::Reduction;
use crate::typing::{like_first, one, tensor_type};
use crate::window::check_product;
use crate::{Op, schema};
use ir::{Accuracy, Attrs, DType, Dim, Error, EvalCx, InferCx, Kind, Operator, Result, Shape, Tensor};
use ir::{Value, ValueType, budget};

const fn row(op: Op) -> Op {
    op.kind(|_| Kind::Reduce).accuracy(Accuracy::Accumulated)
}

pub static OPERATORS: &[&dyn Operator] = &[
    &row(Op::new("BatchNormalization", &schema::BATCH_NORMALIZATION, infer_batch, eval_batch)),
    &row(Op::new("InstanceNormalization", &schema::INSTANCE_NORMALIZATION, like_first, eval_instance)),
    &row(Op::new("LayerNormalization", &schema::LAYER_NORMALIZATION, infer_layer, eval_layer)),
    &row(Op::new("GroupNormalization", &schema::GROUP_NORMALIZATION, like_first, eval_group)),
    &row(Op::new("RMSNormalization", &schema::RMS_NORMALIZATION, infer_rms, eval_rms)),
    &row(Op::new("LRN", &schema::LRN, like_first, eval_lrn)),
    &row(Op::new("LpNormalization", &schema::LP_NORMALIZATION, like_first, eval_lp)),
    &row(Op::new("MeanVarianceNormalization", &schema::MEAN_VARIANCE_NORMALIZATION, like_first, eval_mvn)),
];

fn float(t: &Tensor) -> Result<Vec<f64>> {
    if t.dtype().is_float() { t.to_f64s() } else { Err(Error::model(format!("expected floats, got {t:?}"))) }
}

/// A per-channel vector of `channels` numbers.
fn per_channel(t: &Tensor, channels: usize, what: &str) -> Result<Vec<f64>> {
    if t.shape() != [channels] {
        return Err(Error::model(format!("{what} has shape {:?}, [{channels}] is needed", t.shape())));
    }
    float(t)
}

fn epsilon(attrs: &Attrs) -> Result<f64> {
    Ok(f64::from(attrs.float_or("epsilon", 1e-5)?))
}

/// Mean and population variance.
fn moments(x: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let (n, sum) = x.clone().fold((0u64, 0.0), |(n, s), v| (n + 1, s + v));
    let mean = sum / n as f64;
    (mean, x.map(|v| (v - mean) * (v - mean)).sum::<f64>() / n as f64)
}

/// (batch, channels, elements of one channel); rank 1 is a batch of one channel.
fn channels(shape: &[usize]) -> Result<(usize, usize, usize)> {
    check_product(shape.iter().copied())?;
    match shape {
        [] => Err(Error::model("input must not be a scalar")),
        [n] => Ok((*n, 1, 1)),
        [n, c, rest @ ..] => {
            Ok((*n, *c, rest.iter().try_fold(1usize, |p, &d| p.checked_mul(d)).unwrap_or(0)))
        }
    }
}

fn infer_batch(cx: &InferCx) -> Result<Vec<ValueType>> {
    let mut out = like_first(cx)?;
    if cx.attrs.int_or("training_mode", 0)? != 0 {
        let stat = |i: usize| cx.inputs.get(i).cloned().flatten().unwrap_or(ValueType::Unknown);
        out.extend([stat(3), stat(4)]);
    }
    Ok(out)
}

fn eval_batch(cx: &EvalCx) -> Result<Vec<Value>> {
    let x = cx.tensor(0)?;
    let (_, c, plane) = channels(x.shape())?;
    let part = |i: usize, what| per_channel(cx.tensor(i)?, c, what);
    let (scale, bias) = (part(1, "scale")?, part(2, "B")?);
    let (mean, var) = (part(3, "input_mean")?, part(4, "input_var")?);
    let mut data = float(x)?;
    let eps = epsilon(cx.attrs)?;
    if cx.attrs.int_or("training_mode", 0)? == 0 {
        channel_affine(&mut data, c, plane, &mean, &var, &scale, &bias, eps);
        return Ok(one(Tensor::from_f64s(x.dtype(), x.shape(), data)?));
    }
    let momentum = f64::from(cx.attrs.float_or("momentum", 0.9)?);
    let block = plane.max(1) * c.max(1);
    let stats: Vec<(f64, f64)> = (0..c)
        .map(|i| moments(data.chunks_exact(block).flat_map(|b| b[i * plane..][..plane].iter().copied())))
        .collect();
    let (batch_mean, batch_var): (Vec<f64>, Vec<f64>) = stats.into_iter().unzip();
    channel_affine(&mut data, c, plane, &batch_mean, &batch_var, &scale, &bias, eps);
    let running = |old: &[f64], now: &[f64]| -> Vec<f64> {
        old.iter().zip(now).map(|(o, n)| o * momentum + n * (1.0 - momentum)).collect()
    };
    let stat = cx.tensor(3)?.dtype();
    Ok(vec![
        Tensor::from_f64s(x.dtype(), x.shape(), data)?.into(),
        Tensor::from_f64s(stat, &[c], running(&mean, &batch_mean))?.into(),
        Tensor::from_f64s(stat, &[c], running(&var, &batch_var))?.into(),
    ])
}

fn channel_affine(
    data: &mut [f64],
    c: usize,
    plane: usize,
    mean: &[f64],
    var: &[f64],
    scale: &[f64],
    bias: &[f64],
    eps: f64,
) {
    for (i, block) in data.chunks_exact_mut(plane.max(1)).enumerate() {
        let i = i % c.max(1);
        let s = scale[i] / (var[i] + eps).sqrt();
        block.iter_mut().for_each(|x| *x = (*x - mean[i]) * s + bias[i]);
    }
}

/// Normalizes blocks of `len` elements in place to zero mean and unit variance.
fn standardize(data: &mut [f64], len: usize, eps: f64) {
    for block in data.chunks_exact_mut(len.max(1)) {
        let (mean, var) = moments(block.iter().copied());
        let inv = 1.0 / (var + eps).sqrt();
        block.iter_mut().for_each(|x| *x = (*x - mean) * inv);
    }
}

fn eval_instance(cx: &EvalCx) -> Result<Vec<Value>> {
    grouped(cx, None)
}

fn eval_group(cx: &EvalCx) -> Result<Vec<Value>> {
    grouped(cx, Some(cx.attrs.require_int("num_groups")?))
}

fn grouped(cx: &EvalCx, groups: Option<i64>) -> Result<Vec<Value>> {
    let x = cx.tensor(0)?;
    if x.rank() < 2 {
        return Err(Error::model(format!("input {:?} needs a batch and channels", x.shape())));
    }
    let (_, c, plane) = channels(x.shape())?;
    let groups = match groups {
        None => c,
        Some(g) => usize::try_from(g)
            .ok()
            .filter(|&g| g > 0 && c % g == 0)
            .ok_or_else(|| Error::model(format!("num_groups {g} does not divide {c} channels")))?,
    };
    let (scale, bias) = (per_channel(cx.tensor(1)?, c, "scale")?, per_channel(cx.tensor(2)?, c, "bias")?);
    let mut data = float(x)?;
    if !data.is_empty() {
        standardize(&mut data, c / groups * plane, epsilon(cx.attrs)?);
    }
    for (i, block) in data.chunks_exact_mut(plane.max(1)).enumerate() {
        let i = i % c.max(1);
        block.iter_mut().for_each(|x| *x = *x * scale[i] + bias[i]);
    }
    Ok(one(Tensor::from_f64s(x.dtype(), x.shape(), data)?))
}

/// The type of stage one: float, or another float type where `stash_type` names one.
fn stash_type(attrs: &Attrs) -> Result<DType> {
    let n = attrs.int_or("stash_type", 1)?;
    i32::try_from(n)
        .ok()
        .and_then(DType::from_onnx)
        .filter(|d| d.is_float())
        .ok_or_else(|| Error::model(format!("stash_type {n} is not a float type")))
}

fn infer_layer(cx: &InferCx) -> Result<Vec<ValueType>> {
    let mut out = like_first(cx)?;
    let shape = match cx.shape(0) {
        Some(x) => {
            let a = axis(cx.attrs.int_or("axis", -1)?, x.len())?;
            Some(x.iter().enumerate().map(|(i, d)| if i < a { d.clone() } else { Dim::Known(1) }).collect())
        }
        None => None,
    };
    let stat = tensor_type(Some(stash_type(cx.attrs)?), shape);
    out.extend([stat.clone(), stat]);
    Ok(out)
}

/// Splits at `axis` into (leading shape, elements of one normalized block).
fn split(x: &Tensor, attrs: &Attrs) -> Result<(Shape, usize)> {
    let a = axis(attrs.int_or("axis", -1)?, x.rank())?;
    let (outer, inner) = x.shape().split_at(a);
    check_product(x.shape().iter().copied())?;
    let len = inner.iter().product();
    Ok((outer.iter().copied().chain(inner.iter().map(|_| 1)).collect(), len))
}

/// `data = f(data, t)` with `t` broadcast to `shape`.
fn with_broadcast(data: &mut [f64], shape: &[usize], t: &Tensor, f: impl Fn(f64, f64) -> f64) -> Result<()> {
    if broadcast_shapes(&[t.shape(), shape])?[..] != *shape {
        return Err(Error::model(format!("shape {:?} does not broadcast to {shape:?}", t.shape())));
    }
    let values = float(t)?;
    if data.is_empty() {
        return Ok(());
    }
    let lead = t.shape().iter().take_while(|&&d| d == 1).count();
    if values.len() == shape.iter().rev().take(t.rank() - lead).product::<usize>() {
        data.chunks_mut(values.len().max(1))
            .for_each(|c| c.iter_mut().zip(&values).for_each(|(x, &v)| *x = f(*x, v)));
        return Ok(());
    }
    let strides = broadcast_strides(t.shape(), shape);
    for (x, i) in data.iter_mut().zip(ndarray::indices(shape)) {
        *x = f(*x, values[strides.iter().enumerate().map(|(a, s)| s * i[a]).sum::<usize>()]);
    }
    Ok(())
}

fn eval_layer(cx: &EvalCx) -> Result<Vec<Value>> {
    let (x, stash) = (cx.tensor(0)?, stash_type(cx.attrs)?);
    let (stat_shape, len) = split(x, cx.attrs)?;
    let mut data = float(x)?;
    let eps = epsilon(cx.attrs)?;
    let (mut means, mut inverses) = (vec![], vec![]);
    for block in data.chunks_exact_mut(len.max(1)) {
        let (mean, var) = moments(block.iter().copied());
        let inv = 1.0 / (var + eps).sqrt();
        block.iter_mut().for_each(|x| *x = (*x - mean) * inv);
        means.push(mean);
        inverses.push(inv);
    }
    with_broadcast(&mut data, x.shape(), cx.tensor(1)?, |x, s| x * s)?;
    if let Some(b) = cx.optional(2)? {
        with_broadcast(&mut data, x.shape(), b, |x, b| x + b)?;
    }
    let n = budget::elements(&stat_shape)?;
    budget::check(n.saturating_mul(size_of::<f64>()))?;
    means.resize(n, f64::NAN);
    inverses.resize(n, f64::NAN);
    Ok(vec![
        Tensor::from_f64s(x.dtype(), x.shape(), data)?.into(),
        Tensor::from_f64s(stash, &stat_shape, means)?.into(),
        Tensor::from_f64s(stash, &stat_shape, inverses)?.into(),
    ])
}

fn infer_rms(cx: &InferCx) -> Result<Vec<ValueType>> {
    if let Some(rank) = cx.rank(0) {
        axis(cx.attrs.int_or("axis", -1)?, rank)?;
    }
    let dtype = cx.dtype(1)?.or(cx.dtype(0)?);
    Ok(vec![tensor_type(dtype, cx.shape(0).map(<[Dim]>::to_vec))])
}

fn eval_rms(cx: &EvalCx) -> Result<Vec<Value>> {
    let (x, scale) = (cx.tensor(0)?, cx.tensor(1)?);
    let (_, len) = split(x, cx.attrs)?;
    let eps = epsilon(cx.attrs)?;
    let mut data = float(x)?;
    for block in data.chunks_exact_mut(len.max(1)) {
        let mean = block.iter().map(|x| x * x).sum::<f64>() / len as f64;
        let inv = 1.0 / (mean + eps).sqrt();
        block.iter_mut().for_each(|x| *x *= inv);
    }
    with_broadcast(&mut data, x.shape(), scale, |x, s| x * s)?;
    Ok(one(Tensor::from_f64s(scale.dtype(), x.shape(), data)?))
}

fn eval_lrn(cx: &EvalCx) -> Result<Vec<Value>> {
    let x = cx.tensor(0)?;
    if x.rank() < 2 {
        return Err(Error::model(format!("input {:?} needs a batch and channels", x.shape())));
    }
    let (_, c, plane) = channels(x.shape())?;
    let size = cx.attrs.require_int("size")?;
    let size = usize::try_from(size)
        .ok()
        .filter(|&s| s > 0)
        .ok_or_else(|| Error::model(format!("size {size} must be positive")))?;
    let (alpha, beta) = (cx.attrs.float_or("alpha", 1e-4)?, cx.attrs.float_or("beta", 0.75)?);
    let bias = f64::from(cx.attrs.float_or("bias", 1.0)?);
    let data = float(x)?;
    let mut y = data.clone();
    let scale = f64::from(alpha) / size as f64;
    let (before, after) = ((size - 1) / 2, size / 2);
    for (x, y) in data.chunks_exact((c * plane).max(1)).zip(y.chunks_exact_mut((c * plane).max(1))) {
        for (i, p) in (0..c).flat_map(|i| (0..plane).map(move |p| (i, p))) {
            let near = i.saturating_sub(before)..c.min(i.saturating_add(after).saturating_add(1));
            let squares: f64 = near.map(|j| x[j * plane + p] * x[j * plane + p]).sum();
            y[i * plane + p] /= (bias + scale * squares).powf(f64::from(beta));
        }
    }
    Ok(one(Tensor::from_f64s(x.dtype(), x.shape(), y)?))
}

fn eval_lp(cx: &EvalCx) -> Result<Vec<Value>> {
    let x = cx.tensor(0)?;
    float(x)?;
    let f: fn(&mut [f64]) = match cx.attrs.int_or("p", 2)? {
        1 => |line| divide(line, line.iter().map(|x| x.abs()).sum()),
        2 => |line| divide(line, line.iter().map(|x| x * x).sum::<f64>().sqrt()),
        p => return Err(Error::model(format!("p {p} must be 1 or 2"))),
    };
    Ok(one(crate::softmax::along(x, cx.attrs.int_or("axis", -1)?, &f)?))
}

/// Division by a norm; a zero norm gives zeros.
fn divide(line: &mut [f64], norm: f64) {
    line.iter_mut().for_each(|x| *x = if norm == 0.0 { 0.0 } else { *x / norm });
}

fn eval_mvn(cx: &EvalCx) -> Result<Vec<Value>> {
    let x = cx.tensor(0)?;
    let axes = cx.attrs.ints("axes")?.unwrap_or(&[0, 2, 3]);
    let plan = Reduction::new(x.shape(), Some(axes), true)?;
    let mut data = float(x)?;
    let count = plan.count() as f64;
    let mut mean = plan.fold(&data, 0.0, |s, x| s + x)?;
    mean.iter_mut().for_each(|m| *m /= count);
    plan.zip_back(&mut data, &mean, |x, m| x - m);
    let mut std = plan.fold(&data, 0.0, |s, x| s + x * x)?;
    std.iter_mut().for_each(|v| *v = (*v / count).sqrt() + 1e-9);
    plan.zip_back(&mut data, &std, |x, s| x / s);
    Ok(one(Tensor::from_f64s(x.dtype(), x.shape(), data)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standardized_blocks_have_zero_mean_and_unit_variance() {
        let mut x = [1.0, 3.0, 10.0, 10.0];
        standardize(&mut x, 2, 0.0);
        assert_eq!(x[..2], [-1.0, 1.0]);
        assert!(x[2..].iter().all(|v| v.is_nan()));
        assert_eq!(moments([1.0, 2.0, 3.0].into_iter()), (2.0, 2.0 / 3.0));
    }

    #[test]
    fn scales_broadcast_from_any_side() {
        let mut x = [1.0, 2.0, 3.0, 4.0];
        let t = |shape: &[usize], v: &[f64]| Tensor::new(shape, v.to_vec()).unwrap();
        with_broadcast(&mut x, &[2, 2], &t(&[2], &[1., 10.]), |x, y| x * y).unwrap();
        assert_eq!(x, [1., 20., 3., 40.]);
        with_broadcast(&mut x, &[2, 2], &t(&[2, 1], &[1., 2.]), |x, y| x * y).unwrap();
        assert_eq!(x, [1., 20., 6., 80.]);
        with_broadcast(&mut x, &[2, 2], &t(&[1, 1], &[2.]), |x, y| x - y).unwrap();
        assert_eq!(x, [-1., 18., 4., 78.]);
        assert!(with_broadcast(&mut x, &[2, 2], &t(&[3], &[1.; 3]), |x, _| x).is_err());
    }
}
