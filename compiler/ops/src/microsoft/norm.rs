//! Normalisations with what precedes them.

use crate::function::{Body, Outputs, plain};
use ir::{Attrs, DType, Error, Result, Tensor, ValueId};

fn normal(b: &Body) -> Result<Attrs> {
    Ok(plain().with("axis", -1).with("epsilon", b.attrs.float_or("epsilon", 1e-12)?))
}

/// Sum of input, skip and bias, normalised; the sum is the fourth output.
fn skip(b: &mut Body, op: &str, gamma: usize, bias: usize, beta: Option<usize>) -> Result<Outputs> {
    let sum = b.op("Add", &[b.need(0)?, b.need(1)?])?;
    let sum = b.plus(sum, b.get(bias))?;
    let attrs = normal(b)?;
    let mut inputs = vec![Some(sum), Some(b.need(gamma)?)];
    inputs.extend(beta.and_then(|i| b.get(i)).map(Some));
    let y = b.opt(op, attrs, &inputs)?;
    Ok(vec![Some(y), None, None, Some(sum)])
}

pub fn skip_layer(b: &mut Body) -> Result<Outputs> {
    skip(b, "LayerNormalization", 2, 4, Some(3))
}

pub fn skip_rms(b: &mut Body) -> Result<Outputs> {
    skip(b, "RMSNormalization", 2, 3, None)
}

/// Sum of word, position and segment embeddings, normalised; the number of tokens of each row by its mask; the sum.
pub fn embed(b: &mut Body) -> Result<Outputs> {
    let (ids, table) = (b.need(0)?, b.need(3)?);
    let words = b.op("Gather", &[b.need(2)?, ids])?;
    let positions = match b.get(8) {
        Some(p) => b.op("Gather", &[table, p])?,
        None => {
            let (zero, len) = (b.ints(&[0]), b.dim(ids, 1)?);
            let rows = b.slice(table, zero, len, 0)?;
            b.unsqueeze(rows, &[0])?
        }
    };
    let mut sum = b.op("Add", &[words, positions])?;
    if let (Some(s), Some(table)) = (b.get(1), b.get(4)) {
        let segments = b.op("Gather", &[table, s])?;
        sum = b.op("Add", &[sum, segments])?;
    }
    let attrs = normal(b)?;
    let y = b.op_with("LayerNormalization", attrs, &[sum, b.need(5)?, b.need(6)?])?;
    let index = match b.get(7) {
        Some(mask) => {
            let axes = b.ints(&[1]);
            b.op_with("ReduceSum", plain().with("keepdims", 0), &[mask, axes])?
        }
        None => {
            let batch = b.dim(ids, 0)?;
            let zero = Tensor::zeros(DType::I32, &[1])?;
            b.op_with("ConstantOfShape", plain().with("value", zero), &[batch])?
        }
    };
    Ok(vec![Some(y), Some(index), Some(sum)])
}

fn grouped(b: &mut Body, x: ValueId, gamma: ValueId, beta: ValueId) -> Result<ValueId> {
    let last = b.attrs.int_or("channels_last", 1)? != 0;
    let dtype = b.dtype(x)?;
    let (gamma, beta) = (b.cast(gamma, dtype)?, b.cast(beta, dtype)?);
    let x = if last { b.channels(x, false)? } else { x };
    let attrs = plain()
        .with("num_groups", b.attrs.require_int("groups")?)
        .with("epsilon", b.attrs.float_or("epsilon", 1e-5)?);
    let mut y = b.op_with("GroupNormalization", attrs, &[x, gamma, beta])?;
    match b.attrs.require_int("activation")? {
        0 => {}
        1 => {
            let s = b.op("Sigmoid", &[y])?;
            y = b.op("Mul", &[y, s])?;
        }
        n => return Err(Error::model(format!("activation {n} is not known"))),
    }
    if last { b.channels(y, true) } else { Ok(y) }
}

pub fn group(b: &mut Body) -> Result<Outputs> {
    let (x, gamma, beta) = (b.need(0)?, b.need(1)?, b.need(2)?);
    Ok(vec![Some(grouped(b, x, gamma, beta)?)])
}

pub fn skip_group(b: &mut Body) -> Result<Outputs> {
    let (x, skip) = (b.need(0)?, b.need(3)?);
    // A skip of rank 2 holds one value for each sample and channel.
    let skip = if b.rank(skip)? == 2 && b.rank(x)? == 4 {
        let channels_last = b.attrs.int_or("channels_last", 1)? != 0;
        b.unsqueeze(skip, if channels_last { &[1, 2] } else { &[2, 3] })?
    } else {
        skip
    };
    let sum = b.op("Add", &[x, skip])?;
    let sum = b.plus(sum, b.get(4))?;
    let (gamma, beta) = (b.need(1)?, b.need(2)?);
    Ok(vec![Some(grouped(b, sum, gamma, beta)?), Some(sum)])
}
