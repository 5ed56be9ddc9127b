//! Operators that move elements: gradients move back, and add up where an element went to several places.

use super::pool::{evaluated, scattered};
use super::{Cx, axis};
use ir::{Attrs, DType, Error, Result, Tensor, ValueId};

/// Same elements, other shape.
pub fn reshaped(cx: &mut Cx) -> Result<Vec<Option<ValueId>>> {
    let (g, shape) = (cx.g()?, cx.shape(0)?);
    let d = cx.b.reshape(g, &shape)?;
    Ok(cx.first(d))
}

pub fn dropout(cx: &mut Cx) -> Result<Vec<Option<ValueId>>> {
    if cx.node.input(2).is_some() && cx.constant(2)?.is_none_or(|t| t.to_f64s().is_ok_and(|v| v != [0.0])) {
        return Err(Error::unsupported("no derivative is known in training mode"));
    }
    reshaped(cx)
}

pub fn cast_like(cx: &mut Cx) -> Result<Vec<Option<ValueId>>> {
    let (g, x) = (cx.g()?, cx.x(0)?);
    let to = i64::from(cx.b.dtype(x)?.onnx());
    let d = cx.b.with("Cast", Attrs::new().with("to", to), &[g])?;
    Ok(cx.first(d))
}

pub fn transposed(cx: &mut Cx) -> Result<Vec<Option<ValueId>>> {
    let (g, rank) = (cx.g()?, cx.shape(0)?.len());
    let perm: Vec<usize> = match cx.node.attrs.ints("perm")? {
        Some(p) => p.iter().map(|&a| axis(a, rank)).collect::<Result<_>>()?,
        None => (0..rank).rev().collect(),
    };
    let mut back = vec![0; rank];
    perm.iter().enumerate().for_each(|(i, &p)| back[p] = i);
    let d = cx.b.transpose(g, &back)?;
    Ok(cx.first(d))
}

pub fn expanded(cx: &mut Cx) -> Result<Vec<Option<ValueId>>> {
    let (g, from, to) = (cx.g()?, cx.output_shape(0)?, cx.shape(0)?);
    let d = cx.b.sum_to(g, &from, &to)?;
    Ok(cx.first(d))
}

pub fn concat(cx: &mut Cx) -> Result<Vec<Option<ValueId>>> {
    let g = cx.g()?;
    let at = axis(cx.node.attrs.require_int("axis")?, cx.output_shape(0)?.len())?;
    let (mut grads, mut start) = (Vec::new(), 0);
    for i in 0..cx.needs.len() {
        let end = start + cx.shape(i)?[at];
        grads.push(if cx.need(i) { Some(cx.b.slice(g, at, start, end)?) } else { None });
        start = end;
    }
    Ok(grads)
}

pub fn split(cx: &mut Cx) -> Result<Vec<Option<ValueId>>> {
    let at = axis(cx.node.attrs.int_or("axis", 0)?, cx.shape(0)?.len())?;
    let x = cx.x(0)?;
    let mut parts = Vec::new();
    for i in 0..cx.outputs.len() {
        parts.push(match cx.outputs[i] {
            Some(g) => g,
            None if cx.node.output(i).is_none() => {
                return Err(Error::unsupported("no derivative is known of a split without all its parts"));
            }
            None => {
                let shape = cx.output_shape(i)?;
                cx.b.fill(x, &shape, 0.0)?
            }
        });
    }
    let d = cx.b.with("Concat", Attrs::new().with("axis", at as i64), &parts)?;
    Ok(cx.first(d))
}

pub fn slice(cx: &mut Cx) -> Result<Vec<Option<ValueId>>> {
    let shape = cx.shape(0)?;
    let steps = cx.ints(4)?.unwrap_or_default();
    if steps.iter().any(|&s| s != 1) {
        return moved(cx);
    }
    let (g, out) = (cx.g()?, cx.output_shape(0)?);
    let starts = cx.ints(1)?.unwrap_or_default();
    let axes = cx.ints(3)?.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let rank = shape.len();
    let mut pads = vec![0i64; 2 * rank];
    for (&start, &a) in starts.iter().zip(&axes) {
        let a = axis(a, rank)?;
        let n = shape[a] as i64;
        let start = if start < 0 { start.saturating_add(n) } else { start }.clamp(0, n);
        (pads[a], pads[rank + a]) = (start, n - start - out[a] as i64);
    }
    let pads = cx.b.ints(&pads);
    let d = cx.b.op("Pad", &[g, pads])?;
    Ok(cx.first(d))
}

