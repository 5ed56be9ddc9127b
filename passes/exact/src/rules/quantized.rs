//! Contractions between dequantization and quantization, in whatever style the file has them, as contractions of integers.
//! For running here; the rounding of a last quantization may differ by one step, as between any two runtimes.

use super::fuse::along;
use crate::rule::{Cx, Rule};
use egg::Id;
use ir::{Attrs, DType};
use ops::quantized::DOMAIN;

pub static RULES: &[Rule] = &[
    Rule::build(
        "integer-conv",
        "(Conv ?a (DequantizeLinear ?d ?x ?sx ?zx) (DequantizeLinear ?e ?w ?sw ?zw) ?b)",
        conv,
    )
    .runtime(),
    Rule::build(
        "integer-matmul",
        "(MatMul ?a (DequantizeLinear ?d ?x ?sx ?zx) (DequantizeLinear ?e ?w ?sw ?zw))",
        matmul,
    )
    .runtime(),
    Rule::build(
        "integer-gemm",
        "(Gemm ?a (DequantizeLinear ?d ?x ?sx ?zx) (DequantizeLinear ?e ?w ?sw ?zw) ?b)",
        gemm,
    )
    .runtime(),
    Rule::build(
        "integer-conv-transpose",
        "(ConvTranspose ?a (DequantizeLinear ?d ?x ?sx ?zx) (DequantizeLinear ?e ?w ?sw ?zw) ?b)",
        conv_transpose,
    )
    .runtime(),
    Rule::build("integer-conv-of-parts", "(Mul ?m (Cast ?c (ConvInteger ?a ?x ?w ?zx ?zw)) ?s)", |cx| {
        of_parts(cx, "QuantizedConv")
    })
    .runtime(),
    Rule::build("integer-matmul-of-parts", "(Mul ?m (Cast ?c (MatMulInteger ?a ?x ?w ?zx ?zw)) ?s)", |cx| {
        of_parts(cx, "QuantizedMatMul")
    })
    .runtime(),
    Rule::build("expand-qlinear-conv", "(QLinearConv ?a ?x ?sx ?zx ?w ?sw ?zw ?sy ?zy ?b)", |cx| {
        let (sx, sw, b) = (cx.id("?sx")?, cx.id("?sw")?, cx.id("?b")?);
        let bias = if cx.absent(b) {
            b
        } else {
            let scale = cx.op("Mul", Attrs::new(), &[sx, sw])?;
            let b = cx.op("Cast", Attrs::new().with("to", i64::from(DType::F32.onnx())), &[b])?;
            cx.op("Mul", Attrs::new(), &[b, scale])?
        };
        let attrs = cx.attrs("?a")?;
        let y = quantized(cx, "QuantizedConv", attrs, bias)?;
        quantize(cx, y)
    })
    .runtime(),
    Rule::build("expand-qlinear-matmul", "(QLinearMatMul ?a ?x ?sx ?zx ?w ?sw ?zw ?sy ?zy)", |cx| {
        let none = cx.none();
        let y = quantized(cx, "QuantizedMatMul", Attrs::new(), none)?;
        quantize(cx, y)
    })
    .runtime(),
    // What follows the sums of each column is part of its scale and bias.
    Rule::build(
        "fold-mul-into-integer-conv",
        "(Mul ?m (ir.QuantizedConv ?a ?x ?sx ?zx ?w ?sw ?zw ?b) ?c)",
        |cx| scale_columns(cx, "QuantizedConv"),
    )
    .runtime(),
    Rule::build(
        "fold-add-into-integer-conv",
        "(Add ?m (ir.QuantizedConv ?a ?x ?sx ?zx ?w ?sw ?zw ?b) ?c)",
        |cx| shift_columns(cx, "QuantizedConv"),
    )
    .runtime(),
    Rule::build(
        "fold-mul-into-integer-matmul",
        "(Mul ?m (ir.QuantizedMatMul ?a ?x ?sx ?zx ?w ?sw ?zw ?b) ?c)",
        |cx| scale_columns(cx, "QuantizedMatMul"),
    )
    .runtime(),
    Rule::build(
        "fold-add-into-integer-matmul",
        "(Add ?m (ir.QuantizedMatMul ?a ?x ?sx ?zx ?w ?sw ?zw ?b) ?c)",
        |cx| shift_columns(cx, "QuantizedMatMul"),
    )
    .runtime(),
    // What scales values before a quantization is part of its scales.
    Rule::build("fold-mul-into-quantization", "(QuantizeLinear ?q (Mul ?m ?x ?c) ?s ?z)", scale_before)
        .runtime(),
    // What is quantized as it was is what it was.
    Rule::build("drop-requantization", "(QuantizeLinear ?q (DequantizeLinear ?d ?x ?s ?z) ?s ?z)", |cx| {
        let x = cx.id("?x")?;
        if cx.dtype(x)? == cx.dtype(cx.class())? && same_scalar(cx)? { Some(x) } else { None }
    }),
];

