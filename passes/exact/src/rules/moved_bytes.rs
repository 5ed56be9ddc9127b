//! Movements of dequantized or quantized values as movements of the bytes that stand for them. For running here.

use super::quantized::{is_byte, same_scalar, single};
use crate::rule::{Cx, Rule};
use egg::Id;
use ir::Attrs;

/// A movement of dequantized bytes as the dequantization of moved bytes.
macro_rules! move_bytes {
    ($name:literal, $left:literal, $op:literal $(, $rest:literal)*) => {
        Rule::build($name, $left, |cx| {
            let (x, s, z, attrs) = (cx.id("?x")?, cx.id("?s")?, cx.id("?z")?, cx.attrs("?a")?);
            let plain = cx.attrs("?d")?.int_or("block_size", 0).ok()? == 0;
            if !plain || !is_byte(cx, x) || cx.constant(x) || !single(cx, s)? || !(cx.absent(z) || single(cx, z)?) {
                return None;
            }
            let inputs = [x $(, cx.id($rest)?)*];
            let moved = cx.op($op, attrs, &inputs)?;
            let attrs = cx.attrs("?d")?;
            cx.op("DequantizeLinear", attrs, &[moved, s, z])
        })
        .runtime()
    };
}

pub static RULES: &[Rule] = &[
    // Values of one scale are moved as bytes, where the contraction that reads them finds these.
    move_bytes!(
        "dequantize-after-reshape",
        "(Reshape ?a (DequantizeLinear ?d ?x ?s ?z) ?n)",
        "Reshape",
        "?n"
    ),
    move_bytes!("dequantize-after-transpose", "(Transpose ?a (DequantizeLinear ?d ?x ?s ?z))", "Transpose"),
    move_bytes!(
        "dequantize-after-squeeze",
        "(Squeeze ?a (DequantizeLinear ?d ?x ?s ?z) ?n)",
        "Squeeze",
        "?n"
    ),
    move_bytes!(
        "dequantize-after-unsqueeze",
        "(Unsqueeze ?a (DequantizeLinear ?d ?x ?s ?z) ?n)",
        "Unsqueeze",
        "?n"
    ),
    move_bytes!(
        "dequantize-after-slice",
        "(Slice ?a (DequantizeLinear ?d ?x ?s ?z) ?i ?j ?k ?l)",
        "Slice",
        "?i",
        "?j",
        "?k",
        "?l"
    ),
    move_bytes!(
        "dequantize-after-depth-to-space",
        "(DepthToSpace ?a (DequantizeLinear ?d ?x ?s ?z))",
        "DepthToSpace"
    ),
    move_bytes!(
        "dequantize-after-space-to-depth",
        "(SpaceToDepth ?a (DequantizeLinear ?d ?x ?s ?z))",
        "SpaceToDepth"
    ),
    Rule::build("quantize-before-depth-to-space", "(QuantizeLinear ?q (DepthToSpace ?a ?x) ?s ?z)", |cx| {
        quantize_before(cx, "DepthToSpace")
    })
    .runtime(),
    Rule::build("quantize-before-space-to-depth", "(QuantizeLinear ?q (SpaceToDepth ?a ?x) ?s ?z)", |cx| {
        quantize_before(cx, "SpaceToDepth")
    })
    .runtime(),
    Rule::build(
        "dequantize-after-nearest-resize",
        "(Resize ?a (DequantizeLinear ?d ?x ?s ?z) ?roi ?scales ?sizes)",
        |cx| {
            let (x, s, z, attrs) = (cx.id("?x")?, cx.id("?s")?, cx.id("?z")?, cx.attrs("?a")?);
            let (roi, scales, sizes) = (cx.id("?roi")?, cx.id("?scales")?, cx.id("?sizes")?);
            let d = cx.attrs("?d")?;
            let plain = d.int_or("block_size", 0).ok()? == 0 && !cx.constant(x);
            let one = single(cx, s)? && (cx.absent(z) || single(cx, z)?);
            if !picks(&attrs)? || !plain || !is_byte(cx, x) || !one {
                return None;
            }
            let resized = cx.op("Resize", attrs, &[x, roi, scales, sizes])?;
            cx.op("DequantizeLinear", d, &[resized, s, z])
        },
    )
    .runtime(),
    // The cheaper of both where a resize repeats elements: fewer are rounded, and bytes are what it repeats.
    Rule::build(
        "quantize-before-nearest-resize",
        "(QuantizeLinear ?q (Resize ?a ?x ?roi ?scales ?sizes) ?s ?z)",
        |cx| {
            let (x, s, z, attrs) = (cx.id("?x")?, cx.id("?s")?, cx.id("?z")?, cx.attrs("?a")?);
            let (roi, scales, sizes) = (cx.id("?roi")?, cx.id("?scales")?, cx.id("?sizes")?);
            let q = cx.attrs("?q")?;
            let plain = q.int_or("block_size", 0).ok()? == 0 && !cx.constant(x);
            let one = single(cx, s)? && (cx.absent(z) || single(cx, z)?);
            if !picks(&attrs)? || !plain || !is_byte(cx, cx.class()) || !one {
                return None;
            }
            let bytes = cx.op("QuantizeLinear", q, &[x, s, z])?;
            cx.op("Resize", attrs, &[bytes, roi, scales, sizes])
        },
    )
    .runtime(),
    // Of values that bytes stand for the largest is what the largest byte stands for.
    Rule::build("dequantize-after-max-pool", "(MaxPool ?a (DequantizeLinear ?d ?x ?s ?z))", |cx| {
        let (x, s, z, d) = (cx.id("?x")?, cx.id("?s")?, cx.id("?z")?, cx.attrs("?d")?);
        let plain = d.int_or("block_size", 0).ok()? == 0 && is_byte(cx, x) && !cx.constant(x);
        let one = single(cx, s)? && (cx.absent(z) || single(cx, z)?);
        let a = cx.attrs("?a")?;
        // A window of padding alone gives the lowest number there is, which no byte stands for.
        let axes = ops::pool::geometry(&a, &cx.shape(x)?).ok()?.axes;
        let met = axes.iter().all(|w| {
            let last = w.output.saturating_sub(1).saturating_mul(w.stride).saturating_sub(w.pad_begin);
            w.dilation == 1 && w.kernel > w.pad_begin && last < w.input
        });
        if !plain || !one || !met || cx.scalar(s).is_none_or(|s| s <= 0.0 || !s.is_finite()) {
            return None;
        }
        let pooled = cx.op("MaxPool", a, &[x])?;
        cx.op("DequantizeLinear", d, &[pooled, s, z])
    })
    .runtime(),
    Rule::build(
        "move-bytes-in-reshape",
        "(QuantizeLinear ?q (Reshape ?a (DequantizeLinear ?d ?x ?s ?z) ?n) ?s ?z)",
        |cx| {
            let (x, n, a) = (cx.id("?x")?, cx.id("?n")?, cx.attrs("?a")?);
            moved(cx, "Reshape", a, &[x, n])
        },
    ),
    Rule::build(
        "move-bytes-in-transpose",
        "(QuantizeLinear ?q (Transpose ?a (DequantizeLinear ?d ?x ?s ?z)) ?s ?z)",
        |cx| {
            let (x, a) = (cx.id("?x")?, cx.attrs("?a")?);
            moved(cx, "Transpose", a, &[x])
        },
    ),
];

