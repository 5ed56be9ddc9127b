//! Transposes and reshapes: composed, cancelled, and moved toward the outputs where they meet their inverses.

use super::fuse::along;
use crate::rule::{Cx, Rule};
use egg::Id;
use ir::Attrs;

macro_rules! sink_unary {
    ($($op:literal),*) => { [$(Rule::build(
        concat!("sink-transpose-below-", $op),
        concat!("(", $op, " ?a (Transpose ?t ?x))"),
        |cx| { let x = cx.id("?x")?; let a = cx.attrs("?a")?; let y = cx.op($op, a, &[x])?; transpose(cx, y, &perm(cx, "?t", x)?) },
    )),*] };
}

macro_rules! sink_binary {
    ($($op:literal),*) => { [$([
        Rule::build(concat!("sink-transposes-below-", $op), concat!("(", $op, " ?a (Transpose ?t ?x) (Transpose ?u ?y))"),
            |cx| sink_both(cx, $op)),
        Rule::build(concat!("sink-transpose-below-constant-", $op), concat!("(", $op, " ?a (Transpose ?t ?x) ?c)"),
            |cx| sink_constant(cx, $op)),
        Rule::build(concat!("sink-reshapes-below-", $op), concat!("(", $op, " ?a (Reshape ?r ?x ?s) (Reshape ?q ?y ?t))"),
            |cx| sink_reshapes(cx, $op)),
    ]),*] };
}

/// Transposes below element-wise operators of one input.
pub static UNARY: &[Rule] = &sink_unary!(
    "Relu",
    "Sigmoid",
    "Tanh",
    "Erf",
    "Exp",
    "Log",
    "Sqrt",
    "Neg",
    "Abs",
    "HardSwish",
    "HardSigmoid",
    "LeakyRelu",
    "Elu",
    "Gelu",
    "Softplus",
    "Cast"
);

macro_rules! sink_blocks {
    ($($op:literal),*) => { [$(Rule::build(
        concat!("sink-depth-to-space-below-", $op),
        concat!("(", $op, " ?a (DepthToSpace ?t ?x))"),
        |cx| {
            let (x, a, t) = (cx.id("?x")?, cx.attrs("?a")?, cx.attrs("?t")?);
            let y = cx.op($op, a, &[x])?;
            cx.op("DepthToSpace", t, &[y])
        },
    )
    .runtime()),*] };
}

/// Pixels out of channels, below what the convolution before them does in its epilogue.
pub static BLOCKS: &[Rule] =
    &sink_blocks!("Relu", "Sigmoid", "Tanh", "HardSwish", "HardSigmoid", "LeakyRelu", "Elu");

/// The same for what varies by channel only.
pub static COLUMNS: &[Rule] = &[
    Rule::build("sink-depth-to-space-below-constant-Add", "(Add ?a (DepthToSpace ?t ?x) ?c)", |cx| {
        below_columns(cx, "Add")
    })
    .runtime(),
    Rule::build("sink-depth-to-space-below-constant-Mul", "(Mul ?a (DepthToSpace ?t ?x) ?c)", |cx| {
        below_columns(cx, "Mul")
    })
    .runtime(),
];

/// Transposes and reshapes below element-wise operators of two inputs.
pub static BINARY: [[Rule; 3]; 4] = sink_binary!("Add", "Mul", "Sub", "Div");

