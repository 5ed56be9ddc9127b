//! Products: matrix products, convolutions and what decodes their weights.

use super::{Cx, axis};
use ir::{Attrs, Error, Result, Tensor, ValueId};
use ops::window::{Window, WindowAttrs, Windows};

pub fn matmul(cx: &mut Cx) -> Result<Vec<Option<ValueId>>> {
    let (g, a, b) = (cx.g()?, cx.x(0)?, cx.x(1)?);
    let (sa, sb) = (cx.shape(0)?, cx.shape(1)?);
    // Vectors are matrices of one row or column.
    let wide_a = if sa.len() == 1 { vec![1, sa[0]] } else { sa.to_vec() };
    let wide_b = if sb.len() == 1 { vec![sb[0], 1] } else { sb.to_vec() };
    let (ra, rb) = (wide_a.len(), wide_b.len());
    let (m, n) = (wide_a[ra - 2], wide_b[rb - 1]);
    let lead = ops::broadcast::broadcast_shapes(&[&wide_a[..ra - 2], &wide_b[..rb - 2]])?;
    let full = |p: usize, q: usize| -> Vec<usize> { lead.iter().copied().chain([p, q]).collect() };
    let (a, b) = (cx.b.reshape(a, &wide_a)?, cx.b.reshape(b, &wide_b)?);
    let g = cx.b.reshape(g, &full(m, n))?;
    let mut grads = vec![None; 2];
    if cx.need(0) {
        let t = cx.b.flipped(b, rb)?;
        let d = cx.b.op("MatMul", &[g, t])?;
        let d = cx.b.sum_to(d, &full(m, wide_a[ra - 1]), &wide_a)?;
        grads[0] = Some(cx.b.reshape(d, &sa)?);
    }
    if cx.need(1) {
        let t = cx.b.flipped(a, ra)?;
        let d = cx.b.op("MatMul", &[t, g])?;
        let d = cx.b.sum_to(d, &full(wide_b[rb - 2], n), &wide_b)?;
        grads[1] = Some(cx.b.reshape(d, &sb)?);
    }
    Ok(grads)
}

pub fn gemm(cx: &mut Cx) -> Result<Vec<Option<ValueId>>> {
    let (g, a, b) = (cx.g()?, cx.x(0)?, cx.x(1)?);
    let flag = |n: &str| cx.node.attrs.int_or(n, 0).map(|v| v != 0);
    let (ta, tb) = (flag("transA")?, flag("transB")?);
    let (alpha, beta) = (cx.node.attrs.float_or("alpha", 1.0)?, cx.node.attrs.float_or("beta", 1.0)?);
    let product = |cx: &mut Cx, x, tx: bool, y, ty: bool| {
        let attrs =
            Attrs::new().with("alpha", alpha).with("transA", i64::from(tx)).with("transB", i64::from(ty));
        cx.b.with("Gemm", attrs, &[x, y])
    };
    let mut grads = vec![None; cx.needs.len()];
    if cx.need(0) {
        grads[0] = Some(if ta { product(cx, b, tb, g, true)? } else { product(cx, g, false, b, !tb)? });
    }
    if cx.need(1) {
        grads[1] = Some(if tb { product(cx, g, true, a, ta)? } else { product(cx, a, !ta, g, false)? });
    }
    if cx.need(2) {
        let factor = {
            let x = cx.x(0)?;
            cx.b.number(x, f64::from(beta))?
        };
        let d = if beta == 1.0 { g } else { cx.b.op("Mul", &[g, factor])? };
        let (from, to) = (cx.output_shape(0)?, cx.shape(2)?);
        grads[2] = Some(cx.b.sum_to(d, &from, &to)?);
    }
    Ok(grads)
}

/// Attributes of the convolution with these windows.
fn conv_attrs(axes: &[Window], groups: usize) -> Attrs {
    let list = |f: &dyn Fn(&Window) -> usize| axes.iter().map(|w| f(w) as i64).collect::<Vec<i64>>();
    let pads = [list(&|w| w.pad_begin), list(&|w| w.pad_end)].concat();
    Attrs::new()
        .with("strides", list(&|w| w.stride))
        .with("dilations", list(&|w| w.dilation))
        .with("pads", pads)
        .with("group", groups as i64)
}

/// The transpose of a convolution over these windows: `g` (batch, out, output…), `w` (out, in/groups, kernel…) give
/// (batch, in, input…).
pub fn spread(cx: &mut Cx, g: ValueId, w: ValueId, axes: &[Window], groups: usize) -> Result<ValueId> {
    let (mut fitted, mut extra) = (axes.to_vec(), Vec::new());
    for a in &mut fitted {
        // What the windows reach, against what there is: too much is cut off, too little is filled up.
        let reach = a.stride * a.output.saturating_sub(1) + a.extent();
        let wanted = a.input + a.pad_begin;
        a.pad_end = reach.saturating_sub(wanted);
        extra.push(wanted.saturating_sub(reach) as i64);
    }
    cx.b.with("ConvTranspose", conv_attrs(&fitted, groups).with("output_padding", extra), &[g, w])
}

