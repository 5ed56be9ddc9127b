//! Movements of dequantized or quantized values as movements of the bytes that stand for them. For running here.

use super::fuse::along;
use super::quantized::{is_byte, same_scalar, single};
use crate::rule::{Cx, Rule};
use egg::Id;
use ir::{Attrs, DType, Tensor};

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
    move_bytes!("dequantize-after-depth-to-space", "(DepthToSpace ?a (DequantizeLinear ?d ?x ?s ?z))", "DepthToSpace"),
    move_bytes!("dequantize-after-space-to-depth", "(SpaceToDepth ?a (DequantizeLinear ?d ?x ?s ?z))", "SpaceToDepth"),
    Rule::build("quantize-before-depth-to-space", "(QuantizeLinear ?q (DepthToSpace ?a ?x) ?s ?z)", |cx| {
        quantize_before(cx, "DepthToSpace")
    })
    .runtime(),
    Rule::build("quantize-before-space-to-depth", "(QuantizeLinear ?q (SpaceToDepth ?a ?x) ?s ?z)", |cx| {
        quantize_before(cx, "SpaceToDepth")
    })
    .runtime(),
    Rule::build(
        "dequantize-after-concat-of-two",
        "(Concat ?a (DequantizeLinear ?d ?x ?s ?z) (DequantizeLinear ?e ?y ?s ?z))",
        |cx| concat(cx, &["?x", "?y"]),
    )
    .runtime(),
    Rule::build(
        "dequantize-after-concat-of-three",
        "(Concat ?a (DequantizeLinear ?d ?x ?s ?z) (DequantizeLinear ?e ?y ?s ?z) (DequantizeLinear ?f ?v ?s ?z))",
        |cx| concat(cx, &["?x", "?y", "?v"]),
    )
    .runtime(),
    Rule::build(
        "dequantize-after-concat-of-four",
        "(Concat ?a (DequantizeLinear ?d ?x ?s ?z) (DequantizeLinear ?e ?y ?s ?z)
            (DequantizeLinear ?f ?v ?s ?z) (DequantizeLinear ?g ?w ?s ?z))",
        |cx| concat(cx, &["?x", "?y", "?v", "?w"]),
    )
    .runtime(),
    // What is put together is bytes then, which contractions store and tables make of other bytes.
    Rule::build("quantize-before-concat-of-two", "(QuantizeLinear ?q (Concat ?a ?x ?y) ?s ?z)", |cx| {
        parts_of_concat(cx, &["?x", "?y"])
    })
    .runtime(),
    Rule::build("quantize-before-concat-of-three", "(QuantizeLinear ?q (Concat ?a ?x ?y ?v) ?s ?z)", |cx| {
        parts_of_concat(cx, &["?x", "?y", "?v"])
    })
    .runtime(),
    Rule::build("quantize-before-concat-of-four", "(QuantizeLinear ?q (Concat ?a ?x ?y ?v ?w) ?s ?z)", |cx| {
        parts_of_concat(cx, &["?x", "?y", "?v", "?w"])
    })
    .runtime(),
    // Values of several scales are bytes with a factor for each channel.
    Rule::build(
        "dequantize-by-channel-after-concat",
        "(Concat ?a (DequantizeLinear ?d ?x ?s ?z) (DequantizeLinear ?e ?y ?t ?u))",
        |cx| scaled_concat(cx, None),
    )
    .runtime(),
    Rule::build(
        "dequantize-by-channel-after-longer-concat",
        "(Concat ?a (Mul ?m (DequantizeLinear ?d ?x ?s ?z) ?c) (DequantizeLinear ?e ?y ?t ?u))",
        |cx| scaled_concat(cx, Some("?c")),
    )
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

/// Values of one scale side by side.
fn concat(cx: &mut Cx, parts: &[&str]) -> Option<Id> {
    let (s, z, attrs) = (cx.id("?s")?, cx.id("?z")?, cx.attrs("?a")?);
    let parts = parts.iter().map(|v| cx.id(v)).collect::<Option<Vec<Id>>>()?;
    let plain = cx.attrs("?d")?.int_or("block_size", 0).ok()? == 0 && single(cx, s)?;
    let bytes = is_byte(cx, parts[0]) && parts.iter().all(|&p| cx.dtype(p) == cx.dtype(parts[0]));
    if !plain || !bytes || cx.constant(parts[0]) || !(cx.absent(z) || single(cx, z)?) {
        return None;
    }
    let joined = cx.op("Concat", attrs, &parts)?;
    let attrs = cx.attrs("?d")?;
    cx.op("DequantizeLinear", attrs, &[joined, s, z])
}

