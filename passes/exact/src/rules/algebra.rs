//! Neutral elements, constants meeting constants, and cheaper forms of single operators.

use crate::rule::{Cx, Rule, every};
use egg::Id;
use ir::{Attrs, Tensor};

pub static RULES: &[Rule] = &[
    // x + y = y + x; with constants on the right, one pattern per rule is enough.
    Rule::pattern("commute-add", "(Add ?a ?x ?y)", "(Add ?a ?y ?x)"),
    Rule::pattern("commute-mul", "(Mul ?a ?x ?y)", "(Mul ?a ?y ?x)"),
    Rule::build("drop-add-zero", "(Add ?a ?x ?c)", |cx| neutral(cx, 0.0)),
    Rule::build("drop-sub-zero", "(Sub ?a ?x ?c)", |cx| neutral(cx, 0.0)),
    Rule::build("drop-mul-one", "(Mul ?a ?x ?c)", |cx| neutral(cx, 1.0)),
    Rule::build("drop-div-one", "(Div ?a ?x ?c)", |cx| neutral(cx, 1.0)),
    Rule::build("drop-pow-one", "(Pow ?a ?x ?c)", |cx| neutral(cx, 1.0)),
    Rule::pattern("cancel-double-neg", "(Neg ?a (Neg ?b ?x))", "?x"),
    Rule::pattern("cancel-double-not", "(Not ?a (Not ?b ?x))", "?x"),
    Rule::pattern("merge-double-relu", "(Relu ?a (Relu ?b ?x))", "(Relu ?b ?x)"),
    Rule::pattern("drop-abs-of-relu", "(Abs ?a (Relu ?b ?x))", "(Relu ?b ?x)"),
    // (x ∘ c) ∘ d = x ∘ (c ∘ d) for constants c and d.
    Rule::build("merge-constant-adds", "(Add ?a (Add ?b ?x ?c) ?d)", |cx| merge_constants(cx, "Add")),
    Rule::build("merge-constant-muls", "(Mul ?a (Mul ?b ?x ?c) ?d)", |cx| merge_constants(cx, "Mul")),
    // (x + c)·d = x·d + c·d
    Rule::build("distribute-constant-mul", "(Mul ?a (Add ?b ?x ?c) ?d)", distribute),
    Rule::build("sub-constant-to-add", "(Sub ?a ?x ?c)", |cx| by_inverse(cx, "Neg", "Add")),
    Rule::build("div-constant-to-mul", "(Div ?a ?x ?c)", |cx| by_inverse(cx, "Reciprocal", "Mul")),
    Rule::build("square-to-mul", "(Pow ?a ?x ?c)", |cx| {
        power(cx, 2.0, |cx, x| cx.op("Mul", Attrs::new(), &[x, x]))
    }),
    Rule::build("half-power-to-sqrt", "(Pow ?a ?x ?c)", |cx| {
        power(cx, 0.5, |cx, x| cx.op("Sqrt", Attrs::new(), &[x]))
    }),
    Rule::build("inverse-power-to-reciprocal", "(Pow ?a ?x ?c)", |cx| {
        power(cx, -1.0, |cx, x| cx.op("Reciprocal", Attrs::new(), &[x]))
    }),
    Rule::build("min-of-max-to-clip", "(Min ?a (Max ?b ?x ?lo) ?hi)", to_clip),
    Rule::build("max-of-min-to-clip", "(Max ?a (Min ?b ?x ?hi) ?lo)", to_clip),
    Rule::build("clip-from-zero-to-relu", "(Clip ?a ?x ?lo ?hi)", |cx| {
        let (lo, hi) = bounds(cx)?;
        if lo == 0.0 && hi == f64::INFINITY { relu(cx) } else { None }
    }),
    Rule::build("merge-relu-into-clip", "(Clip ?a (Relu ?b ?x) ?lo ?hi)", |cx| {
        let (lo, hi) = bounds(cx)?;
        if hi < 0.0 { None } else { clip(cx, lo.max(0.0), hi) }
    }),
    Rule::build("merge-clip-into-relu", "(Relu ?b (Clip ?a ?x ?lo ?hi))", |cx| {
        let (lo, hi) = bounds(cx)?;
        if hi < 0.0 { None } else { clip(cx, lo.max(0.0), hi) }
    }),
    Rule::build("drop-cast-to-same-type", "(Cast ?a ?x)", |cx| {
        let x = cx.id("?x")?;
        if cx.dtype(x)? == cx.dtype(cx.class())? { Some(x) } else { None }
    }),
    Rule::pattern("fuse-log-softmax", "(Log ?l (Softmax ?a ?x))", "(LogSoftmax ?a ?x)"),
    Rule::build("drop-full-expand", "(Expand ?a ?x ?s)", same_shape),
    Rule::build("drop-single-concat", "(Concat ?a ?x)", |cx| cx.id("?x")),
    Rule::build("drop-empty-pad", "(Pad ?a ?x ?p ?v ?axes)", |cx| {
        let zero = cx.ints(cx.id("?p")?)?.iter().all(|&p| p == 0);
        if zero { cx.id("?x") } else { None }
    }),
    Rule::build("drop-full-slice", "(Slice ?a ?x ?s ?e ?axes ?steps)", |cx| {
        let steps = cx.id("?steps")?;
        let forward = cx.absent(steps) || cx.ints(steps)?.iter().all(|&s| s == 1);
        if forward { same_shape(cx) } else { None }
    }),
];