/// The gradient for the weights (out, in/groups, kernel…) of a convolution of `x` (batch, in, input…) whose result has the
/// gradient `g` (batch, out, output…): a convolution in which samples are channels and strides are dilations.
fn weights(
    cx: &mut Cx,
    x: ValueId,
    g: ValueId,
    [batch, inputs, outputs]: [usize; 3],
    axes: &[Window],
    groups: usize,
) -> Result<ValueId> {
    let per = inputs / groups;
    let kernel: Vec<usize> = axes.iter().map(|a| a.kernel).collect();
    let pointwise = axes.iter().all(|a| (a.kernel, a.stride, a.pad_begin, a.pad_end) == (1, 1, 0, 0));
    if pointwise && groups == 1 {
        let plane: usize = axes.iter().map(|a| a.input).product();
        let x = cx.b.reshape(x, &[batch, inputs, plane])?;
        let g = cx.b.reshape(g, &[batch, outputs, plane])?;
        let t = cx.b.flipped(x, 3)?;
        let d = cx.b.op("MatMul", &[g, t])?;
        let d = cx.b.sum(d, &[0], false)?;
        let shape: Vec<usize> = [outputs, inputs].into_iter().chain(kernel).collect();
        return cx.b.reshape(d, &shape);
    }
    let with = |lead: &[usize], f: &dyn Fn(&Window) -> usize| -> Vec<usize> {
        lead.iter().copied().chain(axes.iter().map(f)).collect()
    };
    let rank = axes.len();
    let perm = |lead: &[usize]| -> Vec<usize> {
        lead.iter().copied().chain(lead.len()..lead.len() + rank).collect()
    };
    // Group after group, all samples of a channel are the channels of one sum.
    let x = cx.b.reshape(x, &with(&[batch, groups, per], &|a| a.input))?;
    let x = cx.b.transpose(x, &perm(&[2, 1, 0]))?;
    let x = cx.b.reshape(x, &with(&[per, groups * batch], &|a| a.input))?;
    let g = cx.b.transpose(g, &perm(&[1, 0]))?;
    let swapped: Vec<Window> = axes
        .iter()
        .map(|a| {
            let reach = a.output.saturating_sub(1) * a.stride + 1 + (a.kernel - 1) * a.dilation;
            let pad_end = reach.saturating_sub(a.input + a.pad_begin);
            Window { stride: a.dilation, dilation: a.stride, pad_end, ..*a }
        })
        .collect();
    let mut d = cx.b.with("Conv", conv_attrs(&swapped, groups), &[x, g])?;
    for (i, &k) in kernel.iter().enumerate() {
        d = cx.b.slice(d, i + 2, 0, k)?;
    }
    cx.b.transpose(d, &perm(&[1, 0]))
}

/// Sums over samples and positions: the gradient for a bias.
fn per_channel(cx: &mut Cx, g: ValueId, rank: usize) -> Result<ValueId> {
    let axes: Vec<usize> = (0..rank).filter(|&a| a != 1).collect();
    cx.b.sum(g, &axes, false)
}

pub fn conv(cx: &mut Cx) -> Result<Vec<Option<ValueId>>> {
    let (g, x, w) = (cx.g()?, cx.x(0)?, cx.x(1)?);
    let (sx, sw) = (cx.shape(0)?, cx.shape(1)?);
    let geometry = ops::conv::geometry(&cx.node.attrs, &sx, &sw)?;
    let axes: Windows = geometry.axes.iter().copied().collect();
    let groups = geometry.groups;
    let mut grads = vec![None; cx.needs.len()];
    if cx.need(0) {
        grads[0] = Some(spread(cx, g, w, &axes, groups)?);
    }
    if cx.need(1) {
        grads[1] = Some(weights(cx, x, g, [sx[0], sx[1], sw[0]], &axes, groups)?);
    }
    if cx.need(2) {
        grads[2] = Some(per_channel(cx, g, sx.len())?);
    }
    Ok(grads)
}

pub fn conv_transpose(cx: &mut Cx) -> Result<Vec<Option<ValueId>>> {
    let (g, x, w) = (cx.g()?, cx.x(0)?, cx.x(1)?);
    let (sx, sw) = (cx.shape(0)?, cx.shape(1)?);
    let geometry = ops::conv_transpose::geometry(&cx.node.attrs, &sx, &sw)?;
    // Windows are those of the convolution it transposes: from its output to its input.
    let axes: Windows = geometry.axes.iter().copied().collect();
    let (groups, outputs) = (geometry.groups, geometry.out_channels);
    let mut grads = vec![None; cx.needs.len()];
    if cx.need(0) {
        let mut d = cx.b.with("Conv", conv_attrs(&axes, groups), &[g, w])?;
        for (i, a) in axes.iter().enumerate() {
            d = cx.b.slice(d, i + 2, 0, a.output)?;
        }
        grads[0] = Some(d);
    }
    if cx.need(1) {
        grads[1] = Some(weights(cx, g, x, [sx[0], outputs, sx[1]], &axes, groups)?);
    }
    if cx.need(2) {
        grads[2] = Some(per_channel(cx, g, sx.len())?);
    }
    Ok(grads)
}

