//! Pooling of channels-last images, and resizing.

use super::contract::standard;
use super::{Cx, Lowered};
use crate::channels_last::DOMAIN;
use crate::group::{Quantize, quantization};
use artefact::{Call, Line};
use ir::{DType, Graph, Node, ValueId};
use kernels::pool_i8::MOST_POSITIONS;
use kernels::resize::Image;
use kernels::{Dequantization, Pooling, Window};

pub fn lower(cx: &Cx, n: &Node) -> Option<Lowered> {
    if n.is("Resize") || n.op.name() == "Resize" && n.op.domain() == DOMAIN {
        return resize(cx, n);
    }
    if n.op.domain() != DOMAIN {
        return None;
    }
    match n.op.name() {
        "MaxPool" | "AveragePool" => pool(cx, n),
        "GlobalAveragePool" => global(cx, n, Pooling::Average),
        "GlobalMaxPool" => global(cx, n, Pooling::Max),
        _ => None,
    }
}

fn pool(cx: &Cx, n: &Node) -> Option<Lowered> {
    let (x, y) = (n.input(0)?, n.output(0)?);
    let shape = cx.shape(x)?;
    let bytes = match cx.graph.dtype(x)? {
        DType::F32 => None,
        DType::U8 => Some(false),
        DType::I8 => Some(true),
        _ => return None,
    };
    let g = ops::pool::geometry(&n.attrs, &standard(&shape)).ok()?;
    let lead = 3usize.checked_sub(g.axes.len())?;
    let mut w = Window {
        input: [1; 3],
        output: [1; 3],
        kernel: [1; 3],
        stride: [1; 3],
        dilation: [1; 3],
        pad: [0; 3],
    };
    let mut pad_end = [0; 3];
    for (i, a) in g.axes.iter().enumerate() {
        let k = lead + i;
        (w.input[k], w.output[k], w.kernel[k]) = (a.input, a.output, a.kernel);
        (w.stride[k], w.dilation[k], w.pad[k], pad_end[k]) = (a.stride, a.dilation, a.pad_begin, a.pad_end);
    }
    let include = n.attrs.int_or("count_include_pad", 0).ok()? != 0;
    let kind = match (n.op.name(), include) {
        ("MaxPool", _) => Pooling::Max,
        (_, true) => Pooling::AverageWithPadding { pad_end },
        _ => Pooling::Average,
    };
    let (tier, batch, channels) = (cx.tier, g.batch, g.channels);
    let flops = (g.output_plane() * batch * channels * w.kernel.iter().product::<usize>()) as f64;
    let call = match (bytes, kind) {
        (None, _) => Call::Pool { tier, kind, window: w, batch, channels },
        (Some(signed), Pooling::Max) => Call::BytePool { tier, signed, window: w, batch, channels },
        _ => return None,
    };
    Some(Lowered::call("pooling", vec![x], y, flops, call))
}

/// The bytes whose dequantization by one scale a node averages: it reads them as they are.
pub fn averaged_bytes(graph: &Graph, n: &Node) -> Option<(ValueId, Quantize)> {
    if n.op.domain() != DOMAIN || n.op.name() != "GlobalAveragePool" {
        return None;
    }
    let x = n.input(0).filter(|&x| graph.dtype(x) == Some(DType::F32))?;
    let shape = graph.ty(x).concrete()?;
    let positions =
        shape.get(1..shape.len().checked_sub(1)?)?.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
    if !(1..=MOST_POSITIONS).contains(&positions) {
        return None;
    }
    let d = graph.get(graph.producer(x)?).filter(|d| d.is("DequantizeLinear"))?;
    let by = quantization(graph, d).filter(|q| q.scale.len() == 1)?;
    Some((d.input(0)?, by))
}

