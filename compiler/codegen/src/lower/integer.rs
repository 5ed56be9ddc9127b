//! Contractions of 8-bit integers: constant weights are packed once, here; scales and zero points of activations may be
//! known or come with the run.

use super::contract::{Finish, standard, triple};
use super::{Cx, Lowered};
use crate::channels_last::DOMAIN;
use crate::group::Quantize;
use crate::kernel::{Io, text};
use ir::{DType, Node, Tensor, ValueId};
use kernels::{Activations, ConvShape, PackedConvI8, PackedI8, Results, Strides, Weights, conv_i8, gemm_i8};
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

/// A number known now or read from operand `usize` of the step.
#[derive(Clone, Copy)]
enum Scalar<T> {
    Known(T),
    Read(usize),
}

impl<T: crate::kernel::Plain + Copy + Default> Scalar<T> {
    fn get(self, io: &Io) -> T {
        match self {
            Scalar::Known(x) => x,
            Scalar::Read(i) => io.input::<T>(i).first().copied().unwrap_or_default(),
        }
    }
}

/// What the results are.
#[derive(Clone)]
enum Output {
    Sums,
    Values,
    Bytes(Quantize),
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
    /// Of the weights when they are one number; multiplied at run time.
    w_factor: Scalar<f32>,
    /// One for each column, or none.
    w_scale: Vec<f32>,
    w_zero: Zero,
    bias: Option<Vec<f32>>,
    output: Output,
}

#[derive(Clone)]
enum Zero {
    Known(Vec<i32>),
    Read(usize),
}

fn signed(cx: &Cx, v: ValueId) -> Option<bool> {
    match cx.graph.dtype(v)? {
        DType::U8 => Some(false),
        DType::I8 => Some(true),
        _ => None,
    }
}

fn byte(b: u8, signed: bool) -> i32 {
    if signed { i32::from(b as i8) } else { i32::from(b) }
}

fn ints(t: &Tensor) -> Option<Vec<i32>> {
    t.to_i64s().ok()?.into_iter().map(|x| i32::try_from(x).ok()).collect()
}

impl Operands {
    fn new(cx: &Cx, x: ValueId, w: ValueId, output: Output) -> Option<Operands> {
        Some(Operands {
            reads: vec![x],
            x,
            w,
            signed: [signed(cx, x)?, signed(cx, w)?],
            x_scale: Scalar::Known(1.0),
            x_zero: Scalar::Known(0),
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
        let output = f.quantize.clone().map_or(Output::Values, Output::Bytes);
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
        let mut o = Operands::new(cx, n.input(0)?, n.input(1)?, Output::Sums)?;
        o.zeros(cx, n.input(2), n.input(3))?;
        Some(o)
    }

    /// The constant weights; the tensor keeps its bytes alive.
    fn constant<'a>(&'a self, w: &'a Tensor) -> Option<Weights<'a>> {
        let Zero::Known(zero) = &self.w_zero else { return None };
        Some(Weights { data: w.bytes(), signed: self.signed[1], zero, scale: &self.w_scale })
    }

    /// What remains for the run.
    fn run(&self) -> Run {
        Run {
            signed: self.signed,
            x_scale: self.x_scale,
            x_zero: self.x_zero,
            w_factor: self.w_factor,
            w_zero: self.w_zero.clone(),
            output: self.output.clone(),
        }
    }
}

/// The parts of [`Operands`] that a kernel keeps.
struct Run {
    signed: [bool; 2],
    x_scale: Scalar<f32>,
    x_zero: Scalar<u8>,
    w_factor: Scalar<f32>,
    w_zero: Zero,
    output: Output,
}

impl Run {
    fn activations<'a>(&self, io: &'a Io) -> Activations<'a> {
        Activations {
            data: io.input::<u8>(0),
            signed: self.signed[0],
            zero: byte(self.x_zero.get(io), self.signed[0]),
            scale: self.x_scale.get(io) * self.w_factor.get(io),
        }
    }

