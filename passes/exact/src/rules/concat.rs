//! Values side by side as the bytes that stand for them. For running here.

use super::fuse::along;
use super::quantized::{is_byte, single};
use crate::rule::{Cx, Rule};
use egg::Id;
use ir::{Attrs, DType, Tensor};

pub static RULES: &[Rule] = &[
    Rule::build("dequantize-after-concat", "(Concat ?a ...)", of_one_scale).runtime(),
    // Values of several scales are bytes with a factor for each channel.
    Rule::build("dequantize-by-channel-after-concat", "(Concat ?a ...)", of_several_scales).runtime(),
    // What is put together is bytes then, which contractions store and tables make of other bytes.
    Rule::build("quantize-before-concat", "(QuantizeLinear ?q (Concat ?a ...) ?s ?z)", quantized_parts)
        .runtime(),
];

/// Bytes and what they stand for, as one operand of a concatenation has them.
struct Part {
    attrs: Attrs,
    bytes: Id,
    scale: Id,
    zero: Id,
    /// A further factor for each step of an axis.
    factor: Option<Id>,
}

impl Part {
    fn of(cx: &Cx, id: Id) -> Option<Part> {
        let (attrs, inputs) = cx.find(id, "DequantizeLinear")?;
        let &[bytes, scale, zero] = &inputs[..] else { return None };
        let one = single(cx, scale)? && (cx.absent(zero) || single(cx, zero)?);
        let plain = attrs.int_or("block_size", 0).ok()? == 0 && is_byte(cx, bytes);
        (one && plain).then_some(Part { attrs, bytes, scale, zero, factor: None })
    }

    /// As [`Part::of`], also where a constant scales the result.
    fn scaled(cx: &Cx, id: Id) -> Option<Part> {
        Part::of(cx, id).or_else(|| {
            cx.nodes(id, "Mul").find_map(|(_, inputs)| {
                let &[x, y] = &inputs[..] else { return None };
                let factor = |c: Id| cx.constant(c).then_some(c);
                let with = |x, c| Some(Part { factor: Some(factor(c)?), ..Part::of(cx, x)? });
                with(x, y).or_else(|| with(y, x))
            })
        })
    }

    /// The zero point where it is known.
    fn zero(&self, cx: &Cx) -> Option<i64> {
        if cx.absent(self.zero) { Some(0) } else { cx.ints(self.zero)?.first().copied() }
    }

    /// What bytes less their zero point are multiplied by, for each of the `n` steps of an axis.
    fn factors(&self, cx: &mut Cx, rank: usize, axis: usize, n: usize) -> Option<Vec<f32>> {
        let scale = scale_of(cx, self.scale)?;
        let Some(c) = self.factor else { return Some(vec![scale; n]) };
        let c = along(cx, c, rank, axis, n)?;
        Some(cx.value(c)?.to_f32s().ok()?.into_iter().map(|c| c * scale).collect())
    }
}

/// Bytes of one type, some of which are not known before.
fn alike(cx: &Cx, parts: &[Part]) -> bool {
    let same = parts.iter().all(|p| cx.dtype(p.bytes) == cx.dtype(parts[0].bytes));
    same && !parts.iter().all(|p| cx.constant(p.bytes))
}

fn of_one_scale(cx: &mut Cx) -> Option<Id> {
    let parts = cx.rest().into_iter().map(|p| Part::of(cx, p)).collect::<Option<Vec<Part>>>()?;
    let first = parts.first().filter(|_| parts.len() > 1)?;
    if !alike(cx, &parts) || parts.iter().any(|p| (p.scale, p.zero) != (first.scale, first.zero)) {
        return None;
    }
    let bytes: Vec<Id> = parts.iter().map(|p| p.bytes).collect();
    let joined = cx.op("Concat", cx.attrs("?a")?, &bytes)?;
    cx.op("DequantizeLinear", first.attrs.clone(), &[joined, first.scale, first.zero])
}

fn of_several_scales(cx: &mut Cx) -> Option<Id> {
    let parts = cx.rest().into_iter().map(|p| Part::scaled(cx, p)).collect::<Option<Vec<Part>>>()?;
    let first = parts.first().filter(|_| parts.len() > 1)?;
    let zero = first.zero(cx)?;
    // Dequantizations may give other floats.
    if !alike(cx, &parts) || cx.dtype(cx.class())? != DType::F32 {
        return None;
    }
    let a = cx.attrs("?a")?;
    let rank = cx.rank(cx.class())?;
    let axis = ops::broadcast::axis(a.require_int("axis").ok()?, rank).ok()?;
    let mut factors = Vec::new();
    for p in &parts {
        let steps = *cx.shape(p.bytes)?.get(axis)?;
        if p.zero(cx)? != zero {
            return None;
        }
        factors.extend(p.factors(cx, rank, axis, steps)?);
    }
    let &one = factors.first()?;
    if factors.iter().all(|&f| f == one) {
        return None;
    }
    let mut shape = vec![1; rank];
    shape[axis] = factors.len();
    let factors = cx.tensor(Tensor::new(&shape, factors).ok()?);
    let bytes: Vec<Id> = parts.iter().map(|p| p.bytes).collect();
    let joined = cx.op("Concat", a, &bytes)?;
    let unit = cx.tensor(Tensor::scalar(1f32));
    let whole = cx.op("DequantizeLinear", first.attrs.clone(), &[joined, unit, first.zero])?;
    cx.op("Mul", Attrs::new(), &[whole, factors])
}

fn quantized_parts(cx: &mut Cx) -> Option<Id> {
    let (s, z, q, parts) = (cx.id("?s")?, cx.id("?z")?, cx.attrs("?q")?, cx.rest());
    let one = single(cx, s)? && (cx.absent(z) || single(cx, z)?);
    let floats = parts.iter().all(|&p| cx.dtype(p) == Some(DType::F32));
    let plain = q.int_or("block_size", 0).ok()? == 0 && is_byte(cx, cx.class());
    if parts.len() < 2 || !one || !floats || !plain || parts.iter().all(|&p| cx.constant(p)) {
        return None;
    }
    let quantize = |p| cx.op("QuantizeLinear", q.clone(), &[p, s, z]);
    let bytes = parts.into_iter().map(quantize).collect::<Option<Vec<Id>>>()?;
    cx.op("Concat", cx.attrs("?a")?, &bytes)
}

/// A constant float32 scale.
fn scale_of(cx: &Cx, s: Id) -> Option<f32> {
    if cx.dtype(s)? != DType::F32 { None } else { cx.scalar(s).map(|s| s as f32).filter(|s| s.is_finite()) }
}
