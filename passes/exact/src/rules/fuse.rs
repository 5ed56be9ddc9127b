//! Scales and shifts folded into the weights of the contraction before or after them; padding into convolutions.

use crate::rule::{Cx, Rule};
use egg::Id;
use ir::{Attrs, Tensor};

pub static RULES: &[Rule] = &[
    // y = s·(x − m)/√(v + ε) + b, per channel, is one multiply and one add.
    Rule::build("batch-norm-to-scale-shift", "(BatchNormalization ?a ?x ?s ?b ?m ?v)", batch_norm),
    // s·(w ∗ x + b) = (s·w) ∗ x + s·b, per output channel
    Rule::build("fold-mul-into-conv", "(Mul ?m (Conv ?a ?x ?w ?b) ?c)", |cx| scale_outputs(cx, "Conv")),
    Rule::build("fold-add-into-conv", "(Add ?m (Conv ?a ?x ?w ?b) ?c)", |cx| shift_outputs(cx, "Conv")),
    Rule::build("fold-mul-into-conv-transpose", "(Mul ?m (ConvTranspose ?a ?x ?w ?b) ?c)", |cx| {
        scale_outputs(cx, "ConvTranspose")
    }),
    Rule::build("fold-add-into-conv-transpose", "(Add ?m (ConvTranspose ?a ?x ?w ?b) ?c)", |cx| {
        shift_outputs(cx, "ConvTranspose")
    }),
    // w ∗ (s·x) = (w·s) ∗ x, per input channel
    Rule::build("fold-mul-before-conv", "(Conv ?a (Mul ?m ?x ?c) ?w ?b)", scale_inputs),
    Rule::build("fold-mul-into-matmul", "(Mul ?m (MatMul ?a ?x ?w) ?c)", scale_columns),
    Rule::build("fold-mul-before-matmul", "(MatMul ?a (Mul ?m ?x ?c) ?w)", scale_rows),
    Rule::build("fold-add-into-gemm", "(Add ?m (Gemm ?a ?x ?w ?b) ?c)", add_into_gemm),
    Rule::build("matmul-add-to-gemm", "(Add ?m (MatMul ?a ?x ?w) ?c)", matmul_to_gemm),
    Rule::build("fold-pad-into-conv", "(Conv ?a (Pad ?p ?x ?pads ?v ?axes) ?w ?b)", |cx| {
        pad_into_conv(cx, NARROW)
    }),
    // Others compute wide margins slower inside a convolution than around it (three times, for windows of 64 rows).
    Rule::build("fold-wide-pad-into-conv", "(Conv ?a (Pad ?p ?x ?pads ?v ?axes) ?w ?b)", |cx| {
        pad_into_conv(cx, i64::MAX)
    })
    .runtime(),
    // Where they know that paddings are constant they move them inside themselves, but not into these.
    Rule::build("state-no-pad-behind-wide-pad", "(Conv ?a (Pad ?p ?x ?pads ?v ?axes) ?w ?b)", state_no_pad),
    Rule::build("fold-transpose-into-gemm", "(Gemm ?a ?x (Transpose ?t ?w) ?b)", transpose_into_gemm),
];

