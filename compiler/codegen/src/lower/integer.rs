//! Contractions of 8-bit integers: constant weights are packed once, here; scales and zero points of activations may be
//! known or come with the run.

use super::contract::{Finish, standard, triple};
use super::{Cx, Lowered};
use crate::channels_last::DOMAIN;
use artefact::{BytePairs, Call, Kept, Scalar, Scaling, Zero};
use ir::{DType, Node, Tensor, ValueId};
use kernels::{ConvShape, GemmShape, PackedConvI8, PackedI8, Strides, Weights};
use ops::quantized::DOMAIN as INTERNAL;

pub fn lower(cx: &Cx, n: &Node, f: &Finish) -> Option<Lowered> {
    match (n.op.domain(), n.op.name()) {
        (DOMAIN, "QuantizedConv") => conv(cx, n, f, &Operands::quantized(cx, n, f)?),
        (DOMAIN, "ConvInteger") => conv(cx, n, f, &Operands::sums(cx, n)?),
        (INTERNAL, "QuantizedMatMul") => matmul(cx, n, f, Operands::quantized(cx, n, f)?),
        ("", "MatMulInteger") => matmul(cx, n, f, Operands::sums(cx, n)?),
        _ => None,
    }
}

/// The operands of an integer contraction, in whatever order the operator has them.
struct Operands {
    /// What the step reads; x first.
    reads: Vec<ValueId>,
    x: ValueId,
    w: ValueId,
    signed: [bool; 2],
    x_scale: Scalar<f32>,
    x_zero: Scalar<u8>,
    x_zeros: Vec<i32>,
    /// Of the weights when they are one number; multiplied at run time.
    w_factor: Scalar<f32>,
    /// One for each column, or none.
    w_scale: Vec<f32>,
    w_zero: Zero,
    bias: Option<Vec<f32>>,
    output: Kept,
}

fn signed(cx: &Cx, v: ValueId) -> Option<bool> {
    match cx.graph.dtype(v)? {
        DType::U8 => Some(false),
        DType::I8 => Some(true),
        _ => None,
    }
}

fn ints(t: &Tensor) -> Option<Vec<i32>> {
    t.to_i64s().ok()?.into_iter().map(|x| i32::try_from(x).ok()).collect()
}

impl Operands {
    fn new(cx: &Cx, x: ValueId, w: ValueId, output: Kept) -> Option<Operands> {
        Some(Operands {
            reads: vec![x],
            x,
            w,
            signed: [signed(cx, x)?, signed(cx, w)?],
            x_scale: Scalar::Known(1.0),
            x_zero: Scalar::Known(0),
            x_zeros: Vec::new(),
            w_factor: Scalar::Known(1.0),
            w_scale: Vec::new(),
            w_zero: Zero::Known(Vec::new()),
            bias: None,
            output,
        })
    }

    fn read(&mut self, v: ValueId) -> usize {
        self.reads.push(v);
        self.reads.len() - 1
    }

    fn scalar(&mut self, cx: &Cx, v: ValueId) -> Option<Scalar<f32>> {
        match cx.graph.constant(v) {
            Some(_) => cx.floats(v)?.first().map(|&s| Scalar::Known(s)),
            None if cx.f32_shape(v)?.iter().product::<usize>() == 1 => Some(Scalar::Read(self.read(v))),
            None => None,
        }
    }

    fn zeros(&mut self, cx: &Cx, x: Option<ValueId>, w: Option<ValueId>) -> Option<()> {
        if let Some(z) = x {
            self.x_zero = match cx.graph.constant(z) {
                Some(t) if t.len() == 1 => Scalar::Known(*ints(t)?.first()? as u8),
                Some(t) => {
                    self.x_zeros = ints(t)?;
                    Scalar::Known(0)
                }
                None if cx.shape(z)?.iter().product::<usize>() == 1 => Scalar::Read(self.read(z)),
                _ => return None,
            };
        }
        if let Some(z) = w {
            self.w_zero = match cx.graph.constant(z) {
                Some(t) => Zero::Known(ints(t)?),
                None if cx.shape(z)?.iter().product::<usize>() == 1 => Zero::Read(self.read(z)),
                None => return None,
            };
        }
        Some(())
    }

    /// Of the internal operators.
    fn quantized(cx: &Cx, n: &Node, f: &Finish) -> Option<Operands> {
        let output = match &f.quantize {
            Some(q) => {
                let (scale, zeros) = (q.scale.clone(), q.zeros.clone());
                Kept::Bytes { scale, zero: q.zero, zeros, signed: q.signed }
            }
            None => Kept::Values,
        };
        let mut o = Operands::new(cx, n.input(0)?, n.input(3)?, output)?;
        o.x_scale = o.scalar(cx, n.input(1)?)?;
        let sw = n.input(4)?;
        if cx.shape(sw)?.iter().product::<usize>() == 1 {
            o.w_factor = o.scalar(cx, sw)?;
        } else {
            o.w_scale = cx.floats(sw)?;
        }
        o.zeros(cx, n.input(2), n.input(5))?;
        let own = cx.optional_floats(n.input(6))?;
        let fused = cx.optional_floats(f.bias)?;
        o.bias = match (own, fused) {
            (Some(a), Some(b)) if a.len() == b.len() => Some(a.iter().zip(&b).map(|(a, b)| a + b).collect()),
            (Some(_), Some(_)) => return None,
            (a, b) => a.or(b),
        };
        Some(o)
    }

