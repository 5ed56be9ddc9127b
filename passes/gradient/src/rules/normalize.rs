//! Normalisations, written in operators that have a rule, and the two softmaxes.

use super::{Build, Cx, Written, axis};
use ir::{Attrs, Error, Node, Result, ValueId};

fn input(node: &Node, i: usize) -> Result<ValueId> {
    node.input(i).ok_or_else(|| Error::model(format!("input {i} is missing")))
}

fn epsilon(b: &mut Build, node: &Node, like: ValueId, default: f32) -> Result<ValueId> {
    b.number(like, f64::from(node.attrs.float_or("epsilon", default)?))
}

fn mean(b: &mut Build, x: ValueId, axes: &[usize]) -> Result<ValueId> {
    let axes = b.sizes(axes);
    b.op("ReduceMean", &[x, axes])
}

/// (x − mean) / √(variance + ε), then the mean and 1 / √(variance + ε).
fn standard(b: &mut Build, x: ValueId, axes: &[usize], epsilon: ValueId) -> Result<[ValueId; 3]> {
    let center = mean(b, x, axes)?;
    let d = b.op("Sub", &[x, center])?;
    let square = b.op("Mul", &[d, d])?;
    let variance = mean(b, square, axes)?;
    let inverse = inverse_root(b, variance, epsilon)?;
    Ok([b.op("Mul", &[d, inverse])?, center, inverse])
}

fn inverse_root(b: &mut Build, variance: ValueId, epsilon: ValueId) -> Result<ValueId> {
    let sum = b.op("Add", &[variance, epsilon])?;
    let root = b.op("Sqrt", &[sum])?;
    b.op("Reciprocal", &[root])
}

/// A vector of channels against (batch, channels, …).
fn channels(b: &mut Build, v: ValueId, rank: usize) -> Result<ValueId> {
    let n = b.shape(v)?.iter().product();
    let mut shape = vec![1; rank.max(2) - 1];
    shape[0] = n;
    b.reshape(v, &shape)
}

fn affine(b: &mut Build, x: ValueId, scale: ValueId, bias: Option<ValueId>) -> Result<ValueId> {
    let y = b.op("Mul", &[x, scale])?;
    bias.map_or(Ok(y), |bias| b.op("Add", &[y, bias]))
}

pub fn batch(b: &mut Build, node: &Node) -> Written {
    if node.attrs.int_or("training_mode", 0)? != 0 {
        return Err(Error::unsupported("no derivative is known in training mode"));
    }
    let x = input(node, 0)?;
    let rank = b.shape(x)?.len();
    let mut vectors = Vec::new();
    for i in 1..5 {
        vectors.push(channels(b, input(node, i)?, rank)?);
    }
    let e = epsilon(b, node, x, 1e-5)?;
    let inverse = inverse_root(b, vectors[3], e)?;
    let d = b.op("Sub", &[x, vectors[2]])?;
    let d = b.op("Mul", &[d, inverse])?;
    Ok(Some(vec![Some(affine(b, d, vectors[0], Some(vectors[1]))?)]))
}

pub fn instance(b: &mut Build, node: &Node) -> Written {
    let x = input(node, 0)?;
    let rank = b.shape(x)?.len();
    let axes: Vec<usize> = (2..rank).collect();
    let e = epsilon(b, node, x, 1e-5)?;
    let [y, ..] = standard(b, x, &axes, e)?;
    let (scale, bias) = (channels(b, input(node, 1)?, rank)?, channels(b, input(node, 2)?, rank)?);
    Ok(Some(vec![Some(affine(b, y, scale, Some(bias))?)]))
}

pub fn group(b: &mut Build, node: &Node) -> Written {
    let x = input(node, 0)?;
    let shape = b.shape(x)?;
    let groups = usize::try_from(node.attrs.require_int("num_groups")?).unwrap_or(1).max(1);
    let inner: usize = shape.iter().skip(1).product::<usize>() / groups;
    let e = epsilon(b, node, x, 1e-5)?;
    let flat = b.reshape(x, &[shape[0], groups, inner])?;
    let [y, ..] = standard(b, flat, &[2], e)?;
    let y = b.reshape(y, &shape)?;
    let (scale, bias) =
        (channels(b, input(node, 1)?, shape.len())?, channels(b, input(node, 2)?, shape.len())?);
    Ok(Some(vec![Some(affine(b, y, scale, Some(bias))?)]))
}