fn batch_norm(cx: &mut Cx) -> Option<Id> {
    let a = cx.attrs("?a")?;
    if a.int_or("training_mode", 0).ok()? != 0 {
        return None;
    }
    let x = cx.id("?x")?;
    let params: Vec<Id> = ["?s", "?b", "?m", "?v"].iter().map(|v| cx.id(v)).collect::<Option<_>>()?;
    if !params.iter().all(|&p| cx.constant(p)) || cx.constant(x) {
        return None;
    }
    let dtype = cx.dtype(x)?;
    if params.iter().any(|&p| cx.dtype(p) != Some(dtype)) {
        return None;
    }
    let (rank, channels) = (cx.rank(x)?, cx.shape(params[0])?.first().copied()?);
    let eps = Tensor::from_f64s(dtype, &[], vec![f64::from(a.float_or("epsilon", 1e-5).ok()?)]).ok()?;
    let eps = cx.tensor(eps);
    let none = Attrs::new;
    let v = cx.op("Add", none(), &[params[3], eps])?;
    let sd = cx.op("Sqrt", none(), &[v])?;
    let scale = cx.op("Div", none(), &[params[0], sd])?;
    if !cx.tame(scale) {
        return None;
    }
    let back = cx.op("Mul", none(), &[params[2], scale])?;
    let shift = cx.op("Sub", none(), &[params[1], back])?;
    let scale = spread(cx, scale, channels, rank, 1)?;
    let shift = spread(cx, shift, channels, rank, 1)?;
    let y = cx.op("Mul", none(), &[x, scale])?;
    cx.op("Add", none(), &[y, shift])
}

/// A vector as a tensor of `rank` dims with its elements along `axis`.
fn spread(cx: &mut Cx, v: Id, n: usize, rank: usize, axis: usize) -> Option<Id> {
    if axis >= rank {
        return None;
    }
    let mut shape = vec![1i64; rank];
    shape[axis] = n as i64;
    let shape = cx.int_vector(&shape);
    cx.op("Reshape", Attrs::new(), &[v, shape])
}

/// A constant that varies along `axis` only of a tensor of `rank` dims, as a vector of `n` elements.
pub(super) fn along(cx: &mut Cx, c: Id, rank: usize, axis: usize, n: usize) -> Option<Id> {
    if !cx.constant(c) {
        return None;
    }
    let shape = cx.shape(c)?;
    if shape.len() > rank || shape.contains(&0) {
        return None;
    }
    let lead = rank - shape.len();
    let at = |i: usize| if i < lead { 1 } else { shape[i - lead] };
    if (0..rank).any(|i| i != axis && at(i) != 1) || !cx.tame(c) {
        return None;
    }
    let vector = |cx: &mut Cx, n: usize| {
        let s = cx.int_vector(&[n as i64]);
        cx.op("Reshape", Attrs::new(), &[c, s])
    };
    if at(axis) == n {
        vector(cx, n)
    } else if at(axis) == 1 {
        let one = vector(cx, 1)?;
        let s = cx.int_vector(&[n as i64]);
        cx.op("Expand", Attrs::new(), &[one, s])
    } else {
        None
    }
}

/// Input, weight and bias of the matched convolution; the weight must be constant and the output channels known.
struct Layer {
    attrs: Attrs,
    x: Id,
    w: Id,
    b: Id,
    rank: usize,
    channels: usize,
}

fn layer(cx: &Cx, op: &str) -> Option<Layer> {
    let (attrs, x, w, b) = (cx.attrs("?a")?, cx.id("?x")?, cx.id("?w")?, cx.id("?b")?);
    let shape = cx.shape(w)?;
    let group = attrs.int_or("group", 1).ok()?;
    // A transposed convolution keeps output channels in dim 1, interleaved by group.
    let channels = match op {
        "Conv" => *shape.first()?,
        _ if group == 1 => *shape.get(1)?,
        _ => return None,
    };
    // Scaled, an empty weight is the same weight again.
    if !cx.constant(w) || cx.constant(x) || (!cx.absent(b) && !cx.constant(b)) || shape.contains(&0) {
        return None;
    }
    Some(Layer { attrs, x, w, b, rank: shape.len(), channels })
}

fn scale_outputs(cx: &mut Cx, op: &str) -> Option<Id> {
    let l = layer(cx, op)?;
    let s = along(cx, cx.id("?c")?, l.rank, 1, l.channels)?;
    let axis = usize::from(op != "Conv");
    let spread = spread(cx, s, l.channels, l.rank, axis)?;
    let w = cx.op("Mul", Attrs::new(), &[l.w, spread])?;
    if cx.unchanged(w, l.w) {
        return None;
    }
    let b = if cx.absent(l.b) { l.b } else { cx.op("Mul", Attrs::new(), &[l.b, s])? };
    cx.op(op, l.attrs, &[l.x, w, b])
}