pub static RULES: &[Rule] = &[
    Rule::build("merge-transposes", "(Transpose ?t (Transpose ?u ?x))", |cx| {
        let x = cx.id("?x")?;
        let (outer, inner) = (perm(cx, "?t", x)?, perm(cx, "?u", x)?);
        let both: Vec<i64> = outer.iter().map(|&o| inner[o as usize]).collect();
        transpose(cx, x, &both)
    }),
    Rule::build("drop-identity-transpose", "(Transpose ?t ?x)", |cx| {
        let x = cx.id("?x")?;
        if is_identity(&perm(cx, "?t", x)?) { Some(x) } else { None }
    }),
    // Moving dims of size 1 past others does not move data.
    Rule::build("unit-transpose-to-reshape", "(Transpose ?t ?x)", |cx| {
        let x = cx.id("?x")?;
        let (shape, p) = (cx.shape(x)?, perm(cx, "?t", x)?);
        let moved: Vec<i64> = p.iter().copied().filter(|&d| shape[d as usize] != 1).collect();
        if is_identity(&p) || !moved.is_sorted() { None } else { reshape_to_class(cx, x) }
    }),
    Rule::build("transpose-before-dims-of-1", "(Transpose ?t (Reshape ?r ?x ?s))", before_unit_dims),
    Rule::build("merge-reshapes", "(Reshape ?a (Reshape ?b ?x ?s) ?t)", |cx| {
        reshape_to_class(cx, cx.id("?x")?)
    }),
    Rule::build("drop-same-reshape", "(Reshape ?a ?x ?s)", same_shape),
    Rule::build("flatten-to-reshape", "(Flatten ?a ?x)", |cx| reshape_to_class(cx, cx.id("?x")?)),
    Rule::build("squeeze-to-reshape", "(Squeeze ?a ?x ?s)", |cx| reshape_to_class(cx, cx.id("?x")?)),
    Rule::build("unsqueeze-to-reshape", "(Unsqueeze ?a ?x ?s)", |cx| reshape_to_class(cx, cx.id("?x")?)),
    Rule::build("cancel-squeeze-of-unsqueeze", "(Squeeze ?a (Unsqueeze ?b ?x ?s) ?t)", same_shape),
];

/// The permutation of a Transpose of `x`; the default reverses.
fn perm(cx: &Cx, attrs: &str, x: Id) -> Option<Vec<i64>> {
    let rank = cx.rank(x)? as i64;
    let p = match cx.attrs(attrs)?.ints("perm").ok()? {
        Some(p) => p.to_vec(),
        None => (0..rank).rev().collect(),
    };
    let mut sorted = p.clone();
    sorted.sort_unstable();
    if sorted.iter().copied().eq(0..rank) { Some(p) } else { None }
}

fn is_identity(p: &[i64]) -> bool {
    p.iter().enumerate().all(|(i, &d)| i as i64 == d)
}

fn transpose(cx: &mut Cx, x: Id, p: &[i64]) -> Option<Id> {
    if is_identity(p) { Some(x) } else { cx.op("Transpose", Attrs::new().with("perm", p.to_vec()), &[x]) }
}

fn sink_both(cx: &mut Cx, op: &str) -> Option<Id> {
    let (x, y, a) = (cx.id("?x")?, cx.id("?y")?, cx.attrs("?a")?);
    let (p, q) = (perm(cx, "?t", x)?, perm(cx, "?u", y)?);
    if p != q {
        return None;
    }
    let z = cx.op(op, a, &[x, y])?;
    transpose(cx, z, &p)
}

/// `T(x) ∘ c = T(x ∘ T⁻¹(c))` for a constant of at most the rank of `x`.
fn sink_constant(cx: &mut Cx, op: &str) -> Option<Id> {
    let (x, c, a) = (cx.id("?x")?, cx.id("?c")?, cx.attrs("?a")?);
    let p = perm(cx, "?t", x)?;
    let shape = cx.shape(c)?;
    // A 0 would have Reshape copy a size.
    if !cx.constant(c) || cx.constant(x) || shape.len() > p.len() || shape.contains(&0) {
        return None;
    }
    let c = if shape.iter().all(|&d| d == 1) {
        c
    } else {
        let mut full = vec![1i64; p.len() - shape.len()];
        full.extend(shape.iter().map(|&d| d as i64));
        let full = cx.int_vector(&full);
        let c = cx.op("Reshape", Attrs::new(), &[c, full])?;
        let mut inverse = vec![0i64; p.len()];
        p.iter().enumerate().for_each(|(i, &d)| inverse[d as usize] = i as i64);
        transpose(cx, c, &inverse)?
    };
    let y = cx.op(op, a, &[x, c])?;
    transpose(cx, y, &p)
}