/// The movement of bytes of `?x`, by one scale, in place of the quantization of what it moved.
fn quantize_before(cx: &mut Cx, op: &str) -> Option<Id> {
    let (x, s, z, q) = (cx.id("?x")?, cx.id("?s")?, cx.id("?z")?, cx.attrs("?q")?);
    let one = single(cx, s)? && (cx.absent(z) || single(cx, z)?);
    let plain = q.int_or("block_size", 0).ok()? == 0 && !cx.constant(x);
    if !plain || !is_byte(cx, cx.class()) || !one {
        return None;
    }
    let bytes = cx.op("QuantizeLinear", q, &[x, s, z])?;
    cx.op(op, cx.attrs("?a")?, &[bytes])
}

/// Whether a resize only repeats or drops elements.
fn picks(attrs: &Attrs) -> Option<bool> {
    let crops = attrs.str_or("coordinate_transformation_mode", "").ok()? == "tf_crop_and_resize";
    Some(attrs.str_or("mode", "nearest").ok()? == "nearest" && !crops)
}

fn moved(cx: &mut Cx, op: &str, attrs: Attrs, inputs: &[Id]) -> Option<Id> {
    if cx.dtype(inputs[0])? == cx.dtype(cx.class())? && same_scalar(cx)? {
        cx.op(op, attrs, inputs)
    } else {
        None
    }
}