fn parts_of_concat(cx: &mut Cx, parts: &[&str]) -> Option<Id> {
    let (s, z, q) = (cx.id("?s")?, cx.id("?z")?, cx.attrs("?q")?);
    let parts = parts.iter().map(|v| cx.id(v)).collect::<Option<Vec<Id>>>()?;
    let one = single(cx, s)? && (cx.absent(z) || single(cx, z)?);
    let floats = parts.iter().all(|&p| cx.dtype(p) == Some(DType::F32));
    let plain = q.int_or("block_size", 0).ok()? == 0 && is_byte(cx, cx.class());
    if !one || !floats || !plain || parts.iter().all(|&p| cx.constant(p)) {
        return None;
    }
    let quantize = |p| cx.op("QuantizeLinear", q.clone(), &[p, s, z]);
    let bytes = parts.into_iter().map(quantize).collect::<Option<Vec<Id>>>()?;
    cx.op("Concat", cx.attrs("?a")?, &bytes)
}

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

/// Values of two scales side by side, the first also scaled by constants `first`, one for each step of the axis.
fn scaled_concat(cx: &mut Cx, first: Option<&str>) -> Option<Id> {
    let [x, s, z, y, t, u] = ["?x", "?s", "?z", "?y", "?t", "?u"].map(|v| cx.id(v));
    let (x, s, z, y, t, u) = (x?, s?, z?, y?, t?, u?);
    let (a, d, e) = (cx.attrs("?a")?, cx.attrs("?d")?, cx.attrs("?e")?);
    let (left, right) = (cx.shape(x)?, cx.shape(y)?);
    let axis = ops::broadcast::axis(a.require_int("axis").ok()?, left.len()).ok()?;
    let bytes = is_byte(cx, x) && cx.dtype(x) == cx.dtype(y) && !(cx.constant(x) || cx.constant(y));
    // Dequantizations may give other floats.
    let bytes = bytes && cx.dtype(cx.class())? == DType::F32;
    let plain = d.int_or("block_size", 0).ok()? == 0 && e.int_or("block_size", 0).ok()? == 0;
    if !bytes || !plain || !single(cx, s)? || !single(cx, t)? || right.len() != left.len() {
        return None;
    }
    let zero = |cx: &Cx, z: Id| {
        if cx.absent(z) {
            Some(0)
        } else {
            cx.ints(z)?.first().copied().filter(|_| single(cx, z) == Some(true))
        }
    };
    let (of_left, of_right) = (scale_of(cx, s)?, scale_of(cx, t)?);
    if zero(cx, z)? != zero(cx, u)? || first.is_none() && of_left == of_right {
        return None;
    }
    let mut factors = vec![of_left; left[axis]];
    if let Some(c) = first {
        let c = along(cx, cx.id(c)?, left.len(), axis, left[axis])?;
        factors.iter_mut().zip(cx.value(c)?.to_f32s().ok()?).for_each(|(f, c)| *f *= c);
    }
    factors.extend(std::iter::repeat_n(of_right, right[axis]));
    let mut shape = vec![1; left.len()];
    shape[axis] = factors.len();
    let factors = cx.tensor(Tensor::new(&shape, factors).ok()?);
    let joined = cx.op("Concat", a, &[x, y])?;
    let one = cx.tensor(Tensor::scalar(1f32));
    let whole = cx.op("DequantizeLinear", d, &[joined, one, z])?;
    cx.op("Mul", Attrs::new(), &[whole, factors])
}

/// A constant float32 scale.
fn scale_of(cx: &Cx, s: Id) -> Option<f32> {
    if cx.dtype(s)? != DType::F32 { None } else { cx.scalar(s).map(|s| s as f32).filter(|s| s.is_finite()) }
}
