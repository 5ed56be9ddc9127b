//! Matrix products and convolutions with their epilogues; constant weights are packed once, here.

use super::product::Product;
use super::{Cx, Lowered};
use crate::Precision;
use crate::channels_last::{DOMAIN, RESIDUAL};
use crate::group::Quantize;
use artefact::{Call, Residual};
use ir::{Node, ValueId};
use kernels::{
    Activation, ConvShape, ConvTransposeShape, GemmShape, Grid, PackedB, PackedBf16, PackedConv,
    PackedConvBf16, PackedConvTranspose, Strides,
};
use ops::packed::fused;
use ops::window::Windows;

/// What follows the sums of a contraction: `act(sum + bias + residual)`, or the residual after the activation; then
/// factors and addends.
#[derive(Debug, Clone)]
pub struct Finish {
    pub bias: Option<ValueId>,
    pub act: Activation,
    pub residual: Option<ValueId>,
    pub residual_last: bool,
    /// For each column.
    pub affine: Option<(Vec<f32>, Vec<f32>)>,
    /// What quantization and dequantization leave of the result is stored.
    pub grid: Option<Grid>,
    /// The result is stored quantized; only integer contractions do that.
    pub quantize: Option<Quantize>,
    pub output: ValueId,
}

pub fn lower(cx: &Cx, n: &Node, f: &Finish) -> Option<Lowered> {
    if let Some(l) = super::integer::lower(cx, n, f) {
        return Some(l);
    }
    if f.quantize.is_some() {
        return None;
    }
    if let Some(l) = super::product::packed(cx, n, f) {
        return Some(l);
    }
    match n.op.name() {
        "Conv" | "FusedConv" if n.op.domain() == DOMAIN => conv(cx, n, f),
        "ConvTranspose" | "FusedConvTranspose" if n.op.domain() == DOMAIN => conv_transpose(cx, n, f),
        "MatMul" | "FusedMatMul" if matches!(n.op.domain(), "" | "ir.") => matmul(cx, n, f),
        "Gemm" | "FusedGemm" if matches!(n.op.domain(), "" | "ir.") => gemm(cx, n, f),
        _ => None,
    }
}

impl Finish {
    /// What a node alone says: nothing unless it is a fused one.
    pub fn of(n: &Node, output: ValueId) -> ir::Result<Finish> {
        let bare = Finish {
            bias: None,
            act: Activation::None,
            residual: None,
            residual_last: false,
            affine: None,
            grid: None,
            quantize: None,
            output,
        };
        if !n.op.name().starts_with("Fused") {
            return Ok(bare);
        }
        Ok(Finish {
            bias: n.input(2).filter(|_| n.op.name() == "FusedMatMul"),
            act: fused::Activation::read(&n.attrs)?.map_or(Activation::None, native),
            residual: n.input(RESIDUAL),
            residual_last: fused::residual_last(&n.attrs)?,
            ..bare
        })
    }
    /// As a call holds it; the residual is input `at`.
    pub(super) fn made(&self, at: usize, bias: Option<Vec<f32>>) -> artefact::Finish {
        let residual = self.residual.map(|_| Residual { input: at, after_activation: self.residual_last });
        artefact::Finish { bias, residual, act: self.act, affine: self.affine.clone(), grid: self.grid }
    }
}

/// The kernels' form of an activation.
pub fn native(a: fused::Activation) -> Activation {
    match a {
        fused::Activation::Relu => Activation::Relu,
        fused::Activation::Clip { lo, hi } => Activation::Clip { lo, hi },
        fused::Activation::LeakyRelu { alpha } => Activation::LeakyRelu(alpha),
        fused::Activation::HardSwish => Activation::HardSwish,
        fused::Activation::HardSigmoid { alpha, beta } => Activation::HardSigmoid { alpha, beta },
        fused::Activation::Sigmoid => Activation::Sigmoid,
        fused::Activation::Tanh => Activation::Tanh,
        fused::Activation::Swish => Activation::Silu,
        fused::Activation::Gelu => Activation::GeluErf,
        fused::Activation::GeluTanh => Activation::GeluTanh,
    }
}

