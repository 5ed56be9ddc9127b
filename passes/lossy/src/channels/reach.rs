//! Where a channel axis goes through operators that only move or reduce other axes.

use ir::{Dim, Graph, Node, Tensor};

/// An axis whose index is `channel · inner + rest`, with `rest < inner`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Carry {
    pub axis: usize,
    pub inner: usize,
}

/// A product of dims: the known part and the names of the others.
type Product = (usize, Vec<String>);

fn product(dims: &[Dim]) -> Option<Product> {
    let (mut known, mut names) = (1usize, Vec::new());
    for d in dims {
        match d {
            Dim::Known(n) => known = known.checked_mul(*n)?,
            Dim::Symbol(s) => names.push(s.to_string()),
            Dim::Unknown => return None,
        }
    }
    names.sort();
    Some((known, names))
}

/// The axis of `to` that carries the same channels as `at` of `from`, both being shapes of one row-major sequence: as many
/// elements follow one step of the channel in both.
pub fn reshaped(from: &[Dim], to: &[Dim], at: Carry, count: usize) -> Option<Carry> {
    let (known, names) = product(from.get(at.axis + 1..)?)?;
    let step = (known.checked_mul(at.inner)?, names);
    (0..to.len()).find_map(|axis| {
        let size = to[axis].known()?;
        let inner = size.checked_div(count)?;
        let (known, names) = product(&to[axis + 1..])?;
        let same = size == inner * count && inner > 0 && (known.checked_mul(inner)?, names) == step;
        same.then_some(Carry { axis, inner })
    })
}

/// Axes listed by an attribute or a constant input, counted from the front.
pub fn axes(graph: &Graph, node: &Node, port: usize, rank: usize) -> Option<Vec<usize>> {
    let list = match node.attrs.ints("axes").ok()? {
        Some(a) => a.to_vec(),
        None => graph.constant(node.input(port)?)?.to_i64s().ok()?,
    };
    list.into_iter().map(|a| front(a, rank)).collect()
}

/// An axis counted from the front; negative ones count from the end.
pub fn front(axis: i64, rank: usize) -> Option<usize> {
    let rank = i64::try_from(rank).ok()?;
    usize::try_from(if axis < 0 { axis + rank } else { axis }).ok().filter(|&a| (a as i64) < rank)
}

/// Where axis `i` of the input is in the output of a reduction, `None` when it is reduced.
pub fn reduced(graph: &Graph, node: &Node, rank: usize) -> Option<Vec<Option<usize>>> {
    let gone = axes(graph, node, 1, rank)?;
    let keep = node.attrs.int_or("keepdims", 1).ok()? != 0;
    let mut next = 0;
    let place = |i: usize| {
        let here = (!gone.contains(&i)).then_some(next);
        next += usize::from(keep || !gone.contains(&i));
        here
    };
    (!gone.is_empty()).then(|| (0..rank).map(place).collect())
}

/// Where axis `i` of the input is in the output of a transposition.
pub fn transposed(node: &Node, rank: usize) -> Option<Vec<Option<usize>>> {
    let order: Vec<usize> = match node.attrs.ints("perm").ok()? {
        Some(p) => p.iter().map(|&a| front(a, rank)).collect::<Option<_>>()?,
        None => (0..rank).rev().collect(),
    };
    (order.len() == rank).then(|| (0..rank).map(|i| order.iter().position(|&o| o == i)).collect())
}

/// True when a Resize leaves `axis` alone whatever its size is.
pub fn resize_spares(graph: &Graph, node: &Node, axis: usize, rank: usize) -> bool {
    if let Ok(Some(_)) = node.attrs.ints("axes") {
        return axes(graph, node, usize::MAX, rank).is_some_and(|a| !a.contains(&axis));
    }
    let scales = node.input(2).and_then(|v| graph.constant(v)).and_then(|t| t.to_f32s().ok());
    node.input(3).is_none() && scales.is_some_and(|s| s.get(axis) == Some(&1.0))
}

/// True when a Pad adds nothing along `axis`.
pub fn pad_spares(graph: &Graph, node: &Node, axis: usize, rank: usize) -> bool {
    let ints =
        |port| node.input(port).and_then(|v| graph.constant(v)).and_then(|t: &Tensor| t.to_i64s().ok());
    if node.input(3).is_some() {
        let listed = ints(3).and_then(|a| a.into_iter().map(|a| front(a, rank)).collect::<Option<Vec<_>>>());
        return listed.is_some_and(|a| !a.contains(&axis));
    }
    ints(1).is_some_and(|p| p.len() == 2 * rank && p[axis] == 0 && p[rank + axis] == 0)
}

/// True when a Slice takes all of `axis`.
pub fn slice_spares(graph: &Graph, node: &Node, axis: usize, rank: usize) -> bool {
    let listed = node.input(3).and_then(|v| graph.constant(v)).and_then(|t| t.to_i64s().ok());
    let listed = listed.and_then(|a| a.into_iter().map(|a| front(a, rank)).collect::<Option<Vec<_>>>());
    listed.is_some_and(|a| !a.contains(&axis))
}
