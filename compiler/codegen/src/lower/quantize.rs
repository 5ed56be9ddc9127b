//! Quantization and dequantization of activations.

use super::{Cx, Lowered, Work};
use crate::kernel::{Io, text};
use ir::{DType, Node};
use kernels::convert::{Quantized, Scales, dequantize, quantize, quantize_dynamic};

pub fn lower(cx: &Cx, n: &Node) -> Option<Lowered> {
    if !n.op.domain().is_empty() {
        return None;
    }
    match n.op.name() {
        "QuantizeLinear" => to_integers(cx, n),
        "DequantizeLinear" => to_floats(cx, n),
        "DynamicQuantizeLinear" => dynamic(cx, n),
        _ => None,
    }
}

/// Elements after the axis of the scales.
fn inner(cx: &Cx, n: &Node) -> Option<usize> {
    let (shape, scales) = (cx.shape(n.input(0)?)?, cx.f32_shape(n.input(1)?)?);
    let count: usize = scales.iter().product();
    if n.attrs.int_or("block_size", 0).ok()? != 0 {
        return None;
    }
    if let Some(z) = n.input(2)
        && cx.shape(z)?.iter().product::<usize>() != count
    {
        return None;
    }
    if count == 1 {
        return Some(1);
    }
    let axis = ops::broadcast::axis(n.attrs.int_or("axis", 1).ok()?, shape.len()).ok()?;
    (scales.len() == 1 && shape[axis] == count).then(|| shape[axis + 1..].iter().product())
}

/// Scales and zero points of a step: operands 1 and, if there, 2.
fn scales<'a, Q: Quantized + crate::kernel::Plain>(io: &'a Io, zero: bool, inner: usize) -> Scales<'a, Q> {
    Scales { scale: io.input(1), zero: if zero { io.input(2) } else { &[] }, inner }
}

macro_rules! by_type {
    ($dtype:expr, $t:ident => $e:expr) => {
        match $dtype {
            DType::U8 => {
                type $t = u8;
                $e
            }
            DType::I8 => {
                type $t = i8;
                $e
            }
            DType::U16 => {
                type $t = u16;
                $e
            }
            DType::I16 => {
                type $t = i16;
                $e
            }
            _ => None,
        }
    };
}

fn to_integers(cx: &Cx, n: &Node) -> Option<Lowered> {
    let (x, y) = (n.input(0)?, n.output(0)?);
    let flops = 4.0 * cx.f32_shape(x)?.iter().product::<usize>() as f64;
    let (inner, zero) = (inner(cx, n)?, n.input(2).is_some());
    let reads = n.inputs().iter().copied().flatten().collect();
    by_type!(cx.graph.dtype(y)?, Q => Some(Lowered::kernel("quantization", reads, y, flops, move |io| {
        quantize::<Q>(io.pool, io.input(0), scales(io, zero, inner), io.output(0)).map_err(text)
    })))
}

fn to_floats(cx: &Cx, n: &Node) -> Option<Lowered> {
    let (x, y) = (n.input(0)?, n.output(0)?);
    let flops = 2.0 * cx.f32_shape(y)?.iter().product::<usize>() as f64;
    let (inner, zero) = (inner(cx, n)?, n.input(2).is_some());
    let reads = n.inputs().iter().copied().flatten().collect();
    by_type!(cx.graph.dtype(x)?, Q => Some(Lowered::kernel("dequantization", reads, y, flops, move |io| {
        dequantize::<Q>(io.pool, io.input(0), scales(io, zero, inner), io.output(0)).map_err(text)
    })))
}

fn dynamic(cx: &Cx, n: &Node) -> Option<Lowered> {
    let x = n.input(0)?;
    let flops = 6.0 * cx.f32_shape(x)?.iter().product::<usize>() as f64;
    let writes = (0..3).map(|i| n.output(i)).collect::<Option<Vec<_>>>()?;
    let work = move |io: &Io| {
        let (scale, zero) = quantize_dynamic(io.pool, io.input(0), io.output::<u8>(0)).map_err(text)?;
        io.output::<f32>(1).fill(scale);
        io.output::<u8>(2).fill(zero);
        Ok(())
    };
    Some(Lowered {
        kind: "quantization",
        work: Work::Kernel(Box::new(work)),
        reads: vec![x],
        writes,
        flops,
        call: None,
    })
}
