//! Quantization and dequantization of activations, and casts between floats.

use super::{Cx, Lowered, Work};
use artefact::{Call, Stores};
use ir::{DType, Node};

pub fn lower(cx: &Cx, n: &Node) -> Option<Lowered> {
    if !n.op.domain().is_empty() {
        return None;
    }
    match n.op.name() {
        "QuantizeLinear" => to_integers(cx, n),
        "DequantizeLinear" => to_floats(cx, n),
        "DynamicQuantizeLinear" => dynamic(cx, n),
        "Cast" => halves(cx, n),
        _ => None,
    }
}

/// Float32 from or to 16 bits.
fn halves(cx: &Cx, n: &Node) -> Option<Lowered> {
    let (x, y) = (n.input(0)?, n.output(0)?);
    let call = match (cx.graph.dtype(x)?, cx.graph.dtype(y)?) {
        (DType::F16, DType::F32) => Call::Widen { brain: false },
        (DType::BF16, DType::F32) => Call::Widen { brain: true },
        (DType::F32, DType::F16) => Call::Narrow { brain: false },
        (DType::F32, DType::BF16) => Call::Narrow { brain: true },
        _ => return None,
    };
    let elements = cx.shape(y)?.iter().product::<usize>();
    Some(Lowered::call("conversion", vec![x], y, elements as f64, call))
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

fn stores(d: DType) -> Option<Stores> {
    Some(match d {
        DType::U8 => Stores::U8,
        DType::I8 => Stores::I8,
        DType::U16 => Stores::U16,
        DType::I16 => Stores::I16,
        _ => return None,
    })
}

fn to_integers(cx: &Cx, n: &Node) -> Option<Lowered> {
    let (x, y) = (n.input(0)?, n.output(0)?);
    let flops = 4.0 * cx.f32_shape(x)?.iter().product::<usize>() as f64;
    let to = stores(cx.graph.dtype(y)?)?;
    let call = Call::Quantize { to, zero: n.input(2).is_some(), inner: inner(cx, n)? };
    Some(Lowered::call("quantization", n.inputs().iter().copied().flatten().collect(), y, flops, call))
}

fn to_floats(cx: &Cx, n: &Node) -> Option<Lowered> {
    let (x, y) = (n.input(0)?, n.output(0)?);
    let flops = 2.0 * cx.f32_shape(y)?.iter().product::<usize>() as f64;
    let from = stores(cx.graph.dtype(x)?)?;
    let call = Call::Dequantize { from, zero: n.input(2).is_some(), inner: inner(cx, n)? };
    Some(Lowered::call("dequantization", n.inputs().iter().copied().flatten().collect(), y, flops, call))
}

fn dynamic(cx: &Cx, n: &Node) -> Option<Lowered> {
    let x = n.input(0)?;
    let flops = 6.0 * cx.f32_shape(x)?.iter().product::<usize>() as f64;
    let writes = (0..3).map(|i| n.output(i)).collect::<Option<Vec<_>>>()?;
    let work = Work::Call(Box::new(Call::QuantizeDynamic));
    Some(Lowered { kind: "quantization", work, reads: vec![x], writes, flops })
}