/// Spatial sizes in front-padded triples.
pub(super) fn triple(
    axes: &Windows,
    f: impl Fn(&ops::window::Window) -> usize,
    fill: usize,
) -> Option<[usize; 3]> {
    let mut out = [fill; 3];
    let lead = 3usize.checked_sub(axes.len())?;
    axes.iter().enumerate().for_each(|(i, w)| out[lead + i] = f(w));
    Some(out)
}

/// Channels-last shape as the standard one.
pub fn standard(shape: &[usize]) -> Vec<usize> {
    crate::channels_last::to_first(shape.len()).into_iter().map(|d| shape[d]).collect()
}

fn conv(cx: &Cx, n: &Node, f: &Finish) -> Option<Lowered> {
    let (x, w) = (n.input(0)?, n.input(1)?);
    let shape = cx.f32_shape(x)?;
    let g = ops::conv::geometry(&n.attrs, &standard(&shape), &cx.shape(w)?).ok()?;
    let s = ConvShape {
        batch: g.batch,
        input: triple(&g.axes, |w| w.input, 1)?,
        cin: g.in_channels,
        cout: g.out_channels,
        kernel: triple(&g.axes, |w| w.kernel, 1)?,
        stride: triple(&g.axes, |w| w.stride, 1)?,
        dilation: triple(&g.axes, |w| w.dilation, 1)?,
        pad_begin: triple(&g.axes, |w| w.pad_begin, 0)?,
        pad_end: triple(&g.axes, |w| w.pad_end, 0)?,
        groups: g.groups,
    };
    if s.output().ok()? != triple(&g.axes, |w| w.output, 1)? {
        return None;
    }
    let finish = f.made(1, cx.optional_floats(n.input(2))?);
    let flops =
        2.0 * (g.batch * g.output_plane() * g.out_channels * (g.in_channels / g.groups) * g.taps()) as f64;
    let reads = [x].into_iter().chain(f.residual).collect();
    let pairs = PackedConvBf16::takes(s.cin, s.groups) && Precision::pays(s.cin / s.groups);
    if pairs && cx.in_bf16(x, w) {
        let pack = |w: &[f32]| PackedConvBf16::new(cx.tier, w, s.cout, s.cin, s.kernel, s.groups).ok();
        let call = Call::HalfConv {
            shape: s,
            weights: cx.pack(w, &(s.cout, s.cin, s.kernel, s.groups), pack)?,
            finish,
        };
        return Some(Lowered::call("bf16 convolution", reads, f.output, flops, call));
    }
    let layout = PackedConv::layout(&s).ok()?;
    let weights =
        cx.pack_unaligned(w, &layout, |weights| PackedConv::from_unaligned(cx.tier, weights, &s).ok())?;
    let call = Call::Conv { shape: s, weights, finish };
    Some(Lowered::call("convolution", reads, f.output, flops, call))
}

fn conv_transpose(cx: &Cx, n: &Node, f: &Finish) -> Option<Lowered> {
    let (x, w) = (n.input(0)?, n.input(1)?);
    let shape = cx.f32_shape(x)?;
    let g = ops::conv_transpose::geometry(&n.attrs, &standard(&shape), &cx.shape(w)?).ok()?;
    // Its windows are those of the convolution it transposes: input and output change places.
    let s = ConvTransposeShape {
        batch: g.batch,
        input: triple(&g.axes, |w| w.output, 1)?,
        output: triple(&g.axes, |w| w.input, 1)?,
        cin: g.in_channels,
        cout: g.out_channels,
        kernel: triple(&g.axes, |w| w.kernel, 1)?,
        stride: triple(&g.axes, |w| w.stride, 1)?,
        dilation: triple(&g.axes, |w| w.dilation, 1)?,
        pad_begin: triple(&g.axes, |w| w.pad_begin, 0)?,
        groups: g.groups,
    };
    // The kernel multiplies weights with zeros where no input is, which is no zero for infinite ones.
    let finite = |weights: &[f32]| weights.iter().all(|w| w.is_finite());
    let pack = |weights: &[f32]| {
        if finite(weights) { PackedConvTranspose::new(cx.tier, weights, &s).ok() } else { None }
    };
    let weights = cx.pack_alone(w, pack)?;
    let finish = f.made(1, cx.optional_floats(n.input(2))?);
    let flops =
        2.0 * (g.batch * g.input_plane() * g.in_channels * (g.out_channels / g.groups) * g.taps()) as f64;
    let reads = [x].into_iter().chain(f.residual).collect();
    let call = Call::ConvTranspose { shape: s, weights, finish };
    Some(Lowered::call("transposed convolution", reads, f.output, flops, call))
}

