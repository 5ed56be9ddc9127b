//! Softmax and normalisations.

use super::{Cx, Lowered};
use artefact::Call;
use ir::Node;
use kernels::norm::Norm;
use kernels::softmax::Softmax;

pub fn lower(cx: &Cx, n: &Node) -> Option<Lowered> {
    if !n.op.domain().is_empty() || n.outputs().iter().skip(1).any(Option::is_some) {
        return None;
    }
    match n.op.name() {
        "Softmax" => softmax(cx, n, Softmax::Plain),
        "LogSoftmax" => softmax(cx, n, Softmax::Log),
        "LayerNormalization" => rows(cx, n, |epsilon| Norm::Layer { epsilon }),
        "RMSNormalization" => rows(cx, n, |epsilon| Norm::Rms { epsilon }),
        "LpNormalization" => lines(cx, n),
        "InstanceNormalization" | "GroupNormalization" => groups(cx, n),
        _ => None,
    }
}

fn softmax(cx: &Cx, n: &Node, kind: Softmax) -> Option<Lowered> {
    let (x, y) = (n.input(0)?, n.output(0)?);
    let shape = cx.f32_shape(x)?;
    let axis = ops::broadcast::axis(n.attrs.int_or("axis", -1).ok()?, shape.len()).ok()?;
    let outer: usize = shape[..axis].iter().product();
    let inner: usize = shape[axis + 1..].iter().product();
    let size = shape[axis];
    let flops = 12.0 * (outer * inner * size) as f64;
    Some(Lowered::call("softmax", vec![x], y, flops, Call::Softmax { kind, outer, size, inner }))
}

fn rows(cx: &Cx, n: &Node, norm: fn(f32) -> Norm) -> Option<Lowered> {
    let (x, y) = (n.input(0)?, n.output(0)?);
    let shape = cx.f32_shape(x)?;
    let axis = ops::broadcast::axis(n.attrs.int_or("axis", -1).ok()?, shape.len()).ok()?;
    let size: usize = shape[axis..].iter().product();
    let vector =
        |i: usize| cx.optional_floats(n.input(i)).filter(|v| v.as_ref().is_none_or(|v| v.len() == size));
    let (gamma, beta) = (vector(1)?, vector(2)?);
    let norm = norm(n.attrs.float_or("epsilon", 1e-5).ok()?);
    let flops = 8.0 * shape.iter().product::<usize>() as f64;
    Some(Lowered::call("normalisation", vec![x], y, flops, Call::Normalize { norm, size, gamma, beta }))
}

/// Division by a norm along the last axis.
fn lines(cx: &Cx, n: &Node) -> Option<Lowered> {
    let (x, y) = (n.input(0)?, n.output(0)?);
    let shape = cx.f32_shape(x)?;
    let axis = ops::broadcast::axis(n.attrs.int_or("axis", -1).ok()?, shape.len()).ok()?;
    let norm = match n.attrs.int_or("p", 2).ok()? {
        1 => Norm::L1,
        2 => Norm::L2,
        _ => return None,
    };
    let size = shape[axis];
    if shape[axis + 1..].iter().any(|&d| d != 1) || shape.contains(&0) {
        return None;
    }
    let flops = 4.0 * shape.iter().product::<usize>() as f64;
    let call = Call::Normalize { norm, size, gamma: None, beta: None };
    Some(Lowered::call("normalisation", vec![x], y, flops, call))
}

fn groups(cx: &Cx, n: &Node) -> Option<Lowered> {
    let (x, y) = (n.input(0)?, n.output(0)?);
    let shape = cx.f32_shape(x)?;
    let (&batch, &channels) = (shape.first()?, shape.get(1)?);
    let inner: usize = shape[2..].iter().product();
    let groups = if n.op.name() == "InstanceNormalization" {
        channels
    } else {
        usize::try_from(n.attrs.int("num_groups").ok()??).ok()?
    };
    let (gamma, beta) = (cx.floats(n.input(1)?)?, cx.floats(n.input(2)?)?);
    let epsilon = n.attrs.float_or("epsilon", 1e-5).ok()?;
    if groups == 0 || gamma.len() != channels || beta.len() != channels || channels % groups != 0 {
        return None;
    }
    let flops = 8.0 * shape.iter().product::<usize>() as f64;
    let call = Call::NormalizeGroups { batch, channels, inner, groups, gamma, beta, epsilon };
    Some(Lowered::call("normalisation", vec![x], y, flops, call))
}
