//! Static int8 in the QDQ form: activations uint8 by calibrated range, weights int8 per output row, bias int32.
//!
//! The form every runtime fuses into integer kernels, so it is the choice for speed. Ranges come from streaming
//! histograms by least squared error. Where few channels are much larger than the others, activations may be divided and
//! weights multiplied by a factor per channel first (SmoothQuant; Xiao et al., arXiv 2211.10438). Error: the weights'
//! rounding plus `‖W‖²` times the mean squared error of an activation, rounded or clipped.

use crate::candidate::Candidate;
use crate::factor::Order;
use crate::fragment::integers_into;
use crate::gptq::{Rounded, nearest};
use crate::layer::{Bias, Layer, Role};
use crate::method::{Context, Method, Refusal, Serves};
use crate::quant::{Grid, affine_u8, grid};
use crate::range::Choice;
use crate::replace::NodeBuild;
use crate::rounding::round;
use crate::smooth::{Smoothing, smoothing};
use ir::{Attrs, Result, Tensor, ValueId};
use ndarray::Array2;

pub struct Int8;

impl Method for Int8 {
    fn name(&self) -> &'static str {
        "int8"
    }

    fn applies(&self, layer: &Layer, stats: bool) -> Result<(), Refusal> {
        if !matches!(layer.role, Role::Conv | Role::MatMul | Role::Gemm) {
            return Err(Refusal::new(format!("{} has no integer kernel", layer.op)));
        }
        if layer.users != 1 {
            return Err(Refusal::new("the weight has several users"));
        }
        if !stats {
            return Err(Refusal::new("activation ranges need data"));
        }
        Ok(())
    }

    fn serves(&self) -> Serves {
        Serves::Both
    }

    fn candidates(&self, cx: &Context) -> Result<Vec<Candidate>> {
        // Without a range there is nothing to round activations by.
        let Some(stats) = cx.stats.filter(|s| !s.range.is_empty()) else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        let g = grid(cx.matrix.view(), 8, cx.matrix.ncols(), None, false);
        let rounded = round(cx.matrix, cx.node_stats().filter(|_| cx.compensate), Order::Activity, &g);
        for (choice, name) in [(Choice::LeastSquares, "int8"), (Choice::MinMax, "int8 min-max")] {
            let (lo, hi) = stats.range.range(choice);
            let noise = stats.range.noise((lo, hi));
            if let Some(n) = NodeBuild::new(cx)? {
                let noise = power(cx.matrix) * noise;
                found.extend(quantized(
                    cx,
                    n,
                    affine_u8(lo, hi),
                    noise,
                    &rounded,
                    &rounded.values,
                    &g,
                    name,
                )?);
            }
        }
        if let Some(s) = smoothing(cx, stats) {
            found.extend(smoothed(cx, &s)?);
        }
        Ok(found)
    }
}

/// The node in QDQ form; `decoded` is what the weights are to the inputs as they were, `noise` what rounded activations lose.
fn quantized(
    cx: &Context,
    mut n: NodeBuild,
    (scale, zero): (f32, u8),
    noise: f64,
    rounded: &Rounded,
    decoded: &Array2<f32>,
    g: &Grid,
    recipe: &str,
) -> Result<Option<Candidate>> {
    let node = cx.graph.node(cx.layer.node)?;
    let correction = cx.correction(decoded).filter(|_| matches!(cx.layer.bias, Some(Bias::Constant(_))));
    let s = n.b.constant("xs", Tensor::scalar(scale));
    let z = n.b.constant("xz", Tensor::scalar(zero));
    let q = n.b.op("QuantizeLinear", "xq", Attrs::new(), &[n.x, s, z])?;
    let x = n.b.op("DequantizeLinear", "x", Attrs::new(), &[q, s, z])?;
    let w = integers_into(&mut n.b, "w", &cx.layer.view, rounded, g)?;
    let mut inputs = vec![x, w];
    let own = bias(cx, &mut n, g, scale, correction.as_deref())?;
    inputs.extend(own.or(n.bias));
    let y = n.b.op(node.op.name(), "y", node.attrs.clone(), &inputs)?;
    let fragment = n.b.finish(&[y])?;
    let mut c = cx.node("int8", recipe.to_string(), fragment, decoded);
    c.error += noise;
    if own.is_some() {
        // The integer bias inside the fragment holds the correction.
        c.bias = None;
    }
    Ok(Some(c))
}

fn smoothed(cx: &Context, s: &Smoothing) -> Result<Option<Candidate>> {
    let Some(mut n) = NodeBuild::new(cx)? else { return Ok(None) };
    let factor = |c: usize| s.factors[c / s.run];
    let matrix = Array2::from_shape_fn(cx.matrix.raw_dim(), |(r, c)| cx.matrix[[r, c]] * factor(c));
    let g = grid(matrix.view(), 8, matrix.ncols(), None, false);
    let rounded = nearest(matrix.view(), &g);
    let decoded = Array2::from_shape_fn(matrix.raw_dim(), |(r, c)| rounded.values[[r, c]] / factor(c));
    let inverse = s.factors.iter().map(|f| 1.0 / f).collect();
    let spatial = if cx.layer.role == Role::Conv { cx.layer.view.shape.len() - 2 } else { 0 };
    let shape: Vec<usize> = std::iter::once(s.factors.len()).chain((0..spatial).map(|_| 1)).collect();
    let inverse = n.b.constant("xi", Tensor::new::<f32>(&shape, inverse)?);
    n.x = n.b.op("Mul", "xm", Attrs::new(), &[n.x, inverse])?;
    let (scale, zero) = affine_u8(s.range[0], s.range[1]);
    let noise = f64::from(scale).powi(2) / 12.0;
    quantized(cx, n, (scale, zero), power(&matrix) * noise, &rounded, &decoded, &g, "int8 smoothed")
}

pub fn power(w: &Array2<f32>) -> f64 {
    w.iter().map(|&x| f64::from(x).powi(2)).sum()
}

/// The bias as int32 with scale `s_x·s_w` per row, corrected, when it is a constant vector of a convolution.
fn bias(
    cx: &Context,
    n: &mut NodeBuild,
    g: &Grid,
    scale: f32,
    correction: Option<&[f32]>,
) -> Result<Option<ValueId>> {
    let node = cx.graph.node(cx.layer.node)?;
    let constant = node.input(2).and_then(|v| cx.graph.constant(v));
    let conv = cx.layer.role == Role::Conv;
    let Some(t) = constant.filter(|t| conv && t.len() == cx.matrix.nrows()) else { return Ok(None) };
    let scales: Vec<f32> = g.scales.iter().map(|&s| s * scale).collect();
    let mut values = t.to_f32s()?;
    values.iter_mut().zip(correction.unwrap_or(&[])).for_each(|(v, c)| *v += c);
    let fits = values.iter().zip(&scales).all(|(&b, &s)| s > 0.0 && (b / s).abs() < 2e9);
    if !fits {
        return Ok(None);
    }
    let codes = values.iter().zip(&scales).map(|(&b, &s)| (b / s).round() as i32).collect();
    let q = n.b.constant("bq", Tensor::vector::<i32>(codes));
    let s = n.b.constant("bs", Tensor::vector::<f32>(scales));
    Ok(Some(n.b.op("DequantizeLinear", "b", Attrs::new().with("axis", 0i64), &[q, s])?))
}