fn matmul(cx: &Cx, n: &Node, f: &Finish) -> Option<Lowered> {
    let (a, b) = (n.input(0)?, n.input(1)?);
    let (sa, sb) = (cx.f32_shape(a)?, cx.f32_shape(b)?);
    let bias = cx.optional_floats(f.bias)?;
    let [.., k, nn] = sb[..] else { return None };
    if sa.last() != Some(&k) || k == 0 {
        return None;
    }
    if sb.len() == 2 && cx.is_weight(b) {
        let m: usize = sa[..sa.len() - 1].iter().product();
        let reads = [a].into_iter().chain(f.residual).collect();
        let (flops, finish) = (2.0 * (m * k * nn) as f64, f.made(1, bias));
        let (w, strides) = cx.turned(b).map_or((b, Strides::kn(nn)), |w| (w, Strides::nk(k)));
        if cx.in_bf16(a, b) {
            let pack = |w: &[f32]| PackedBf16::from_strided(cx.tier, w, strides, k, nn).ok();
            let call =
                Call::HalfProduct { m, alpha: 1.0, weights: cx.pack(w, &(strides, k, nn), pack)?, finish };
            return Some(Lowered::call("bf16 product", reads, f.output, flops, call));
        }
        let weights = cx.pack_unaligned(w, &(strides, k, nn), |w| {
            PackedB::from_unaligned(cx.tier, w, strides, k, nn).ok()
        })?;
        let call = Call::Product { m, alpha: 1.0, weights, finish };
        return Some(Lowered::call("matrix product", reads, f.output, flops, call));
    }
    if sa.len() < 2 {
        return None;
    }
    let m = sa[sa.len() - 2];
    let (ba, bb) = (&sa[..sa.len() - 2], &sb[..sb.len() - 2]);
    let count = |s: &[usize]| s.iter().product::<usize>();
    // Elements between the operands of two products.
    let (batch, step_a, step_b) = if ba == bb {
        (count(ba), m * k, k * nn)
    } else if count(bb) == 1 && bb.len() <= ba.len() {
        (count(ba), m * k, 0)
    } else if count(ba) == 1 && ba.len() <= bb.len() {
        (count(bb), 0, k * nn)
    } else {
        return None;
    };
    let reads = [a, b].into_iter().chain(f.residual).collect();
    let shape = GemmShape { batch, m, n: nn, k };
    let call = Call::Products { tier: cx.tier, shape, steps: [step_a, step_b], finish: f.made(2, bias) };
    Some(Lowered::call("matrix product", reads, f.output, 2.0 * (batch * m * k * nn) as f64, call))
}

fn gemm(cx: &Cx, n: &Node, f: &Finish) -> Option<Lowered> {
    let Product { m, k, n: nn, n_first: tb, x: a, w: b, alpha, bias } = super::product::gemm(cx, n, f)?;
    if !cx.is_weight(b) {
        return None;
    }
    let reads = [a].into_iter().chain(f.residual).collect();
    let (flops, finish) = (2.0 * (m * k * nn) as f64, f.made(1, bias));
    let strides = if tb { Strides::nk(k) } else { Strides::kn(nn) };
    if cx.in_bf16(a, b) {
        let pack = |w: &[f32]| PackedBf16::from_strided(cx.tier, w, strides, k, nn).ok();
        let call = Call::HalfProduct { m, alpha, weights: cx.pack(b, &(strides, k, nn), pack)?, finish };
        return Some(Lowered::call("bf16 product", reads, f.output, flops, call));
    }
    let weights = cx
        .pack_unaligned(b, &(strides, k, nn), |w| PackedB::from_unaligned(cx.tier, w, strides, k, nn).ok())?;
    let call = Call::Product { m, alpha, weights, finish };
    Some(Lowered::call("matrix product", reads, f.output, flops, call))
}
