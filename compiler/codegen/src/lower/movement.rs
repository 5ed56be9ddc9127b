//! Views, and copies of elements of any whole-byte type.

use super::{Cx, Lowered, Work, elements};
use crate::plan::static_bytes;
use artefact::{Call, Move};
use ir::{DType, Node, Tensor, ValueId};
use kernels::transpose::{Axis, MAX_AXES};
use ops::movement::strides;

/// The value of which the node's output is a view: same bytes, another shape.
pub fn view(cx: &Cx, n: &Node) -> Option<(ValueId, ValueId)> {
    let views =
        matches!(n.op.name(), "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" | "Identity" | "BitCast");
    let (x, y) = (n.input(0)?, n.output(0)?);
    let same = static_bytes(cx.graph, x)? == static_bytes(cx.graph, y)?;
    if n.op.domain().is_empty() && same && (views || is_plain_transpose(cx, n)) { Some((y, x)) } else { None }
}

/// A transpose that only moves dims of size 1.
fn is_plain_transpose(cx: &Cx, n: &Node) -> bool {
    let perm = || {
        let shape = cx.shape(n.input(0)?)?;
        let p = ops::transpose::perm(&n.attrs, shape.len()).ok()?;
        Some(p.into_iter().filter(|&d| shape[d] != 1).is_sorted())
    };
    n.is("Transpose") && perm().unwrap_or(false)
}

pub fn lower(cx: &Cx, n: &Node) -> Option<Lowered> {
    if !n.op.domain().is_empty() {
        return None;
    }
    for v in n.outputs().iter().flatten() {
        static_bytes(cx.graph, *v)?;
    }
    let first = n.input(0)?;
    static_bytes(cx.graph, first)?;
    match n.op.name() {
        "Transpose" => transpose(cx, n),
        "Concat" => concat(cx, n),
        "Slice" => slice(cx, n),
        "Split" => split(cx, n),
        "Expand" => expand(cx, n),
        "Tile" => tile(cx, n),
        "DepthToSpace" | "SpaceToDepth" => blocks(cx, n),
        "Pad" => pad(cx, n),
        "Gather" => pick(cx, n),
        "GatherND" => tuples(cx, n),
        "GatherElements" => elements::pick(cx, n),
        "ScatterElements" => elements::place(cx, n),
        "ScatterND" => elements::slices(cx, n),
        "Trilu" => elements::triangle(cx, n),
        "OneHot" => elements::one_hot(cx, n),
        _ => None,
    }
}

pub(super) fn width(cx: &Cx, v: ValueId) -> Option<usize> {
    Some(cx.graph.dtype(v)?.bits() / 8).filter(|w| matches!(w, 1 | 2 | 4 | 8))
}

fn transpose(cx: &Cx, n: &Node) -> Option<Lowered> {
    let shape = cx.shape(n.input(0)?)?;
    let perm = ops::transpose::perm(&n.attrs, shape.len()).ok()?;
    permuted(cx, n, shape.to_vec(), perm)
}

/// Blocks of pixels to channels, or back: a transpose with the dims cut in two.
fn blocks(cx: &Cx, n: &Node) -> Option<Lowered> {
    let &[batch, channels, h, w] = &cx.shape(n.input(0)?)?[..] else { return None };
    let b = usize::try_from(n.attrs.int("blocksize").ok()??).ok().filter(|&b| b > 0)?;
    let (shape, perm) = match (n.op.name(), n.attrs.str_or("mode", "DCR").ok()?) {
        ("SpaceToDepth", "DCR") => ([batch, channels, h / b, b, w / b, b], [0, 3, 5, 1, 2, 4]),
        ("SpaceToDepth", "CRD") => ([batch, channels, h / b, b, w / b, b], [0, 1, 3, 5, 2, 4]),
        (_, "DCR") => ([batch, b, b, channels / (b * b), h, w], [0, 3, 4, 1, 5, 2]),
        (_, "CRD") => ([batch, channels / (b * b), b, b, h, w], [0, 1, 4, 2, 5, 3]),
        _ => return None,
    };
    let same = shape.iter().product::<usize>() == batch * channels * h * w;
    if same { permuted(cx, n, shape.to_vec(), perm.to_vec()) } else { None }
}