fn shift_outputs(cx: &mut Cx, op: &str) -> Option<Id> {
    let l = layer(cx, op)?;
    let t = along(cx, cx.id("?c")?, l.rank, 1, l.channels)?;
    let b = if cx.absent(l.b) { t } else { cx.op("Add", Attrs::new(), &[l.b, t])? };
    if cx.unchanged(b, l.b) {
        return None;
    }
    cx.op(op, l.attrs, &[l.x, l.w, b])
}

fn scale_inputs(cx: &mut Cx) -> Option<Id> {
    let l = layer(cx, "Conv")?;
    if l.attrs.int_or("group", 1).ok()? != 1 {
        return None;
    }
    let inputs = *cx.shape(l.w)?.get(1)?;
    // The scaled tensor must not have been broadcast up.
    if cx.ty(l.x)?.rank()? != l.rank || cx.ty(l.x)?.shape()?.get(1)?.known()? != inputs {
        return None;
    }
    let s = along(cx, cx.id("?c")?, l.rank, 1, inputs)?;
    let s = spread(cx, s, inputs, l.rank, 1)?;
    let w = cx.op("Mul", Attrs::new(), &[l.w, s])?;
    if cx.unchanged(w, l.w) {
        return None;
    }
    cx.op("Conv", l.attrs, &[l.x, w, l.b])
}

/// Constant rank-2 right operand of the matched MatMul, with its shape.
fn matrix(cx: &Cx) -> Option<(Id, Id, usize, usize)> {
    let (x, w) = (cx.id("?x")?, cx.id("?w")?);
    let shape = cx.shape(w)?;
    if shape.len() != 2 || !cx.constant(w) || cx.constant(x) || cx.rank(x)? < 2 || shape.contains(&0) {
        return None;
    }
    Some((x, w, shape[0], shape[1]))
}

fn scale_columns(cx: &mut Cx) -> Option<Id> {
    let (x, w, _, n) = matrix(cx)?;
    let rank = cx.rank(x)?;
    let s = along(cx, cx.id("?c")?, rank, rank - 1, n)?;
    let scaled = cx.op("Mul", Attrs::new(), &[w, s])?;
    if cx.unchanged(scaled, w) {
        return None;
    }
    cx.op("MatMul", Attrs::new(), &[x, scaled])
}

fn scale_rows(cx: &mut Cx) -> Option<Id> {
    let (x, w, k, _) = matrix(cx)?;
    let rank = cx.rank(x)?;
    if cx.ty(x)?.shape()?.last()?.known()? != k {
        return None;
    }
    let s = along(cx, cx.id("?c")?, rank, rank - 1, k)?;
    let s = spread(cx, s, k, 2, 0)?;
    let scaled = cx.op("Mul", Attrs::new(), &[w, s])?;
    if cx.unchanged(scaled, w) {
        return None;
    }
    cx.op("MatMul", Attrs::new(), &[x, scaled])
}

fn add_into_gemm(cx: &mut Cx) -> Option<Id> {
    let (attrs, x, w, b) = (cx.attrs("?a")?, cx.id("?x")?, cx.id("?w")?, cx.id("?b")?);
    let n = *cx.shape(w)?.get(usize::from(attrs.int_or("transB", 0).ok()? == 0))?;
    let t = along(cx, cx.id("?c")?, 2, 1, n)?;
    if attrs.float_or("beta", 1.0).ok()? != 1.0 || !(cx.absent(b) || cx.constant(b)) {
        return None;
    }
    let sum = if cx.absent(b) { t } else { cx.op("Add", Attrs::new(), &[b, t])? };
    if cx.unchanged(sum, b) {
        return None;
    }
    cx.op("Gemm", attrs, &[x, w, sum])
}