/// The quantization of `?x` by the scale over positive factors, one for each step of an axis. A single factor stays where a
/// chain of operators between bytes has one scale for rounding and for what is read after it.
fn scale_before(cx: &mut Cx) -> Option<Id> {
    let [x, c, s, z] = ["?x", "?c", "?s", "?z"].map(|v| cx.id(v));
    let (x, c, s, z) = (x?, c?, s?, z?);
    let (mut attrs, shape) = (cx.attrs("?q")?, cx.shape(x)?);
    let bytes = is_byte(cx, cx.class()) && (cx.absent(z) || cx.constant(z) && single(cx, z)?);
    if !bytes || attrs.int_or("block_size", 0).ok()? != 0 || cx.shape(cx.class())? != shape {
        return None;
    }
    let floats = cx.dtype(x)? == DType::F32 && cx.dtype(s)? == DType::F32;
    if !floats || !single(cx, s)? || !same_scalar(cx)? || !crate::rule::every(&cx.value(c)?, |x| x > 0.0) {
        return None;
    }
    let one = cx.int_vector(&[1]);
    let along_axis = |cx: &Cx| {
        let of = cx.shape(c)?;
        let lead = shape.len().checked_sub(of.len())?;
        of.iter().position(|&n| n > 1).map(|i| (lead + i, of[i]))
    };
    let (axis, n) = along_axis(cx)?;
    let factors = along(cx, c, shape.len(), axis, n)?;
    let s = cx.op("Reshape", Attrs::new(), &[s, one])?;
    let scale = cx.op("Div", Attrs::new(), &[s, factors])?;
    if !cx.divides(scale) {
        return None;
    }
    attrs.set("axis", axis as i64);
    let zero = if cx.absent(z) {
        z
    } else {
        let (z, count) = (cx.op("Reshape", Attrs::new(), &[z, one])?, cx.int_vector(&[n as i64]));
        cx.op("Expand", Attrs::new(), &[z, count])?
    };
    cx.op("QuantizeLinear", attrs, &[x, scale, zero])
}

/// `?s` is one constant scale far from overflow, and zero points are whole.
pub(super) fn same_scalar(cx: &Cx) -> Option<bool> {
    let s = cx.id("?s")?;
    Some(single(cx, s)? && cx.divides(s))
}

/// One element.
pub(super) fn single(cx: &Cx, id: Id) -> Option<bool> {
    Some(cx.shape(id)?.iter().product::<usize>() == 1)
}

pub(super) fn is_byte(cx: &Cx, id: Id) -> bool {
    matches!(cx.dtype(id), Some(DType::U8 | DType::I8))
}

/// Number of scales of the weight, when they are one, or one along `axis` of a tensor of `rank` dims.
fn weight_scales(cx: &Cx, axis: usize) -> Option<()> {
    let (w, sw) = (cx.id("?w")?, cx.id("?sw")?);
    if single(cx, sw)? {
        return Some(());
    }
    let attrs = cx.attrs("?e")?;
    let rank = cx.rank(w)? as i64;
    let at = attrs.int_or("axis", 1).ok()?;
    let at = if at < 0 { at + rank } else { at };
    let along = attrs.int_or("block_size", 0).ok()? == 0 && at == axis as i64 && cx.rank(sw)? == 1;
    if along && cx.constant(w) && cx.constant(sw) { Some(()) } else { None }
}

/// Both operands are bytes, what runs by one scale, and scales are float32.
fn integers(cx: &Cx) -> Option<()> {
    let [x, sx, zx, w, sw] = ["?x", "?sx", "?zx", "?w", "?sw"].map(|v| cx.id(v));
    let (x, sx, zx, w, sw) = (x?, sx?, zx?, w?, sw?);
    let bytes = is_byte(cx, x) && is_byte(cx, w) && !cx.constant(x);
    let one = single(cx, sx)? && (cx.absent(zx) || single(cx, zx)?);
    let floats = cx.dtype(sx)? == DType::F32 && cx.dtype(sw)? == DType::F32;
    (bytes && one && floats).then_some(())
}