pub fn pad(cx: &mut Cx) -> Result<Vec<Option<ValueId>>> {
    if cx.need(2) {
        return Err(Error::unsupported("no derivative is known in the value that is padded with"));
    }
    let pads = cx.ints(1)?.unwrap_or_default();
    if cx.node.attrs.str_or("mode", "constant")? != "constant" || pads.iter().any(|&p| p < 0) {
        return moved(cx);
    }
    let (mut d, shape) = (cx.g()?, cx.shape(0)?);
    let axes = cx.ints(3)?.unwrap_or_else(|| (0..shape.len() as i64).collect());
    for (&before, &a) in pads.iter().zip(&axes) {
        let (a, start) = (axis(a, shape.len())?, before as usize);
        d = cx.b.slice(d, a, start, start + shape[a])?;
    }
    Ok(cx.first(d))
}

/// Any movement that constants describe: moving the numbers of the places tells where every element came from.
pub fn moved(cx: &mut Cx) -> Result<Vec<Option<ValueId>>> {
    let (g, x, shape) = (cx.g()?, cx.x(0)?, cx.shape(0)?);
    let n: usize = shape.iter().product();
    // Place 0 is what comes from nowhere.
    let places = Tensor::from_i64s(DType::I64, &shape, (1..=n as i64).collect())?;
    let mut inputs = vec![Some(places)];
    for i in 1..cx.node.inputs().len() {
        let filling = cx.node.is("Pad") && i == 2 && cx.node.input(2).is_some();
        inputs.push(if filling { Some(Tensor::scalar(0i64)) } else { cx.constant(i)? });
    }
    let from = evaluated(&cx.node, &inputs)?;
    let from = cx.b.constant(from);
    let d = scattered(cx.b, x, g, from, &[n + 1])?;
    let d = cx.b.slice(d, 0, 1, n + 1)?;
    let d = cx.b.reshape(d, &shape)?;
    Ok(cx.first(d))
}

/// Indices from 0, whatever their sign was.
fn counted(cx: &mut Cx, indices: ValueId, size: usize) -> Result<ValueId> {
    let int = |cx: &mut Cx, v: i64| -> Result<ValueId> {
        let t = Tensor::from_i64s(cx.b.dtype(indices)?, &[], vec![v])?;
        Ok(cx.b.constant(t))
    };
    let (zero, size) = (int(cx, 0)?, int(cx, size as i64)?);
    let below = cx.b.op("Less", &[indices, zero])?;
    let from_end = cx.b.op("Add", &[indices, size])?;
    let found = cx.b.op("Where", &[below, from_end, indices])?;
    let to = i64::from(DType::I64.onnx());
    cx.b.with("Cast", Attrs::new().with("to", to), &[found])
}

pub fn gather(cx: &mut Cx) -> Result<Vec<Option<ValueId>>> {
    let (g, x, indices) = (cx.g()?, cx.x(0)?, cx.x(1)?);
    let (shape, picked) = (cx.shape(0)?, cx.shape(1)?);
    let at = axis(cx.node.attrs.int_or("axis", 0)?, shape.len())?;
    let indices = counted(cx, indices, shape[at])?;
    let column: Vec<usize> = picked.iter().copied().chain([1]).collect();
    let indices = cx.b.reshape(indices, &column)?;
    // The gathered axis goes first, in the gradient as in the result.
    let (q, rank) = (picked.len(), shape.len());
    let forward: Vec<usize> = (at..at + q).chain(0..at).chain(at + q..rank - 1 + q).collect();
    let g = cx.b.transpose(g, &forward)?;
    let order: Vec<usize> = std::iter::once(at).chain((0..rank).filter(|&a| a != at)).collect();
    let turned: Vec<usize> = order.iter().map(|&a| shape[a]).collect();
    let zeros = cx.b.fill(x, &turned, 0.0)?;
    let d = cx.b.with("ScatterND", Attrs::new().with("reduction", "add"), &[zeros, indices, g])?;
    let mut back = vec![0; rank];
    order.iter().enumerate().for_each(|(i, &a)| back[a] = i);
    let d = cx.b.transpose(d, &back)?;
    Ok(cx.first(d))
}

pub fn gather_elements(cx: &mut Cx) -> Result<Vec<Option<ValueId>>> {
    let (g, x, indices, shape) = (cx.g()?, cx.x(0)?, cx.x(1)?, cx.shape(0)?);
    let zeros = cx.b.fill(x, &shape, 0.0)?;
    let attrs = Attrs::new().with("axis", cx.node.attrs.int_or("axis", 0)?).with("reduction", "add");
    let d = cx.b.with("ScatterElements", attrs, &[zeros, indices, g])?;
    Ok(cx.first(d))
}

pub fn gather_nd(cx: &mut Cx) -> Result<Vec<Option<ValueId>>> {
    let (g, x, indices, shape) = (cx.g()?, cx.x(0)?, cx.x(1)?, cx.shape(0)?);
    if cx.node.attrs.int_or("batch_dims", 0)? != 0 {
        return Err(Error::unsupported("no derivative is known with batch dimensions"));
    }
    let zeros = cx.b.fill(x, &shape, 0.0)?;
    let d = cx.b.with("ScatterND", Attrs::new().with("reduction", "add"), &[zeros, indices, g])?;
    Ok(cx.first(d))
}