fn matmul_to_gemm(cx: &mut Cx) -> Option<Id> {
    let (x, w, _, n) = matrix(cx)?;
    if cx.rank(x)? != 2 || !cx.dtype(x)?.is_float() {
        return None;
    }
    let t = along(cx, cx.id("?c")?, 2, 1, n)?;
    cx.op("Gemm", Attrs::new(), &[x, w, t])
}

/// The widest padding that belongs into a convolution in every runtime.
const NARROW: i64 = 8;

fn pad_into_conv(cx: &mut Cx, widest: i64) -> Option<Id> {
    let (pad, mut attrs, x) = (cx.attrs("?p")?, cx.attrs("?a")?, cx.id("?x")?);
    let (v, axes) = (cx.id("?v")?, cx.id("?axes")?);
    let zero = cx.absent(v) || cx.scalar(v)? == 0.0;
    if pad.str_or("mode", "constant").ok()? != "constant" || !zero || !cx.absent(axes) {
        return None;
    }
    if !matches!(attrs.str_or("auto_pad", "NOTSET").ok()?, "NOTSET" | "VALID" | "") {
        return None;
    }
    let (pads, rank) = (cx.ints(cx.id("?pads")?)?, cx.rank(x)?);
    if pads.len() != 2 * rank || rank < 3 || pads.iter().any(|&p| !(0..=widest).contains(&p)) {
        return None;
    }
    if [0, 1, rank, rank + 1].iter().any(|&i| pads[i] != 0) {
        return None;
    }
    let spatial = rank - 2;
    let valid = attrs.str_or("auto_pad", "").ok()? == "VALID";
    let own = if valid {
        vec![0; 2 * spatial]
    } else {
        attrs.ints("pads").ok()?.map_or(vec![0; 2 * spatial], <[i64]>::to_vec)
    };
    if own.len() != 2 * spatial {
        return None;
    }
    let extra = pads[2..rank].iter().chain(&pads[rank + 2..]);
    let sum: Option<Vec<i64>> = own.iter().zip(extra).map(|(a, b)| a.checked_add(*b)).collect();
    attrs.remove("auto_pad");
    attrs.set("pads", sum?);
    let (w, b) = (cx.id("?w")?, cx.id("?b")?);
    cx.op("Conv", attrs, &[x, w, b])
}

fn state_no_pad(cx: &mut Cx) -> Option<Id> {
    let mut attrs = cx.attrs("?a")?;
    let none = attrs.ints("pads").ok()?.is_none_or(|p| p.iter().all(|&p| p == 0));
    if attrs.str_or("auto_pad", "NOTSET").ok()? != "NOTSET" || !none {
        return None;
    }
    if cx.ints(cx.id("?pads")?)?.iter().all(|&p| p <= NARROW) {
        return None;
    }
    attrs.remove("pads");
    attrs.set("auto_pad", "VALID".to_string());
    let pad = ["?x", "?pads", "?v", "?axes"].map(|v| cx.id(v));
    let pad: Option<Vec<Id>> = pad.into_iter().collect();
    let (w, b) = (cx.id("?w")?, cx.id("?b")?);
    let padded = cx.op("Pad", cx.attrs("?p")?, &pad?)?;
    cx.op("Conv", attrs, &[padded, w, b])
}

fn transpose_into_gemm(cx: &mut Cx) -> Option<Id> {
    let (mut attrs, x, w, b) = (cx.attrs("?a")?, cx.id("?x")?, cx.id("?w")?, cx.id("?b")?);
    if cx.rank(w)? != 2 || cx.attrs("?t")?.ints("perm").ok()?.is_some_and(|p| p != [1, 0]) {
        return None;
    }
    let flipped = 1 - attrs.int_or("transB", 0).ok()?.clamp(0, 1);
    attrs.set("transB", flipped);
    cx.op("Gemm", attrs, &[x, w, b])
}