/// The contraction with the bound operands; x must have one scale, both must be bytes.
fn quantized(cx: &mut Cx, op: &str, attrs: Attrs, bias: Id) -> Option<Id> {
    let [x, sx, zx, w, sw, zw] = ["?x", "?sx", "?zx", "?w", "?sw", "?zw"].map(|v| cx.id(v));
    let (x, sx, zx, w, sw, zw) = (x?, sx?, zx?, w?, sw?, zw?);
    integers(cx)?;
    // A float of one element scales all; several scales need constant weights.
    if !(single(cx, sw)? || cx.constant(w) && cx.constant(sw)) {
        return None;
    }
    cx.op_in(DOMAIN, op, attrs, &[x, sx, zx, w, sw, zw, bias])
}

fn conv(cx: &mut Cx) -> Option<Id> {
    let b = cx.id("?b")?;
    if cx.dtype(cx.class())? != DType::F32 || !(cx.absent(b) || cx.constant(b)) || !cx.constant(cx.id("?w")?)
    {
        return None;
    }
    weight_scales(cx, 0)?;
    let attrs = cx.attrs("?a")?;
    if !single(cx, cx.id("?sx")?)? {
        return depthwise(cx, attrs, b);
    }
    quantized(cx, "QuantizedConv", attrs, b)
}

/// A transposed convolution whose windows lie side by side: each pixel's products with all taps, as channels, are the pixels
/// of its window.
fn conv_transpose(cx: &mut Cx) -> Option<Id> {
    let [x, sx, zx, w, sw, zw, b] = ["?x", "?sx", "?zx", "?w", "?sw", "?zw", "?b"].map(|v| cx.id(v));
    let (x, sx, zx, w, sw, zw, b) = (x?, sx?, zx?, w?, sw?, zw?, b?);
    let (a, shape) = (cx.attrs("?a")?, cx.shape(w)?);
    let side = ops::conv_transpose::side_by_side(&a, &shape)?;
    let constants = cx.constant(w) && cx.constant(sw) && (cx.absent(zw) || cx.constant(zw));
    if cx.dtype(cx.class())? != DType::F32 || !constants || !(cx.absent(b) || cx.constant(b)) {
        return None;
    }
    integers(cx)?;
    weight_scales(cx, 1)?;
    let (inputs, columns) = (shape[0], shape[1]);
    // A 0 would have Reshape copy a size.
    if inputs == 0 || columns == 0 {
        return None;
    }
    let taps = cx.op("Transpose", Attrs::new().with("perm", vec![2, 3, 1, 0]), &[w])?;
    let to = cx.int_vector(&[(side * side * columns) as i64, inputs as i64, 1, 1]);
    let taps = cx.op("Reshape", Attrs::new(), &[taps, to])?;
    let times = cx.int_vector(&[(side * side) as i64]);
    let of_taps = |cx: &mut Cx, v: Id| -> Option<Id> {
        if cx.absent(v) || single(cx, v)? && columns != 1 {
            Some(v)
        } else {
            cx.op("Tile", Attrs::new(), &[v, times])
        }
    };
    let b = of_taps(cx, b)?;
    let (sw, zw) = if single(cx, sw)? { (sw, zw) } else { (of_taps(cx, sw)?, of_taps(cx, zw)?) };
    let y = cx.op_in(DOMAIN, "QuantizedConv", Attrs::new(), &[x, sx, zx, taps, sw, zw, b])?;
    cx.op("DepthToSpace", Attrs::new().with("blocksize", side as i64), &[y])
}