/// The axes from the `axis` attribute to the last.
fn trailing(b: &Build, node: &Node, x: ValueId) -> Result<Vec<usize>> {
    let rank = b.shape(x)?.len();
    Ok((axis(node.attrs.int_or("axis", -1)?, rank)?..rank).collect())
}

pub fn layer(b: &mut Build, node: &Node) -> Written {
    let x = input(node, 0)?;
    let axes = trailing(b, node, x)?;
    let e = epsilon(b, node, x, 1e-5)?;
    let [y, center, inverse] = standard(b, x, &axes, e)?;
    let y = affine(b, y, input(node, 1)?, node.input(2))?;
    Ok(Some(vec![Some(y), Some(center), Some(inverse)]))
}

pub fn rms(b: &mut Build, node: &Node) -> Written {
    let x = input(node, 0)?;
    let axes = trailing(b, node, x)?;
    let e = epsilon(b, node, x, 1e-5)?;
    let square = b.op("Mul", &[x, x])?;
    let power = mean(b, square, &axes)?;
    let inverse = inverse_root(b, power, e)?;
    let y = b.op("Mul", &[x, inverse])?;
    Ok(Some(vec![Some(affine(b, y, input(node, 1)?, None)?)]))
}

pub fn mean_variance(b: &mut Build, node: &Node) -> Written {
    let x = input(node, 0)?;
    let rank = b.shape(x)?.len();
    let axes: Vec<usize> = match node.attrs.ints("axes")? {
        Some(a) => a.iter().map(|&a| axis(a, rank)).collect::<Result<_>>()?,
        None => [0, 2, 3].into_iter().filter(|&a| a < rank).collect(),
    };
    // The operator adds its epsilon to the deviation.
    let e = b.number(x, 1e-9)?;
    let center = mean(b, x, &axes)?;
    let d = b.op("Sub", &[x, center])?;
    let square = b.op("Mul", &[d, d])?;
    let variance = mean(b, square, &axes)?;
    let root = b.op("Sqrt", &[variance])?;
    let divisor = b.op("Add", &[root, e])?;
    Ok(Some(vec![Some(b.op("Div", &[d, divisor])?)]))
}

pub fn lp(b: &mut Build, node: &Node) -> Written {
    let x = input(node, 0)?;
    let at = axis(node.attrs.int_or("axis", -1)?, b.shape(x)?.len())?;
    let norm = if node.attrs.int_or("p", 2)? == 1 { "ReduceL1" } else { "ReduceL2" };
    let axes = b.sizes(&[at]);
    let length = b.op(norm, &[x, axes])?;
    Ok(Some(vec![Some(b.op("Div", &[x, length])?)]))
}

fn softmax_axis(cx: &Cx) -> Result<usize> {
    axis(cx.node.attrs.int_or("axis", -1)?, cx.shape(0)?.len())
}

pub fn softmax(cx: &mut Cx) -> Result<Vec<Option<ValueId>>> {
    let (g, y, at) = (cx.g()?, cx.y()?, softmax_axis(cx)?);
    let weighted = cx.b.op("Mul", &[g, y])?;
    let sum = cx.b.sum(weighted, &[at], true)?;
    let rest = cx.b.op("Sub", &[g, sum])?;
    let d = cx.b.op("Mul", &[rest, y])?;
    Ok(cx.first(d))
}

pub fn log_softmax(cx: &mut Cx) -> Result<Vec<Option<ValueId>>> {
    let (g, y, at) = (cx.g()?, cx.y()?, softmax_axis(cx)?);
    let sum = cx.b.sum(g, &[at], true)?;
    let p = cx.b.with("Exp", Attrs::new(), &[y])?;
    let taken = cx.b.op("Mul", &[p, sum])?;
    let d = cx.b.op("Sub", &[g, taken])?;
    Ok(cx.first(d))
}