    fn results<'a>(&'a self, io: &'a Io) -> Results<'a> {
        match &self.output {
            Output::Sums => Results::Sums(io.output(0)),
            Output::Values => Results::F32(io.output(0)),
            Output::Bytes(q) => {
                Results::Bytes { data: io.output(0), signed: q.signed, scale: &q.scale, zero: q.zero }
            }
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
    let packed = PackedConvI8::new(cx.tier, &s, &o.constant(w)?).ok()?;
    let (bias, own, run) = (o.bias.clone(), f.owned(), o.run());
    let flops =
        2.0 * (g.batch * g.output_plane() * g.out_channels * (g.in_channels / g.groups) * g.taps()) as f64;
    let mut reads = o.reads.clone();
    let at = reads.len();
    reads.extend(f.residual);
    Some(Lowered::kernel("integer convolution", reads, f.output, flops, move |io| {
        let e = own.epilogue(io, at, s.cout, bias.as_deref());
        conv_i8(io.pool, &s, &run.activations(io), &packed, &mut run.results(io), &e).map_err(text)
    }))
}

fn matmul(cx: &Cx, n: &Node, f: &Finish, mut o: Operands) -> Option<Lowered> {
    let (sa, sb) = (cx.shape(o.x)?, cx.shape(o.w)?);
    let &[.., k, nn] = &sb[..] else { return None };
    if sa.last() != Some(&k) || sa.len() < 2 || k == 0 || n.outputs().len() != 1 {
        return None;
    }
    let own = f.owned();
    let bias = o.bias.take();
    if let (2, Some(w)) = (sb.len(), cx.graph.constant(o.w)) {
        let m: usize = sa[..sa.len() - 1].iter().product();
        let packed = PackedI8::from_strided(cx.tier, &o.constant(w)?, Strides::kn(nn), k, nn).ok()?;
        let (run, at) = (o.run(), o.reads.len());
        let mut reads = o.reads;
        reads.extend(f.residual);
        let flops = 2.0 * (m * k * nn) as f64;
        return Some(Lowered::kernel("integer product", reads, f.output, flops, move |io| {
            let e = own.epilogue(io, at, nn, bias.as_deref());
            gemm_i8(io.pool, m, &run.activations(io), &packed, &mut run.results(io), &e).map_err(text)
        }));
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
    let b = o.read(w);
    let (run, tier, m) = (o.run(), cx.tier, sa[sa.len() - 2]);
    let flops = 2.0 * (batch * m * k * nn) as f64;
    Some(Lowered::kernel("integer product", o.reads, f.output, flops, move |io| {
        let zero = match &run.w_zero {
            Zero::Known(z) => z.clone(),
            &Zero::Read(i) => io.input::<u8>(i).iter().map(|&z| byte(z, run.signed[1])).collect(),
        };
        let e = own.epilogue(io, 0, nn, bias.as_deref());
        let (x, w) = (run.activations(io), io.input::<u8>(b));
        let mut y = run.results(io);
        let mut packed = None;
        for i in 0..batch {
            let step = if shared { 0 } else { k * nn };
            if packed.is_none() || step > 0 {
                let data = &w[i * step..i * step + k * nn];
                let weights = Weights { data, signed: run.signed[1], zero: &zero, scale: &[] };
                packed = Some(PackedI8::from_strided(tier, &weights, Strides::kn(nn), k, nn).map_err(text)?);
            }
            let Some(packed) = &packed else { continue };
            let x = Activations { data: &x.data[i * m * k..(i + 1) * m * k], ..x };
            gemm_i8(io.pool, m, &x, packed, &mut part(&mut y, i * m * nn, m * nn), &e).map_err(text)?;
        }
        Ok(())
    }))
}

/// `len` results from `start` on.
fn part<'a>(y: &'a mut Results, start: usize, len: usize) -> Results<'a> {
    match y {
        Results::Sums(y) => Results::Sums(&mut y[start..start + len]),
        Results::F32(y) => Results::F32(&mut y[start..start + len]),
        Results::Bytes { data, signed, scale, zero } => {
            Results::Bytes { data: &mut data[start..start + len], signed: *signed, scale, zero: *zero }
        }
    }
}