/// Channels that do not mix may have scales of their own, which go to the weights, and zero points of their own where each
/// makes one output.
fn depthwise(cx: &mut Cx, attrs: Attrs, bias: Id) -> Option<Id> {
    let [x, sx, zx, w, sw, zw] = ["?x", "?sx", "?zx", "?w", "?sw", "?zw"].map(|v| cx.id(v));
    let (x, sx, zx, w, sw, zw) = (x?, sx?, zx?, w?, sw?, zw?);
    let (input, weights) = (cx.shape(x)?, cx.shape(w)?);
    let channels = *input.get(1)?;
    let d = cx.attrs("?d")?;
    let axis = d.int_or("axis", 1).ok()?;
    let by_channel = d.int_or("block_size", 0).ok()? == 0 && (axis == 1 || axis + input.len() as i64 == 1);
    let apart =
        attrs.int_or("group", 1).ok()? == channels as i64 && channels > 0 && weights.get(1) == Some(&1);
    if !apart || !by_channel || !is_byte(cx, x) || !is_byte(cx, w) || cx.constant(x) {
        return None;
    }
    if cx.dtype(sx)? != DType::F32 || cx.dtype(sw)? != DType::F32 || cx.shape(sx)?[..] != [channels] {
        return None;
    }
    let zero = if cx.absent(zx) {
        zx
    } else {
        let zeros = cx.ints(zx)?;
        let &first = zeros.first()?;
        if zeros.iter().all(|&z| z == first) {
            cx.tensor(match cx.dtype(zx)? {
                DType::U8 => ir::Tensor::scalar(u8::try_from(first).ok()?),
                _ => ir::Tensor::scalar(i8::try_from(first).ok()?),
            })
        } else if zeros.len() == channels && weights.first() == Some(&channels) {
            zx
        } else {
            return None;
        }
    };
    let outputs = *weights.first()?;
    let (by_input, by_output) = (cx.value(sx)?.to_f32s().ok()?, cx.value(sw)?.to_f32s().ok()?);
    let each = outputs / channels;
    if by_output.is_empty() || each == 0 {
        return None;
    }
    let scale = |c: usize| by_input[c / each] * by_output[if by_output.len() == 1 { 0 } else { c }];
    let scales = cx.tensor(ir::Tensor::vector((0..each * channels).map(scale).collect::<Vec<f32>>()));
    let one = cx.tensor(ir::Tensor::scalar(1f32));
    cx.op_in(DOMAIN, "QuantizedConv", attrs, &[x, one, zero, w, scales, zw, bias])
}

/// `?c` for each column of the matched integer contraction with constant weights, its scales and its bias.
fn columns(cx: &mut Cx, op: &str) -> Option<[Id; 3]> {
    let (w, sw, b, c) = (cx.id("?w")?, cx.id("?sw")?, cx.id("?b")?, cx.id("?c")?);
    let (rank, shape) = (cx.rank(cx.class())?, cx.shape(w)?);
    let (axis, n) = match op {
        "QuantizedConv" => (1, *shape.first()?),
        _ if shape.len() == 2 => (rank.checked_sub(1)?, shape[1]),
        _ => return None,
    };
    if ![w, sw].iter().all(|&v| cx.constant(v)) || !(cx.absent(b) || cx.constant(b)) || shape.contains(&0) {
        return None;
    }
    Some([along(cx, c, rank, axis, n)?, sw, b])
}

fn with_columns(cx: &mut Cx, op: &str, scale: Id, bias: Id) -> Option<Id> {
    let [x, sx, zx, w, zw] = ["?x", "?sx", "?zx", "?w", "?zw"].map(|v| cx.id(v));
    let attrs = cx.attrs("?a")?;
    cx.op_in(DOMAIN, op, attrs, &[x?, sx?, zx?, w?, scale, zw?, bias])
}

fn scale_columns(cx: &mut Cx, op: &str) -> Option<Id> {
    let [c, sw, b] = columns(cx, op)?;
    let one = cx.int_vector(&[-1]);
    let flat = cx.op("Reshape", Attrs::new(), &[sw, one])?;
    let scale = cx.op("Mul", Attrs::new(), &[flat, c])?;
    if cx.unchanged(scale, sw) || !cx.tame(scale) {
        return None;
    }
    let bias = if cx.absent(b) { b } else { cx.op("Mul", Attrs::new(), &[b, c])? };
    with_columns(cx, op, scale, bias)
}

fn shift_columns(cx: &mut Cx, op: &str) -> Option<Id> {
    let [c, sw, b] = columns(cx, op)?;
    let bias = if cx.absent(b) { c } else { cx.op("Add", Attrs::new(), &[b, c])? };
    if cx.unchanged(bias, b) {
        return None;
    }
    with_columns(cx, op, sw, bias)
}