/// `?x` where the constant `?c` is all `value` and does not change type or shape.
fn neutral(cx: &mut Cx, value: f64) -> Option<Id> {
    let x = cx.id("?x")?;
    if cx.ty(x)? != cx.ty(cx.class())? || cx.rank(x).is_none() || !same_known(cx, x) {
        return None;
    }
    every(&cx.value(cx.id("?c")?)?, |v| v == value).then_some(x)
}

/// Equal symbolic shapes are equal sizes unless a dim is unknown.
fn same_known(cx: &Cx, x: Id) -> bool {
    cx.ty(x).and_then(|t| t.shape()).is_some_and(|s| s.iter().all(|d| *d != ir::Dim::Unknown))
}

fn same_shape(cx: &mut Cx) -> Option<Id> {
    let x = cx.id("?x")?;
    if cx.ty(x)? == cx.ty(cx.class())? && same_known(cx, x) { Some(x) } else { None }
}

fn is_float(cx: &Cx, id: Id) -> bool {
    cx.dtype(id).is_some_and(|d| d.is_float())
}

fn merge_constants(cx: &mut Cx, op: &str) -> Option<Id> {
    let (x, c, d) = (cx.id("?x")?, cx.id("?c")?, cx.id("?d")?);
    if !(cx.constant(c) && cx.constant(d)) || cx.constant(x) || !(cx.tame(c) && cx.tame(d)) {
        return None;
    }
    let both = cx.op(op, Attrs::new(), &[c, d])?;
    if cx.unchanged(both, c) {
        return None;
    }
    cx.op(op, Attrs::new(), &[x, both])
}

fn distribute(cx: &mut Cx) -> Option<Id> {
    let (x, c, d) = (cx.id("?x")?, cx.id("?c")?, cx.id("?d")?);
    if !(cx.constant(c) && cx.constant(d)) || cx.constant(x) || !is_float(cx, x) {
        return None;
    }
    if !(cx.tame(c) && cx.tame(d)) {
        return None;
    }
    let scaled = cx.op("Mul", Attrs::new(), &[x, d])?;
    let shift = cx.op("Mul", Attrs::new(), &[c, d])?;
    cx.op("Add", Attrs::new(), &[scaled, shift])
}

fn by_inverse(cx: &mut Cx, inverse: &str, op: &str) -> Option<Id> {
    let (x, c) = (cx.id("?x")?, cx.id("?c")?);
    let safe = if inverse == "Reciprocal" { cx.divides(c) } else { cx.constant(c) };
    if !safe || cx.constant(x) || !is_float(cx, x) {
        return None;
    }
    let inverted = cx.op(inverse, Attrs::new(), &[c])?;
    cx.op(op, Attrs::new(), &[x, inverted])
}

fn power(cx: &mut Cx, exponent: f64, f: fn(&mut Cx, Id) -> Option<Id>) -> Option<Id> {
    let (x, c) = (cx.id("?x")?, cx.id("?c")?);
    let keeps_rank = cx.rank(c)? <= cx.rank(x)?;
    if cx.scalar(c)? == exponent && is_float(cx, x) && keeps_rank { f(cx, x) } else { None }
}

fn bounds(cx: &Cx) -> Option<(f64, f64)> {
    let bound = |v: &str, open: f64| {
        let id = cx.id(v)?;
        if cx.absent(id) { Some(open) } else { cx.scalar(id) }
    };
    Some((bound("?lo", f64::NEG_INFINITY)?, bound("?hi", f64::INFINITY)?))
}

fn relu(cx: &mut Cx) -> Option<Id> {
    let x = cx.id("?x")?;
    if is_float(cx, x) { cx.op("Relu", Attrs::new(), &[x]) } else { None }
}

fn clip(cx: &mut Cx, lo: f64, hi: f64) -> Option<Id> {
    let x = cx.id("?x")?;
    let dtype = cx.dtype(x)?;
    if !dtype.is_float() || lo > hi {
        return None;
    }
    let mut bound = |v: f64| -> Option<Id> {
        if v.is_infinite() {
            Some(cx.none())
        } else {
            Some(cx.tensor(Tensor::from_f64s(dtype, &[], vec![v]).ok()?))
        }
    };
    let (lo, hi) = (bound(lo)?, bound(hi)?);
    cx.op("Clip", Attrs::new(), &[x, lo, hi])
}

fn to_clip(cx: &mut Cx) -> Option<Id> {
    let (lo, hi) = (cx.scalar(cx.id("?lo")?)?, cx.scalar(cx.id("?hi")?)?);
    let x = cx.id("?x")?;
    let same = cx.rank(cx.id("?lo")?)? <= cx.rank(x)? && cx.rank(cx.id("?hi")?)? <= cx.rank(x)?;
    if same { clip(cx, lo, hi) } else { None }
}