/// The input, read with `shape`, with its dims permuted.
fn permuted(cx: &Cx, n: &Node, shape: Vec<usize>, perm: Vec<usize>) -> Option<Lowered> {
    let (x, y) = (n.input(0)?, n.output(0)?);
    let width = width(cx, x)?;
    (shape.len() <= MAX_AXES)
        .then(|| Lowered::call("movement", vec![x], y, 0.0, Call::Permute { width, shape, perm }))
}

fn moves(
    cx: &Cx,
    reads: Vec<ValueId>,
    writes: Vec<ValueId>,
    list: Vec<Move>,
    fill: Option<Vec<u8>>,
) -> Option<Lowered> {
    let width = width(cx, *writes.first()?)?;
    if list.iter().any(|m| m.axes.len() > MAX_AXES) {
        return None;
    }
    let work = Work::Call(Box::new(Call::Moves { width, fill, outputs: writes.len(), list }));
    Some(Lowered { kind: "movement", work, reads, writes, flops: 0.0 })
}

/// Those along which there is more than one step.
fn axes(shape: &[usize], from: &[isize], to: &[usize]) -> Vec<Axis> {
    let all = shape.iter().zip(from).zip(to);
    all.map(|((&len, &from), &to)| Axis { len, from, to: to as isize }).filter(|a| a.len != 1).collect()
}

fn signed(s: &[usize]) -> Vec<isize> {
    s.iter().map(|&s| s as isize).collect()
}

fn concat(cx: &Cx, n: &Node) -> Option<Lowered> {
    let y = n.output(0)?;
    let out = cx.shape(y)?;
    let axis = ops::broadcast::axis(n.attrs.int("axis").ok()??, out.len()).ok()?;
    let to = strides(&out);
    let (mut at, mut list, mut reads) = (0, Vec::new(), Vec::new());
    for v in n.inputs() {
        let v = (*v)?;
        static_bytes(cx.graph, v)?;
        let shape = cx.shape(v)?;
        list.push(Move {
            input: reads.len(),
            output: 0,
            from: 0,
            to: at * to[axis],
            axes: axes(&shape, &signed(&strides(&shape)), &to),
        });
        at += shape[axis];
        reads.push(v);
    }
    moves(cx, reads, vec![y], list, None)
}

fn slice(cx: &Cx, n: &Node) -> Option<Lowered> {
    let (x, y) = (n.input(0)?, n.output(0)?);
    let (shape, out) = (cx.shape(x)?, cx.shape(y)?);
    let (starts, ends) = (cx.ints(n.input(1)?)?, cx.ints(n.input(2)?)?);
    let list = |i: usize, default: Vec<i64>| n.input(i).map_or(Some(default), |v| cx.ints(v));
    let which = list(3, (0..starts.len() as i64).collect())?;
    let steps = list(4, vec![1; starts.len()])?;
    let own = strides(&shape);
    let (mut from, mut walk) = (0usize, signed(&own));
    for i in 0..starts.len() {
        let a = ops::broadcast::axis(*which.get(i)?, shape.len()).ok()?;
        let (first, step, count) =
            ops::slice::clamp(shape[a], starts[i], *ends.get(i)?, *steps.get(i)?).ok()?;
        if out[a] != count {
            return None;
        }
        from += first * own[a];
        walk[a] = isize::try_from(step).ok()?.checked_mul(own[a] as isize)?;
    }
    let m = Move { input: 0, output: 0, from, to: 0, axes: axes(&out, &walk, &strides(&out)) };
    moves(cx, vec![x], vec![y], vec![m], None)
}

