//! Single elements by index, triangles and one-hot rows.

use super::movement::width;
use super::{Cx, Lowered};
use artefact::Call;
use ir::{DType, Node, ValueId};
use kernels::elements::{Along, Triangle};

/// Whether indices are int64, or else int32.
fn wide(cx: &Cx, v: ValueId) -> Option<bool> {
    match cx.graph.dtype(v)? {
        DType::I64 => Some(true),
        DType::I32 => Some(false),
        _ => None,
    }
}

/// How the indices of a node walk along its data; empty indices and data are left to the reference.
fn along(cx: &Cx, n: &Node) -> Option<Along> {
    let (data, indices) = (cx.shape(n.input(0)?)?, cx.shape(n.input(1)?)?);
    let axis = ops::broadcast::axis(n.attrs.int_or("axis", 0).ok()?, data.len()).ok()?;
    let fits = data.len() == indices.len() && !data.contains(&0) && !indices.contains(&0);
    (fits && (0..data.len()).all(|d| d == axis || indices[d] <= data[d])).then(|| Along {
        axis,
        data: data.to_vec(),
        indices: indices.to_vec(),
    })
}

pub fn pick(cx: &Cx, n: &Node) -> Option<Lowered> {
    let (x, i, y) = (n.input(0)?, n.input(1)?, n.output(0)?);
    let call = Call::Elements { width: width(cx, x)?, wide: wide(cx, i)?, along: along(cx, n)? };
    Some(Lowered::call("movement", vec![x, i], y, 0.0, call))
}

/// Updates of the data's type that take the place of what is there.
fn replaces(cx: &Cx, n: &Node) -> Option<()> {
    let plain = n.attrs.str_or("reduction", "none").ok()? == "none";
    (plain && cx.graph.dtype(n.input(2)?) == cx.graph.dtype(n.input(0)?)).then_some(())
}

pub fn place(cx: &Cx, n: &Node) -> Option<Lowered> {
    let (x, i, u, y) = (n.input(0)?, n.input(1)?, n.input(2)?, n.output(0)?);
    replaces(cx, n)?;
    let along = along(cx, n)?;
    if cx.shape(u)?[..] != along.indices[..] {
        return None;
    }
    let call = Call::ScatterElements { width: width(cx, x)?, wide: wide(cx, i)?, along };
    Some(Lowered::call("movement", vec![x, i, u], y, 0.0, call))
}

pub fn slices(cx: &Cx, n: &Node) -> Option<Lowered> {
    let (x, i, u, y) = (n.input(0)?, n.input(1)?, n.input(2)?, n.output(0)?);
    replaces(cx, n)?;
    let (shape, tuples, updates) = (cx.shape(x)?, cx.shape(i)?, cx.shape(u)?);
    let &k = tuples.last().filter(|&&k| k > 0 && k <= shape.len())?;
    let run = shape[k..].iter().product();
    let count: usize = tuples[..tuples.len() - 1].iter().product();
    let fits = updates.iter().product::<usize>() == count * run && !shape.contains(&0);
    if !fits || cx.graph.dtype(i) != Some(DType::I64) {
        return None;
    }
    let call = Call::ScatterTuples { width: width(cx, x)?, dims: shape[..k].to_vec(), run };
    Some(Lowered::call("movement", vec![x, i, u], y, 0.0, call))
}

pub fn triangle(cx: &Cx, n: &Node) -> Option<Lowered> {
    let (x, y) = (n.input(0)?, n.output(0)?);
    let &[.., height, columns] = &cx.shape(x)?[..] else { return None };
    let diagonal = match n.input(1) {
        None => 0,
        Some(k) => cx.ints(k)?.first().copied().unwrap_or(0),
    };
    let upper = n.attrs.int_or("upper", 1).ok()? != 0;
    let of = Triangle { height, width: columns, diagonal, upper };
    Some(Lowered::call("movement", vec![x], y, 0.0, Call::Triangle { width: width(cx, x)?, of }))
}

pub fn one_hot(cx: &Cx, n: &Node) -> Option<Lowered> {
    let (i, values, y) = (n.input(0)?, n.input(2)?, n.output(0)?);
    let (shape, out) = (cx.shape(i)?, cx.shape(y)?);
    let axis = ops::broadcast::axis(n.attrs.int_or("axis", -1).ok()?, shape.len() + 1).ok()?;
    let wide = wide(cx, i)?;
    // The depth is a constant, or the shape of the result would not be known.
    let depth = *out.get(axis)?;
    let inner = shape[axis..].iter().product();
    if cx.shape(values)?[..] != [2] || shape.contains(&0) || cx.graph.constant(n.input(1)?).is_none() {
        return None;
    }
    let call = Call::OneHot { width: width(cx, y)?, wide, depth, inner };
    Some(Lowered::call("movement", vec![i, values], y, 0.0, call))
}

#[cfg(test)]
mod tests;