/// The constant of a channel for each channel that its pixels come out of.
fn below_columns(cx: &mut Cx, op: &str) -> Option<Id> {
    let (x, c, a, t) = (cx.id("?x")?, cx.id("?c")?, cx.attrs("?a")?, cx.attrs("?t")?);
    let (channels, rank) = (*cx.shape(cx.class())?.get(1)?, cx.rank(x)?);
    let all = *cx.shape(x)?.get(1)?;
    if cx.constant(x) || rank != 4 || channels == 0 || all == 0 {
        return None;
    }
    let columns = along(cx, c, rank, 1, channels)?;
    let last = t.str_or("mode", "DCR").ok()? == "CRD";
    let (from, times) = if last {
        ([1, channels, 1], [1, 1, all / channels])
    } else {
        ([1, 1, channels], [1, all / channels, 1])
    };
    let [from, times, to] = [&from[..], &times, &[1, all, 1, 1]]
        .map(|dims| cx.int_vector(&dims.iter().map(|&d| d as i64).collect::<Vec<i64>>()));
    let columns = cx.op("Reshape", Attrs::new(), &[columns, from])?;
    let columns = cx.op("Tile", Attrs::new(), &[columns, times])?;
    let columns = cx.op("Reshape", Attrs::new(), &[columns, to])?;
    let y = cx.op(op, a, &[x, columns])?;
    cx.op("DepthToSpace", t, &[y])
}

/// Operands that were reshaped alike, before they were.
fn sink_reshapes(cx: &mut Cx, op: &str) -> Option<Id> {
    let (x, y, a) = (cx.id("?x")?, cx.id("?y")?, cx.attrs("?a")?);
    let count = |id| ir::budget::elements(&cx.shape(id)?).ok();
    // Without more elements nothing was repeated, so that neighbours stay neighbours.
    let alike = cx.shape(x)? == cx.shape(y)? && count(x)? == count(cx.class())?;
    if !alike || cx.constant(x) || cx.constant(y) || cx.shape(x)?.contains(&0) {
        return None;
    }
    let z = cx.op(op, a, &[x, y])?;
    reshape_to_class(cx, z)
}

/// `T(R(x)) = R(T(x))` where `R` only puts in or leaves out dims of 1.
fn before_unit_dims(cx: &mut Cx) -> Option<Id> {
    let x = cx.id("?x")?;
    let class = cx.shape(cx.class())?;
    let from = cx.shape(x)?;
    let given = cx.attrs("?t")?.ints("perm").ok()?.map(<[i64]>::to_vec);
    let order: Vec<usize> = match given {
        Some(p) => p.into_iter().map(|d| usize::try_from(d).ok()).collect::<Option<_>>()?,
        None => (0..class.len()).rev().collect(),
    };
    // Before the transpose.
    let mut between = vec![0; class.len()];
    for (&n, &d) in class.iter().zip(&order) {
        *between.get_mut(d)? = n;
    }
    let long = |shape: &[usize]| (0..shape.len()).filter(|&d| shape[d] != 1).collect::<Vec<usize>>();
    let (own, middle) = (long(&from), long(&between));
    let same = own.iter().map(|&d| from[d]).eq(middle.iter().map(|&d| between[d]));
    if !same || class.contains(&0) || cx.constant(x) {
        return None;
    }
    let mut moved = order.iter().filter_map(|d| middle.iter().position(|m| m == d)).map(|i| own[i] as i64);
    let perm: Vec<i64> = (0..from.len())
        .map(|d| if from[d] == 1 { Some(d as i64) } else { moved.next() })
        .collect::<Option<_>>()?;
    let y = transpose(cx, x, &perm)?;
    reshape_to_class(cx, y)
}

/// One Reshape straight to the matched class's shape, when at most one dim of it is not known.
fn reshape_to_class(cx: &mut Cx, x: Id) -> Option<Id> {
    let dims = cx.ty(cx.class())?.shape()?.to_vec();
    if dims.iter().any(|d| d.known() == Some(0)) {
        return None;
    }
    let target: Vec<i64> = dims.iter().map(|d| d.known().map_or(-1, |n| n as i64)).collect();
    if target.iter().filter(|&&d| d == -1).count() > 1 {
        return None;
    }
    let s = cx.int_vector(&target);
    cx.op("Reshape", Attrs::new(), &[x, s])
}

fn same_shape(cx: &mut Cx) -> Option<Id> {
    let x = cx.id("?x")?;
    let known = cx.ty(x)?.shape()?.iter().all(|d| *d != ir::Dim::Unknown);
    if known && cx.ty(x)? == cx.ty(cx.class())? { Some(x) } else { None }
}