fn split(cx: &Cx, n: &Node) -> Option<Lowered> {
    let x = n.input(0)?;
    let shape = cx.shape(x)?;
    let axis = ops::broadcast::axis(n.attrs.int_or("axis", 0).ok()?, shape.len()).ok()?;
    let own = strides(&shape);
    let (mut at, mut list, mut writes) = (0, Vec::new(), Vec::new());
    for o in n.outputs() {
        let o = (*o)?;
        let part = cx.shape(o)?;
        list.push(Move {
            input: 0,
            output: writes.len(),
            from: at * own[axis],
            to: 0,
            axes: axes(&part, &signed(&own), &strides(&part)),
        });
        at += part[axis];
        writes.push(o);
    }
    if at != shape[axis] || writes.len() > 60 {
        return None;
    }
    moves(cx, vec![x], writes, list, None)
}

fn expand(cx: &Cx, n: &Node) -> Option<Lowered> {
    let (x, y) = (n.input(0)?, n.output(0)?);
    let (shape, out) = (cx.shape(x)?, cx.shape(y)?);
    let from = signed(&ops::broadcast::broadcast_strides(&shape, &out));
    let m = Move { input: 0, output: 0, from: 0, to: 0, axes: axes(&out, &from, &strides(&out)) };
    moves(cx, vec![x], vec![y], vec![m], None)
}

fn pad(cx: &Cx, n: &Node) -> Option<Lowered> {
    let (x, y) = (n.input(0)?, n.output(0)?);
    let (shape, out) = (cx.shape(x)?, cx.shape(y)?);
    let which = match n.input(3) {
        Some(v) => Some(cx.ints(v)?),
        None => None,
    };
    let pads = ops::pad::pads(shape.len(), &cx.ints(n.input(1)?)?, which).ok()?;
    if pads.iter().any(|p| p.0 < 0 || p.1 < 0) {
        return None;
    }
    let mode = n.attrs.str_or("mode", "constant").ok()?;
    if mode != "constant" {
        return pad_from_itself(cx, (x, y), mode, &pads);
    }
    let fill = match n.input(2) {
        Some(v) => cx.graph.constant(v).filter(|t| t.len() == 1)?.bytes().to_vec(),
        None => Tensor::zeros(cx.graph.dtype(x)?, &[1]).ok()?.bytes().to_vec(),
    };
    let to = strides(&out);
    let at: usize = pads.iter().zip(&to).map(|(p, s)| p.0 as usize * s).sum();
    let m = Move { input: 0, output: 0, from: 0, to: at, axes: axes(&shape, &signed(&strides(&shape)), &to) };
    moves(cx, vec![x], vec![y], vec![m], Some(fill))
}

/// A dim of a padded tensor in pieces: of this length, from an index with a step, to an index.
type Piece = (usize, usize, isize, usize);

/// The padding repeats what is there: each dim has up to three pieces, and each choice of one of every dim is a copy.
fn pad_from_itself(cx: &Cx, (x, y): (ValueId, ValueId), mode: &str, pads: &[(i64, i64)]) -> Option<Lowered> {
    let (shape, out) = (cx.shape(x)?, cx.shape(y)?);
    let (own, to) = (signed(&strides(&shape)), strides(&out));
    let mut choices: Vec<Vec<Piece>> = vec![Vec::new()];
    for (&n, &(before, after)) in shape.iter().zip(pads) {
        let (before, after) = (usize::try_from(before).ok()?, usize::try_from(after).ok()?);
        let mut pieces: Vec<Piece> = vec![(n, 0, 1, before)];
        let (first, last) = match mode {
            "edge" if n > 0 => ((0, 0), (n - 1, 0)),
            "reflect" if before.max(after) < n => ((before, -1), (n.saturating_sub(2), -1)),
            "wrap" if before.max(after) <= n => ((n - before, 1), (0, 1)),
            _ => return None,
        };
        pieces.push((before, first.0, first.1, 0));
        pieces.push((after, last.0, last.1, before + n));
        pieces.retain(|p| p.0 > 0);
        choices = choices
            .iter()
            .flat_map(|c| pieces.iter().map(|p| c.iter().copied().chain([*p]).collect()))
            .collect();
        if choices.len() > 27 {
            return None;
        }
    }
    let copy = |pieces: &Vec<Piece>| {
        let walk = pieces.iter().zip(&own).zip(&to);
        Move {
            input: 0,
            output: 0,
            from: pieces.iter().zip(&own).map(|(p, &s)| p.1 * s as usize).sum(),
            to: pieces.iter().zip(&to).map(|(p, &s)| p.3 * s).sum(),
            axes: walk
                .map(|((p, &from), &to)| Axis { len: p.0, from: from * p.2, to: to as isize })
                .collect(),
        }
    };
    moves(cx, vec![x], vec![y], choices.iter().map(copy).collect(), None)
}

