//! Operators that the standard has too, under another form.

use crate::function::{Body, Outputs, plain};
use ir::{DType, Error, Result, Tensor};

fn same(b: &mut Body, op: &str) -> Result<Outputs> {
    let inputs = b.inputs.clone();
    Ok(vec![Some(b.opt(op, b.attrs.clone(), &inputs)?)])
}

pub fn quantize_linear(b: &mut Body) -> Result<Outputs> {
    same(b, "QuantizeLinear")
}

pub fn dequantize_linear(b: &mut Body) -> Result<Outputs> {
    same(b, "DequantizeLinear")
}

pub fn trilu(b: &mut Body) -> Result<Outputs> {
    same(b, "Trilu")
}

pub fn gather_nd(b: &mut Body) -> Result<Outputs> {
    let indices = b.cast(b.need(1)?, DType::I64)?;
    Ok(vec![Some(b.op("GatherND", &[b.need(0)?, indices])?)])
}

pub fn pad(b: &mut Body) -> Result<Outputs> {
    let pads = b.need(1)?;
    let pads = if b.rank(pads)? == 2 { b.squeeze(pads, &[0])? } else { pads };
    let inputs = [Some(b.need(0)?), Some(pads), b.get(2)];
    Ok(vec![Some(b.opt("Pad", b.attrs.clone(), &inputs)?)])
}

pub fn expand_dims(b: &mut Body) -> Result<Outputs> {
    let axis = b.cast(b.need(1)?, DType::I64)?;
    let axis = b.reshape(axis, &[1])?;
    Ok(vec![Some(b.op("Unsqueeze", &[b.need(0)?, axis])?)])
}

pub fn range(b: &mut Body) -> Result<Outputs> {
    let start = b.need(0)?;
    let delta = match b.get(2) {
        Some(d) => d,
        None => {
            let one = Tensor::from_i64s(DType::I64, &[], vec![1])?;
            let one = b.constant(one);
            let dtype = b.dtype(start)?;
            b.cast(one, dtype)?
        }
    };
    let mut scalar = |v| b.reshape(v, &[]);
    let (start, delta) = (scalar(start)?, scalar(delta)?);
    let limit = b.need(1)?;
    let limit = b.reshape(limit, &[])?;
    Ok(vec![Some(b.op("Range", &[start, limit, delta])?)])
}

pub fn torch_embedding(b: &mut Body) -> Result<Outputs> {
    Ok(vec![Some(b.op("Gather", &[b.need(0)?, b.need(1)?])?)])
}

pub fn nhwc_max_pool(b: &mut Body) -> Result<Outputs> {
    let x = b.channels(b.need(0)?, false)?;
    let y = b.op_with("MaxPool", b.attrs.clone(), &[x])?;
    Ok(vec![Some(b.channels(y, true)?)])
}

/// True when no element of any input is infinite (unless only NaN count) or NaN (unless only infinities count).
pub fn is_all_finite(b: &mut Body) -> Result<Outputs> {
    let (nan, inf) = (b.flag("isnan_only")?, b.flag("isinf_only")?);
    if nan && inf {
        return Err(Error::model("isnan_only and isinf_only exclude each other"));
    }
    let mut any = None;
    for x in b.inputs.clone().into_iter().flatten() {
        let mut found = Vec::new();
        if !inf {
            found.push(b.op("IsNaN", &[x])?);
        }
        if !nan {
            found.push(b.op("IsInf", &[x])?);
        }
        for f in found {
            let f = b.cast(f, DType::I32)?;
            let flat = b.reshape(f, &[-1])?;
            let axes = b.ints(&[0]);
            let n = b.op_with("ReduceSum", plain().with("keepdims", 0), &[flat, axes])?;
            any = Some(match any {
                Some(sum) => b.op("Add", &[sum, n])?,
                None => n,
            });
        }
    }
    let any = any.ok_or_else(|| Error::model("takes one input or more"))?;
    let any = b.cast(any, DType::Bool)?;
    Ok(vec![Some(b.op("Not", &[any])?)])
}