fn global(cx: &Cx, n: &Node, kind: Pooling) -> Option<Lowered> {
    let (x, y) = (n.input(0)?, n.output(0)?);
    let shape = cx.f32_shape(x)?;
    let (&batch, &channels) = (shape.first()?, shape.last()?);
    let positions: usize = shape[1..shape.len() - 1].iter().product();
    let tier = cx.tier;
    let flops = (batch * channels * positions) as f64;
    if let Some((bytes, q)) = averaged_bytes(cx.graph, n) {
        let by = Dequantization { signed: q.signed, zero: q.zero, scale: q.scale[0] };
        let call = Call::GlobalAverage { tier, by, batch, positions, channels };
        return Some(Lowered::call("pooling", vec![bytes], y, flops, call));
    }
    let call = Call::GlobalPool { tier, kind, batch, positions, channels };
    Some(Lowered::call("pooling", vec![x], y, flops, call))
}

/// Channels last, or as many images of one channel.
fn resize(cx: &Cx, n: &Node) -> Option<Lowered> {
    let (x, y) = (n.input(0)?, n.output(0)?);
    let (shape, last) = (cx.shape(x)?, n.op.domain() == DOMAIN);
    let &[first, a, b, c] = &shape[..] else { return None };
    let image = match last {
        true => Image { batch: first, height: a, width: b, channels: c },
        false => Image { batch: first.checked_mul(a)?, height: b, width: c, channels: 1 },
    };
    let shape = if last { standard(&shape) } else { shape.to_vec() };
    let scales = n.input(2).map(|v| cx.floats(v)).unwrap_or(Some(Vec::new()))?;
    let sizes = n.input(3).map(|v| cx.ints(v)).unwrap_or(Some(Vec::new()))?;
    let plan = ops::resize::plan(
        &n.attrs,
        &shape,
        None,
        (!scales.is_empty()).then_some(&scales[..]),
        (!sizes.is_empty()).then_some(&sizes[..]),
    )
    .ok()?;
    if n.attrs.str_or("coordinate_transformation_mode", "half_pixel").ok()? == "tf_crop_and_resize" {
        return None;
    }
    let mode = n.attrs.str_or("mode", "nearest").ok()?;
    // Axes that keep their size have no table, or one that changes nothing.
    if plan.tables.iter().any(|t| t.axis < 2 && t.input != t.output) {
        return None;
    }
    let table = |axis: usize| plan.tables.iter().find(|t| t.axis == axis);
    let elements: usize = plan.output.iter().product();
    if mode == "nearest" {
        let line =
            |axis: usize, n: usize| table(axis).map_or_else(|| (0..n).collect(), |t| t.indices.clone());
        let (rows, columns): (Vec<usize>, Vec<usize>) = (line(2, image.height), line(3, image.width));
        let width = cx.graph.dtype(x).filter(|d| *d != DType::String && d.bits() >= 8)?.bits() / 8;
        let call = Call::Nearest { width, image, rows, columns };
        return Some(Lowered::call("resize", vec![x], y, elements as f64, call));
    }
    if mode != "linear" || cx.graph.dtype(x) != Some(DType::F32) {
        return None;
    }
    let line = |axis: usize, n: usize| -> Option<Line> {
        let Some(t) = table(axis) else {
            return Some(Line { low: (0..n).collect(), high: (0..n).collect(), weight: vec![0.0; n] });
        };
        match t.taps {
            1 => Some(Line { low: t.indices.clone(), high: t.indices.clone(), weight: vec![0.0; t.output] }),
            2 => Some(Line {
                low: t.indices.iter().step_by(2).copied().collect(),
                high: t.indices.iter().skip(1).step_by(2).copied().collect(),
                weight: t.weights.iter().skip(1).step_by(2).map(|&w| w as f32).collect(),
            }),
            _ => None,
        }
    };
    let (rows, columns) = (line(2, image.height)?, line(3, image.width)?);
    let call = Call::Linear { image, rows, columns };
    Some(Lowered::call("resize", vec![x], y, 6.0 * elements as f64, call))
}
