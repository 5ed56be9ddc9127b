//! 8-bit operators with float meaning: dequantized, computed, quantized again, which exact rules turn back into integer
//! kernels where there are some.

use crate::function::{Body, Outputs, plain};
use ir::{Attrs, DType, Error, Result, Tensor, ValueId};

/// Input `i` with its scale and zero point behind it, as floats.
fn floats(b: &mut Body, i: usize) -> Result<ValueId> {
    floats_of(b, b.need(i)?, b.need(i + 1)?, b.get(i + 2), plain())
}

fn floats_of(
    b: &mut Body,
    x: ValueId,
    scale: ValueId,
    zero: Option<ValueId>,
    attrs: Attrs,
) -> Result<ValueId> {
    let scale = scalar(b, scale)?;
    let zero = zero.map(|z| scalar(b, z)).transpose()?;
    b.opt("DequantizeLinear", attrs, &[Some(x), Some(scale), zero])
}

/// One-element vectors, which these operators take, as scalars.
fn scalar(b: &mut Body, v: ValueId) -> Result<ValueId> {
    if b.g.ty(v).rank() == Some(1) && b.size(v, 0) == Some(1) { b.reshape(v, &[]) } else { Ok(v) }
}

/// Bytes of type `dtype`, with scale and zero point from inputs `i` and `i + 1`.
fn bytes(b: &mut Body, y: ValueId, i: usize, dtype: DType) -> Result<Outputs> {
    let scale = scalar(b, b.need(i)?)?;
    let zero = match b.get(i + 1) {
        Some(z) => scalar(b, z)?,
        None => {
            let zero = Tensor::zeros(dtype, &[])?;
            b.constant(zero)
        }
    };
    Ok(vec![Some(b.op("QuantizeLinear", &[y, scale, zero])?)])
}

fn unary(b: &mut Body, f: impl FnOnce(&mut Body, ValueId) -> Result<ValueId>) -> Result<Outputs> {
    let dtype = b.dtype(b.need(0)?)?;
    let x = floats(b, 0)?;
    let y = f(b, x)?;
    bytes(b, y, 3, dtype)
}

fn binary(b: &mut Body, op: &str) -> Result<Outputs> {
    let dtype = b.dtype(b.need(0)?)?;
    let sides = [floats(b, 0)?, floats(b, 3)?];
    let y = b.op(op, &sides)?;
    bytes(b, y, 6, dtype)
}

pub fn add(b: &mut Body) -> Result<Outputs> {
    binary(b, "Add")
}

pub fn mul(b: &mut Body) -> Result<Outputs> {
    binary(b, "Mul")
}

pub fn sigmoid(b: &mut Body) -> Result<Outputs> {
    unary(b, |b, x| b.op("Sigmoid", &[x]))
}

pub fn leaky_relu(b: &mut Body) -> Result<Outputs> {
    unary(b, |b, x| b.op_with("LeakyRelu", b.attrs.clone(), &[x]))
}

/// `f` with channels first.
fn pooled(b: &mut Body, f: impl FnOnce(&mut Body, ValueId) -> Result<ValueId>) -> Result<Outputs> {
    let last = b.flag("channels_last")?;
    unary(b, |b, x| {
        let x = if last { b.channels(x, false)? } else { x };
        let y = f(b, x)?;
        if last { b.channels(y, true) } else { Ok(y) }
    })
}

pub fn average_pool(b: &mut Body) -> Result<Outputs> {
    pooled(b, |b, x| b.op_with("AveragePool", b.attrs_without(&["channels_last"]), &[x]))
}

pub fn global_average_pool(b: &mut Body) -> Result<Outputs> {
    pooled(b, |b, x| b.op("GlobalAveragePool", &[x]))
}

pub fn reduce_mean(b: &mut Body) -> Result<Outputs> {
    let (axes, keep) = (b.attrs.require_ints("axes")?.to_vec(), b.attrs.int_or("keepdims", 1)?);
    unary(b, |b, x| {
        let axes = b.ints(&axes);
        b.op_with("ReduceMean", plain().with("keepdims", keep), &[x, axes])
    })
}

/// From opset 13 on along `axis`; before it over all axes from `axis` on, as one.
pub fn softmax(b: &mut Body) -> Result<Outputs> {
    let new = b.attrs.require_int("opset")? >= 13;
    let rank = b.rank(b.need(0)?)? as i64;
    let axis = b.attrs.int_or("axis", if new { -1 } else { 1 })?;
    unary(b, |b, x| {
        let last = axis == -1 || axis == rank - 1;
        if new || last {
            return b.op_with("Softmax", plain().with("axis", axis), &[x]);
        }
        let shape = b.op("Shape", &[x])?;
        let flat = b.op_with("Flatten", plain().with("axis", axis), &[x])?;
        let y = b.op_with("Softmax", plain().with("axis", -1), &[flat])?;
        b.op("Reshape", &[y, shape])
    })
}

pub fn choose(b: &mut Body) -> Result<Outputs> {
    let dtype = b.dtype(b.need(1)?)?;
    let (x, y) = (floats(b, 1)?, floats(b, 4)?);
    let z = b.op("Where", &[b.need(0)?, x, y])?;
    bytes(b, z, 7, dtype)
}