/// A sum of products of distinct letters: each operand's gradient is the product of the others with the result's.
pub fn einsum(cx: &mut Cx) -> Result<Vec<Option<ValueId>>> {
    let g = cx.g()?;
    let text = cx.node.attrs.str_or("equation", "")?.replace(' ', "");
    let plain = |t: &str| {
        let distinct = t.chars().collect::<std::collections::BTreeSet<_>>().len() == t.chars().count();
        distinct && !t.contains('.')
    };
    let (left, right) = text
        .split_once("->")
        .ok_or_else(|| Error::unsupported("no derivative is known of a sum without a stated result"))?;
    let terms: Vec<&str> = left.split(',').collect();
    if !terms.iter().all(|t| plain(t)) || !plain(right) || terms.len() != cx.needs.len() {
        return Err(Error::unsupported("no derivative is known of diagonals and ellipses"));
    }
    let mut grads = vec![None; terms.len()];
    for i in 0..terms.len() {
        if !cx.need(i) {
            continue;
        }
        let others: Vec<usize> = (0..terms.len()).filter(|&j| j != i).collect();
        let seen = |c: char| right.contains(c) || others.iter().any(|&j| terms[j].contains(c));
        if !terms[i].chars().all(seen) {
            return Err(Error::unsupported("no derivative is known of a sum over one operand's own axis"));
        }
        let parts: Vec<&str> = std::iter::once(right).chain(others.iter().map(|&j| terms[j])).collect();
        let equation = format!("{}->{}", parts.join(","), terms[i]);
        let mut inputs = vec![g];
        for &j in &others {
            inputs.push(cx.x(j)?);
        }
        grads[i] = Some(cx.b.with("Einsum", Attrs::new().with("equation", equation.as_str()), &inputs)?);
    }
    Ok(grads)
}

/// In the scale; codes are integers.
pub fn dequantize(cx: &mut Cx) -> Result<Vec<Option<ValueId>>> {
    let g = cx.g()?;
    let mut grads = vec![None; cx.needs.len()];
    if cx.needs.iter().enumerate().any(|(i, &n)| n && i != 1) {
        return Err(Error::unsupported("only the scale of a dequantization has a derivative"));
    }
    let (shape, scale) = (cx.output_shape(0)?, cx.shape(1)?);
    let ones = Tensor::from_f64s(cx.b.dtype(cx.x(1)?)?, &scale, vec![1.0; scale.iter().product()])?;
    let ones = cx.b.constant(ones);
    let inputs: Vec<ValueId> = [cx.x(0)?, ones].into_iter().chain(cx.node.input(2)).collect();
    let steps = cx.b.with("DequantizeLinear", cx.node.attrs.clone(), &inputs)?;
    let d = cx.b.op("Mul", &[g, steps])?;
    let block = cx.node.attrs.int_or("block_size", 0)?;
    let rank = shape.len();
    let d = if scale.len() == rank && block > 0 {
        let at = axis(cx.node.attrs.int_or("axis", 1)?, rank)?;
        let block = usize::try_from(block).unwrap_or(1);
        if shape[at] != scale[at] * block {
            return Err(Error::unsupported("no derivative is known where the last block is shorter"));
        }
        let mut split = shape.to_vec();
        split.splice(at..=at, [scale[at], block]);
        let d = cx.b.reshape(d, &split)?;
        cx.b.sum(d, &[at + 1], false)?
    } else if scale.len() == 1 && rank > 0 && !(scale[0] == 1 && shape.iter().product::<usize>() == 1) {
        let at = axis(cx.node.attrs.int_or("axis", 1)?, rank)?;
        let rest: Vec<usize> = (0..rank).filter(|&a| a != at || scale[0] != shape[at]).collect();
        cx.b.sum(d, &rest, false)?
    } else {
        let all: Vec<usize> = (0..rank).collect();
        cx.b.sum(d, &all, false)?
    };
    grads[1] = Some(cx.b.reshape(d, &scale)?);
    Ok(grads)
}

/// Windows of a pooling node.
pub fn windows(cx: &Cx, shape: &[usize]) -> Result<Windows> {
    WindowAttrs::parse(&cx.node.attrs, shape.len().saturating_sub(2), None)?.windows(&shape[2..])
}