fn tile(cx: &Cx, n: &Node) -> Option<Lowered> {
    let (x, y) = (n.input(0)?, n.output(0)?);
    let (shape, out) = (cx.shape(x)?, cx.shape(y)?);
    let (own, to) = (strides(&shape), strides(&out));
    let mut axes = Vec::new();
    for d in 0..shape.len() {
        let repeats = out[d].checked_div(shape[d])?;
        axes.push(Axis { len: repeats, from: 0, to: (shape[d] * to[d]) as isize });
        axes.push(Axis { len: shape[d], from: own[d] as isize, to: to[d] as isize });
    }
    axes.retain(|a| a.len != 1);
    let m = Move { input: 0, output: 0, from: 0, to: 0, axes };
    moves(cx, vec![x], vec![y], vec![m], None)
}

/// Rows of at least this many bytes are copied as bytes: a table in a file then stays there, whatever its alignment.
const LONG_ROW: usize = 64;

fn pick(cx: &Cx, n: &Node) -> Option<Lowered> {
    let (x, i, y) = (n.input(0)?, n.input(1)?, n.output(0)?);
    let (shape, w) = (cx.shape(x)?, width(cx, x)?);
    let axis = ops::broadcast::axis(n.attrs.int_or("axis", 0).ok()?, shape.len()).ok()?;
    let outer: usize = shape[..axis].iter().product();
    let run: usize = shape[axis + 1..].iter().product();
    let rows = shape[axis];
    if run == 0 {
        return None;
    }
    let wide = match cx.graph.dtype(i)? {
        DType::I64 => true,
        DType::I32 => false,
        _ => return None,
    };
    cx.shape(i)?;
    let long = cx.graph.constant(x).is_some() && run * w >= LONG_ROW;
    let (width, run) = if long { (1, run * w) } else { (w, run) };
    let call = Call::Gather { width, wide, outer, rows, run };
    Some(Lowered::call("movement", vec![x, i], y, 0.0, call))
}

fn tuples(cx: &Cx, n: &Node) -> Option<Lowered> {
    let (x, i, y) = (n.input(0)?, n.input(1)?, n.output(0)?);
    let (shape, width, tuples) = (cx.shape(x)?, width(cx, x)?, cx.shape(i)?);
    let k = *tuples.last().filter(|&&k| k > 0)?;
    let b = usize::try_from(n.attrs.int_or("batch_dims", 0).ok()?).ok()?;
    let dims = shape.get(b..b.checked_add(k)?)?.to_vec();
    let fits = cx.graph.dtype(i) == Some(DType::I64) && tuples.len() > b && tuples[..b] == shape[..b];
    let (batch, run) = (shape[..b].iter().product(), shape[b + k..].iter().product());
    if !fits || run == 0 || batch == 0 {
        return None;
    }
    Some(Lowered::call("movement", vec![x, i], y, 0.0, Call::Tuples { width, batch, dims, run }))
}