fn matmul(cx: &mut Cx) -> Option<Id> {
    if cx.dtype(cx.class())? != DType::F32 || cx.rank(cx.id("?x")?)? < 2 {
        return None;
    }
    let rank = cx.rank(cx.id("?w")?)?;
    weight_scales(cx, rank.checked_sub(1)?)?;
    let several = !single(cx, cx.id("?sw")?)?;
    if rank < 2 || (several && rank != 2) {
        return None;
    }
    let none = cx.none();
    quantized(cx, "QuantizedMatMul", Attrs::new(), none)
}

fn gemm(cx: &mut Cx) -> Option<Id> {
    let (a, b, w) = (cx.attrs("?a")?, cx.id("?b")?, cx.id("?w")?);
    let flag = |name: &str| a.int_or(name, 0).ok().map(|x| x != 0);
    let (ta, tb) = (flag("transA")?, flag("transB")?);
    let plain = a.float_or("alpha", 1.0).ok()? == 1.0 && a.float_or("beta", 1.0).ok()? == 1.0;
    if ta || !plain || cx.dtype(cx.class())? != DType::F32 || !cx.constant(w) {
        return None;
    }
    weight_scales(cx, usize::from(!tb))?;
    let shape = cx.shape(w)?;
    let columns = *shape.get(usize::from(!tb))?;
    if !(cx.absent(b) || cx.constant(b) && cx.shape(b)?[..] == [columns]) {
        return None;
    }
    let [x, sx, zx, sw, zw] = ["?x", "?sx", "?zx", "?sw", "?zw"].map(|v| cx.id(v));
    let (x, sx, zx, sw, zw) = (x?, sx?, zx?, sw?, zw?);
    if !is_byte(cx, x) || !is_byte(cx, w) || !single(cx, sx)? || cx.constant(x) {
        return None;
    }
    if cx.dtype(sx)? != DType::F32 || !(cx.absent(zx) || single(cx, zx)?) {
        return None;
    }
    let w = if tb { cx.op("Transpose", Attrs::new().with("perm", vec![1i64, 0]), &[w])? } else { w };
    cx.op_in(DOMAIN, "QuantizedMatMul", Attrs::new(), &[x, sx, zx, w, sw, zw, b])
}

/// Integer sums cast to float and scaled: by one number, known or not, or by a constant for each column.
fn of_parts(cx: &mut Cx, op: &str) -> Option<Id> {
    let [x, w, zx, zw, s] = ["?x", "?w", "?zx", "?zw", "?s"].map(|v| cx.id(v));
    let (x, w, zx, zw, s) = (x?, w?, zx?, zw?, s?);
    let class = cx.class();
    if cx.dtype(class)? != DType::F32 || cx.constant(x) || !(cx.absent(zx) || single(cx, zx)?) {
        return None;
    }
    let columns = *cx.shape(w)?.get(if op == "QuantizedConv" { 0 } else { cx.rank(w)?.checked_sub(1)? })?;
    // A dynamic scalar times a constant for each column, or one factor.
    let (sx, sw) = match cx.find(s, "Mul").map(|(_, c)| c).filter(|c| c.len() == 2) {
        Some(c) if !cx.constant(c[0]) && cx.constant(c[1]) => (c[0], c[1]),
        Some(c) if !cx.constant(c[1]) && cx.constant(c[0]) => (c[1], c[0]),
        _ => {
            let one = cx.tensor(ir::Tensor::scalar(1f32));
            if cx.constant(s) { (one, s) } else { (s, one) }
        }
    };
    if !single(cx, sx)? || cx.rank(sx)? > 1 {
        return None;
    }
    let sw = match cx.shape(sw)? {
        n if n.iter().product::<usize>() == 1 => sw,
        n if op == "QuantizedMatMul"
            && n.last() == Some(&columns)
            && n.iter().product::<usize>() == columns =>
        {
            let flat = cx.int_vector(&[columns as i64]);
            cx.op("Reshape", Attrs::new(), &[sw, flat])?
        }
        _ => return None,
    };
    // The product must not be broadcast up by the factor.
    if cx.rank(s)? > cx.rank(class)? || !cx.constant(w) && !single(cx, sw)? {
        return None;
    }
    let attrs = cx.attrs("?a")?;
    let none = cx.none();
    cx.op_in(DOMAIN, op, attrs, &[x, sx, zx, w, sw, zw, none])
}

fn quantize(cx: &mut Cx, y: Id) -> Option<Id> {
    let (sy, zy) = (cx.id("?sy")?, cx.id("?zy")?);
    if !single(cx, sy)? { None } else { cx.op("QuantizeLinear", Attrs::new(), &[y, sy, zy]) }
}