/// Scale and zero point of the result, then tensors with theirs.
pub fn concat(b: &mut Body) -> Result<Outputs> {
    let dtype = b.dtype(b.need(1)?)?;
    if b.inputs.len() < 5 || !(b.inputs.len() - 2).is_multiple_of(3) {
        return Err(Error::model(
            "takes a scale, a zero point and tensors with a scale and a zero point each",
        ));
    }
    let parts = (2..b.inputs.len()).step_by(3).map(|i| floats(b, i)).collect::<Result<Vec<_>>>()?;
    let y = b.concat(b.attrs.require_int("axis")?, &parts)?;
    bytes(b, y, 0, dtype)
}

pub fn conv(b: &mut Body) -> Result<Outputs> {
    let last = b.flag("channels_last")?;
    let mut inputs = b.inputs.clone();
    if last {
        inputs[0] = Some(b.channels(b.need(0)?, false)?);
    }
    let y = b.opt("QLinearConv", b.attrs_without(&["channels_last"]), &inputs)?;
    Ok(vec![Some(if last { b.channels(y, true)? } else { y })])
}

/// Integer product of inputs `a` and `w`, times both scales, plus a bias.
pub(super) fn product(
    b: &mut Body,
    [a, w]: [ValueId; 2],
    [a_scale, w_scale]: [ValueId; 2],
    zeros: [Option<ValueId>; 2],
    bias: Option<ValueId>,
) -> Result<ValueId> {
    let [a_zero, w_zero] = zeros;
    let a_zero = a_zero.map(|z| scalar(b, z)).transpose()?;
    let w_zero = w_zero.map(|z| scalar(b, z)).transpose()?;
    let sums = b.opt("MatMulInteger", plain(), &[Some(a), Some(w), a_zero, w_zero])?;
    let float = b.dtype(a_scale)?;
    let sums = b.cast(sums, float)?;
    let (a_scale, w_scale) = (scalar(b, a_scale)?, scalar(b, w_scale)?);
    let scale = b.op("Mul", &[a_scale, w_scale])?;
    let y = b.op("Mul", &[sums, scale])?;
    b.plus(y, bias)
}

pub fn dynamic_matmul(b: &mut Body) -> Result<Outputs> {
    let q = b.node("DynamicQuantizeLinear", plain(), &[Some(b.need(0)?)], 3)?;
    let (w, w_scale) = (b.need(1)?, b.need(2)?);
    let y = product(b, [q[0], w], [q[1], w_scale], [Some(q[2]), b.get(3)], b.get(4))?;
    Ok(vec![Some(y)])
}

pub fn matmul_to_float(b: &mut Body) -> Result<Outputs> {
    let (a, w, scales) = (b.need(0)?, b.need(1)?, [b.need(2)?, b.need(3)?]);
    Ok(vec![Some(product(b, [a, w], scales, [b.get(4), b.get(5)], b.get(6))?)])
}

/// `alpha · op(A) · op(B) + C`, where C counts in steps of `alpha · a_scale · b_scale`.
pub fn gemm(b: &mut Body) -> Result<Outputs> {
    let (a, b_scale) = (b.need(0)?, b.need(4)?);
    let (dtype, alpha) = (b.dtype(a)?, b.attrs.float_or("alpha", 1.0)?);
    let columns = if b.flag("transB")? { 0 } else { 1 };
    let x = floats(b, 0)?;
    let w = floats_of(b, b.need(3)?, b_scale, b.get(5), plain().with("axis", columns))?;
    let mut y = b.op_with("Gemm", b.attrs.clone(), &[x, w])?;
    if let Some(c) = b.get(6) {
        let c = b.cast(c, DType::F32)?;
        let (a_scale, b_scale) = (scalar(b, b.need(1)?)?, scalar(b, b_scale)?);
        let mut step = b.op("Mul", &[a_scale, b_scale])?;
        if alpha != 1.0 {
            let alpha = b.number(step, alpha)?;
            step = b.op("Mul", &[step, alpha])?;
        }
        let c = b.op("Mul", &[c, step])?;
        y = b.op("Add", &[y, c])?;
    }
    if b.get(7).is_none() {
        return Ok(vec![Some(y)]);
    }
    let dtype = b.get(8).and_then(|z| b.g.dtype(z)).unwrap_or(dtype);
    bytes(b, y, 7, dtype)
}

fn shifted(b: &mut Body, i: usize) -> Result<ValueId> {
    let x = b.cast(b.need(i)?, DType::I32)?;
    let Some(z) = b.get(i + 1) else { return Ok(x) };
    let z = b.cast(z, DType::I32)?;
    b.op("Sub", &[x, z])
}

pub fn mul_integer(b: &mut Body) -> Result<Outputs> {
    let sides = [shifted(b, 0)?, shifted(b, 2)?];
    Ok(vec![Some(b.op("Mul", &sides)?)])
}

pub fn reduce_sum(b: &mut Body) -> Result<Outputs> {
    let (axes, keep) = (b.attrs.require_ints("axes")?.to_vec(), b.attrs.require_int("keepdims")?);
    let x = b.need(0)?;
    let wide = if b.dtype(x)? == DType::U8 { DType::U32 } else { DType::I32 };
    let (x, axes) = (b.cast(x, wide)?, b.ints(&axes));
    Ok(vec![Some(b.op_with("ReduceSum", plain().with("keepdims", keep), &[x, axes])?)])
}
