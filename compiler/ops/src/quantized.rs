//! Contractions of 8-bit integers with float32 results: what a contraction between quantization and dequantization is when
//! it is run. Internal operators, which no file holds; rewrites put them in.

use crate::Op;
use crate::conv::{conv, geometry, output_dims};
use crate::integer::{Side, shifted};
use crate::matmul::{self, product, product_dims};
use crate::typing::{one, tensor_type};
use ir::{Arity, AttrFormal, AttrKind, DType, Error, EvalCx, Formal, InferCx, Kind, Operator, Result};
use ir::{Signature, Tensor, Types, Value, ValueType};

/// The domain of internal operators.
pub const DOMAIN: &str = "ir.";

/// `act = Σ (x − x_zero_point)(w − w_zero_point) · x_scale · w_scale + bias`: inputs are x, its scale and zero point
/// (scalars; of a convolution's x there may be a zero point for each channel), w, its scale and zero point (one, or one for
/// each output channel), and a float bias for each output channel.
pub static OPERATORS: &[&dyn Operator] = &[
    &Op::new(
        "QuantizedConv",
        &CONV,
        |cx| infer(cx, output_dims(cx.attrs, cx.shape(0), cx.shape(3))?),
        eval_conv,
    )
    .domain(DOMAIN)
    .kind(|_| Kind::Contract),
    &Op::new("QuantizedMatMul", &MATMUL, infer_matmul, eval_matmul).domain(DOMAIN).kind(|_| Kind::Contract),
];

const BYTES: Types = Types::Of(&[DType::U8, DType::I8]);
const FLOAT: Types = Types::Of(&[DType::F32]);

const fn f(name: &'static str, type_name: &'static str, types: Types, arity: Arity) -> Formal {
    Formal { name, type_name, types, arity }
}
const INPUTS: &[Formal] = &[
    f("x", "T1", BYTES, Arity::Required),
    f("x_scale", "T", FLOAT, Arity::Required),
    f("x_zero_point", "T1", BYTES, Arity::Optional),
    f("w", "T2", BYTES, Arity::Required),
    f("w_scale", "T", FLOAT, Arity::Required),
    f("w_zero_point", "T2", BYTES, Arity::Optional),
    f("bias", "T", FLOAT, Arity::Optional),
];
const OUTPUTS: &[Formal] = &[f("y", "T", FLOAT, Arity::Required)];
const fn a(name: &'static str, kind: AttrKind) -> AttrFormal {
    AttrFormal { name, kind, required: false }
}
static CONV: Signature = Signature {
    since: &[1],
    inputs: INPUTS,
    outputs: OUTPUTS,
    attrs: &[
        a("auto_pad", AttrKind::Str),
        a("dilations", AttrKind::Ints),
        a("group", AttrKind::Int),
        a("kernel_shape", AttrKind::Ints),
        a("pads", AttrKind::Ints),
        a("strides", AttrKind::Ints),
    ],
};
static MATMUL: Signature = Signature { since: &[1], inputs: INPUTS, outputs: OUTPUTS, attrs: &[] };

fn infer(cx: &InferCx, shape: Option<Vec<ir::Dim>>) -> Result<Vec<ValueType>> {
    for i in [0, 3] {
        if let Some(d) = cx.dtype(i)?
            && !matches!(d, DType::U8 | DType::I8)
        {
            return Err(Error::unsupported(format!("an integer contraction of {d}")));
        }
    }
    Ok(vec![tensor_type(Some(DType::F32), shape)])
}

fn infer_matmul(cx: &InferCx) -> Result<Vec<ValueType>> {
    let shape = match (cx.shape(0), cx.shape(3)) {
        (Some(a), Some(b)) => Some(product_dims(a, b)?),
        _ => None,
    };
    infer(cx, shape)
}

/// Sums to values: times the scales, plus the bias; `channel` gives the output channel of an element.
fn finish(
    cx: &EvalCx,
    shape: &[usize],
    channels: usize,
    sums: Vec<i32>,
    channel: impl Fn(usize) -> usize,
) -> Result<Vec<Value>> {
    let &[x_scale] = &cx.tensor(1)?.to_f32s()?[..] else {
        return Err(Error::model("the scale of x must be a scalar"));
    };
    let scale = cx.tensor(4)?.to_f32s()?;
    let bias = cx.optional(6)?.map_or(Ok(Vec::new()), Tensor::to_f32s)?;
    if (scale.len() != 1 && scale.len() != channels) || (!bias.is_empty() && bias.len() != channels) {
        return Err(Error::model(format!(
            "{} scales and {} biases for {channels} channels",
            scale.len(),
            bias.len()
        )));
    }
    let value = |(i, s): (usize, i32)| {
        let c = channel(i);
        let factor = scale[if scale.len() == 1 { 0 } else { c }] * x_scale;
        s as f32 * factor + bias.get(c).copied().unwrap_or(0.0)
    };
    Ok(one(Tensor::new(shape, sums.into_iter().enumerate().map(value).collect())?))
}

fn eval_conv(cx: &EvalCx) -> Result<Vec<Value>> {
    let (x, w) = (cx.tensor(0)?, cx.tensor(3)?);
    let g = geometry(cx.attrs, x.shape(), w.shape())?;
    let a = shifted(x, cx.optional(2)?, Side::Second)?;
    let b = shifted(w, cx.optional(5)?, Side::First)?;
    let sums = conv::<i32>(&a, &b, None, &g)?;
    let (plane, channels) = (g.output_plane().max(1), g.out_channels.max(1));
    finish(cx, &g.output(), g.out_channels, sums, |i| i / plane % channels)
}

fn eval_matmul(cx: &EvalCx) -> Result<Vec<Value>> {
    let (x, w) = (cx.tensor(0)?, cx.tensor(3)?);
    let g = matmul::geometry(x.shape(), w.shape())?;
    let a = shifted(x, cx.optional(2)?, Side::Whole)?;
    let b = shifted(w, cx.optional(5)?, Side::Columns)?;
    let columns = if w.rank() < 2 { 1 } else { w.shape()[w.rank() - 1] };
    let sums = product::<i32>(&a, &b, &g)?;
    finish(cx, &g.output, columns, sums, |i| i % columns.max(1))
}

#[cfg(test)]
mod tests {
    use ir::Evaluate;

    #[test]
    fn values_are_scaled_sums_of_shifted_products() {
        let text = "<ir_version: 10, opset_import: [\"\": 21]>
            g (uint8[1,2] x) => (float[1,2] y)
            <float s = {0.5}, uint8 z = {10}, int8[2,2] w = {1, 2, 3, -4}, float[2] t = {2.0, 0.1}, float[2] b = {1.0, 0.0}> {
                y = ir.QuantizedMatMul (x, s, z, w, t, \"\", b)
            }";
        let g = ir::text::parse(text, &crate::Standard).unwrap();
        let x = ir::Tensor::new(&[1, 2], vec![11u8, 20]).unwrap();
        let run = ir::Reference.run(&g, &ir::Feeds::from([("x".to_string(), x.into())]), &[]).unwrap();
        let y = run.outputs[0].tensor().unwrap().to_f32s().unwrap();
        assert_eq!(y, [31.0 * 1.0 + 1.0, -38.0 * 0.05]);
    }
}