    /// Of the standard operators with integer results.
    fn sums(cx: &Cx, n: &Node) -> Option<Operands> {
        let mut o = Operands::new(cx, n.input(0)?, n.input(1)?, Kept::Sums)?;
        o.zeros(cx, n.input(2), n.input(3))?;
        Some(o)
    }

    /// The constant weights; the tensor keeps its bytes alive.
    fn constant<'a>(&'a self, w: &'a Tensor) -> Option<Weights<'a>> {
        let Zero::Known(zero) = &self.w_zero else { return None };
        Some(Weights { data: w.bytes(), signed: self.signed[1], zero, scale: &self.w_scale })
    }

    /// What remains for the run.
    fn scaling(&self) -> Scaling {
        Scaling {
            signed: self.signed,
            x_scale: self.x_scale,
            x_zero: self.x_zero,
            x_zeros: self.x_zeros.clone(),
            w_factor: self.w_factor,
            w_zero: self.w_zero.clone(),
            output: self.output.clone(),
        }
    }
}

fn conv(cx: &Cx, n: &Node, f: &Finish, o: &Operands) -> Option<Lowered> {
    let (shape, w) = (cx.shape(o.x)?, cx.graph.constant(o.w)?);
    let g = ops::conv::geometry(&n.attrs, &standard(&shape), w.shape()).ok()?;
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
    // Zero points of their own are for channels that do not mix.
    let apart = s.groups == s.cin && s.cin == s.cout && s.cin > 1;
    if !(o.x_zeros.is_empty() || apart && o.x_zeros.len() == s.cin) {
        return None;
    }
    let weights = Box::new(PackedConvI8::new(cx.tier, &s, &o.constant(w)?).ok()?);
    let finish = f.made(o.reads.len(), o.bias.clone());
    let flops =
        2.0 * (g.batch * g.output_plane() * g.out_channels * (g.in_channels / g.groups) * g.taps()) as f64;
    let reads = o.reads.iter().copied().chain(f.residual).collect();
    let call = Call::ByteConv { shape: s, weights, scaling: o.scaling(), finish };
    Some(Lowered::call("integer convolution", reads, f.output, flops, call))
}

fn matmul(cx: &Cx, n: &Node, f: &Finish, mut o: Operands) -> Option<Lowered> {
    let (sa, sb) = (cx.shape(o.x)?, cx.shape(o.w)?);
    let &[.., k, nn] = &sb[..] else { return None };
    if sa.last() != Some(&k) || sa.len() < 2 || k == 0 || n.outputs().len() != 1 || !o.x_zeros.is_empty() {
        return None;
    }
    let bias = o.bias.take();
    if let (2, Some(w)) = (sb.len(), cx.graph.constant(o.w)) {
        let m: usize = sa[..sa.len() - 1].iter().product();
        let Weights { data: _, signed, zero, scale } = o.constant(w)?;
        let bits: Vec<u32> = scale.iter().map(|s| s.to_bits()).collect();
        let weights = cx.shared(o.w, &("bytes", k, nn, signed, zero, bits), || {
            PackedI8::from_strided(cx.tier, &o.constant(w)?, Strides::kn(nn), k, nn).ok()
        })?;
        let finish = f.made(o.reads.len(), bias);
        let call = Call::ByteProduct { m, weights, scaling: o.scaling(), finish };
        let reads = o.reads.into_iter().chain(f.residual).collect();
        let flops = 2.0 * (m * k * nn) as f64;
        return Some(Lowered::call("integer product", reads, f.output, flops, call));
    }
    // Both operands are activations: the right one is packed in every run.
    let (ba, bb) = (&sa[..sa.len() - 2], &sb[..sb.len() - 2]);
    let batch: usize = ba.iter().product();
    let shared = bb.iter().product::<usize>() == 1 && bb.len() <= ba.len();
    let parameters = o.w_scale.is_empty() && matches!(&o.w_zero, Zero::Known(z) if z.len() <= 1)
        || matches!(o.w_zero, Zero::Read(_));
    if !(ba == bb || shared) || !parameters || f.residual.is_some() {
        return None;
    }
    let w = o.w;
    let right = o.read(w);
    let shape = GemmShape { batch, m: sa[sa.len() - 2], n: nn, k };
    let of = BytePairs { shape, right, shared };
    let call = Call::ByteProducts { tier: cx.tier, of, scaling: o.scaling(), finish: f.made(0, bias) };
    let flops = 2.0 * (batch * shape.m * k * nn) as f64;
    Some(Lowered::call("integer product", o.reads, f.output, flops, call))
}
