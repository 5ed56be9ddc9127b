//! DeformConv: convolution whose taps are moved by learned offsets (Dai et al., 2017; masks: Zhu et al., 2018).

use crate::arith::{Real, Strided, by_real};
use crate::conv::{ConvGeometry, geometry, output_dims};
use crate::grid::linear_taps;
use crate::index::strides;
use crate::typing::{one, tensor_type};
use crate::{Op, schema};
use ir::{Accuracy, Error, EvalCx, InferCx, Kind, Operator, Result, Tensor, Value, ValueType, budget};

pub static OPERATORS: &[&dyn Operator] = &[&Op::new("DeformConv", &schema::DEFORM_CONV, infer, eval)
    .kind(|_| Kind::Contract)
    .accuracy(Accuracy::Accumulated)];

fn infer(cx: &InferCx) -> Result<Vec<ValueType>> {
    Ok(vec![tensor_type(cx.dtype(0)?, output_dims(cx.attrs, cx.shape(0), cx.shape(1))?)])
}

fn eval(cx: &EvalCx) -> Result<Vec<Value>> {
    Ok(one(by_real!(cx.tensor(0)?.dtype(), deform_conv(cx))?))
}

fn deform_conv<T: Real>(cx: &EvalCx) -> Result<Tensor> {
    let (x, w, offset) = (cx.tensor(0)?, cx.tensor(1)?, cx.tensor(2)?);
    let g = geometry(cx.attrs, x.shape(), w.shape())?;
    let groups = usize::try_from(cx.attrs.int_or("offset_group", 1)?).unwrap_or(0);
    if groups == 0 || g.in_channels % groups != 0 {
        return Err(Error::model(format!(
            "offset_group {groups} does not divide {} channels",
            g.in_channels
        )));
    }
    let spatial: Vec<usize> = g.axes.iter().map(|a| a.output).collect();
    let fits = |t: &Tensor, per_tap: usize| {
        let channels = groups.checked_mul(g.taps()).and_then(|n| n.checked_mul(per_tap));
        t.rank() == x.rank()
            && t.shape()[0] == g.batch
            && Some(t.shape()[1]) == channels
            && t.shape()[2..] == spatial
    };
    let (bias, mask) = (cx.optional(3)?, cx.optional(4)?);
    if !fits(offset, g.axes.len()) || mask.is_some_and(|m| !fits(m, 1)) {
        return Err(Error::model("offset or mask does not fit the convolution"));
    }
    if bias.is_some_and(|b| b.shape() != [g.out_channels]) {
        return Err(Error::model(format!("bias must have shape [{}]", g.out_channels)));
    }
    let offset = offset.to_f64s()?;
    let mask = mask.map(Tensor::to_f64s).transpose()?;
    let y = convolve::<T>(&T::read(x)?, &T::read(w)?, &offset, mask.as_deref(), groups, &g)?;
    let mut y = y;
    if let Some(b) = bias {
        let b = T::read(b)?;
        y.chunks_exact_mut(g.output_plane().max(1)).zip(b.iter().cycle()).for_each(|(y, &b)| {
            y.iter_mut().for_each(|y| *y += b);
        });
    }
    T::write(x.dtype(), &g.output(), y)
}

fn convolve<T: Real>(
    x: &[T],
    w: &[T],
    offset: &[f64],
    mask: Option<&[f64]>,
    offset_groups: usize,
    g: &ConvGeometry,
) -> Result<Vec<T>> {
    let (plane, taps, channels) = (g.output_plane(), g.taps(), g.in_channels);
    let mut y = budget::filled(budget::elements(&g.output())?, T::ZERO)?;
    if y.is_empty() || x.is_empty() {
        return Ok(y);
    }
    let size = budget::elements(&[channels, taps, plane])?;
    let mut patches = budget::filled(size, T::ZERO)?;
    let (cin, cout) = (channels / g.groups, g.out_channels / g.groups);
    for b in 0..g.batch {
        let x = &x[b * channels * g.input_plane()..][..channels * g.input_plane()];
        let offset = &offset[b * offset_groups * taps * g.axes.len() * plane..];
        let mask = mask.map(|m| &m[b * offset_groups * taps * plane..]);
        sample(x, offset, mask, offset_groups, g, &mut patches)?;
        for group in 0..g.groups {
            let w = Strided(&w[group * cout * cin * taps..], cin * taps, 1);
            let patches = Strided(&patches[group * cin * taps * plane..], plane, 1);
            let y = &mut y[(b * g.out_channels + group * cout) * plane..];
            T::gemm([cout, cin * taps, plane], w, patches, y, plane)?;
        }
    }
    Ok(y)
}

/// Fills patches (channels, taps, windows) of one batch entry from the moved taps.
fn sample<T: Real>(
    x: &[T],
    offset: &[f64],
    mask: Option<&[f64]>,
    groups: usize,
    g: &ConvGeometry,
    patches: &mut [T],
) -> Result<()> {
    let (plane, taps, per_group) = (g.output_plane(), g.taps(), g.in_channels / groups);
    let dims: Vec<usize> = g.axes.iter().map(|a| a.input).collect();
    let steps = strides(&dims);
    let outputs: Vec<usize> = g.axes.iter().map(|a| a.output).collect();
    let kernel: Vec<usize> = g.axes.iter().map(|a| a.kernel).collect();
    let mut position = vec![0.0; dims.len()];
    for group in 0..groups {
        for (t, tap) in ndarray::indices(&kernel[..]).into_iter().enumerate() {
            let row = group * taps + t;
            for (o, window) in ndarray::indices(&outputs[..]).into_iter().enumerate() {
                for (i, a) in g.axes.iter().enumerate() {
                    let still = (window[i] * a.stride + tap[i] * a.dilation) as f64 - a.pad_begin as f64;
                    position[i] = still + offset[(row * dims.len() + i) * plane + o];
                }
                let weight = mask.map_or(1.0, |m| m[row * plane + o]);
                let sources = linear_taps(&position, &dims, &steps)?;
                for c in group * per_group..(group + 1) * per_group {
                    let x = &x[c * g.input_plane()..];
                    let sum: f64 = sources.iter().map(|&(at, w)| w * x[at].f64()).sum();
                    patches[(c * taps + t) * plane + o] = T::of(weight * sum);
                }
            }
        }
    }
    Ok(())
}
