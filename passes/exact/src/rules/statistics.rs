//! Means, variances and softmax as JAX writes them: sums times 1/n, squares less squared means, dims dropped and put back.

use crate::rule::{Cx, Rule, every};
use egg::Id;
use ir::Attrs;

macro_rules! keep_dims {
    ($($op:literal),*) => { [$(Rule::build(
        concat!("keep-dims-of-", $op),
        concat!("(Reshape ?r (", $op, " ?a ?x ?axes) ?s)"),
        |cx| {
            let (x, axes, a) = (cx.id("?x")?, cx.id("?axes")?, cx.attrs("?a")?);
            if a.int_or("keepdims", 1).ok()? == 1 || cx.shape(cx.class())?.contains(&0) {
                return None;
            }
            let kept = cx.op($op, a.with("keepdims", 1), &[x, axes])?;
            (cx.shape(kept)? == cx.shape(cx.class())?).then_some(kept)
        },
    )),*] };
}

/// Reductions whose dims a reshape puts back.
pub static KEEP: &[Rule] = &keep_dims!("ReduceSum", "ReduceMax", "ReduceMean");

pub static RULES: &[Rule] = &[
    Rule::build("sum-over-count-to-mean", "(Mul ?a (ReduceSum ?r ?x ?axes) ?c)", |cx| {
        let (x, axes, c) = (cx.id("?x")?, cx.id("?axes")?, cx.scalar(cx.id("?c")?)?);
        let (whole, class) = (cx.shape(x)?, cx.shape(cx.class())?);
        let count = ir::budget::elements(&whole).ok()? / ir::budget::elements(&class).ok()?.max(1);
        let dtype = cx.dtype(x)?;
        if !dtype.is_float() || count == 0 || (c * count as f64 - 1.0).abs() > 1e-6 {
            return None;
        }
        let mean = cx.op("ReduceMean", cx.attrs("?r")?, &[x, axes])?;
        (cx.ty(mean)? == cx.ty(cx.class())?).then_some(mean)
    }),
    // E[x²] − E[x]² = E[(x − E[x])²]
    Rule::build(
        "variance-by-squares-to-centred",
        "(Sub ?a (ReduceMean ?r (Mul ?p ?x ?x) ?axes) (Mul ?q (ReduceMean ?t ?x ?axes) (ReduceMean ?t ?x ?axes)))",
        |cx| {
            let (x, axes, r) = (cx.id("?x")?, cx.id("?axes")?, cx.attrs("?r")?);
            let keeps = |a: &Attrs| a.int_or("keepdims", 1).ok();
            if keeps(&r)? != keeps(&cx.attrs("?t")?)? || !cx.dtype(x)?.is_float() || cx.constant(x) {
                return None;
            }
            let mean = cx.op("ReduceMean", cx.attrs("?t")?.with("keepdims", 1), &[x, axes])?;
            let centred = cx.op("Sub", Attrs::new(), &[x, mean])?;
            let squares = cx.op("Mul", Attrs::new(), &[centred, centred])?;
            cx.op("ReduceMean", r, &[squares, axes])
        },
    ),
    Rule::build("drop-floor", "(Max ?a ?x ?c)", floor),
    Rule::build("drop-floor-first", "(Max ?a ?c ?x)", floor),
    // d·(c/√v) = (d/√v)·c: the norm first, then its scale.
    Rule::build("scale-after-norm", "(Mul ?a ?d (Mul ?b (Reciprocal ?e (Sqrt ?f ?v)) ?c))", |cx| {
        let (d, v, c) = (cx.id("?d")?, cx.id("?v")?, cx.id("?c")?);
        if !cx.constant(c) || !cx.tame(c) || cx.constant(d) || cx.constant(v) {
            return None;
        }
        let root = cx.op("Sqrt", Attrs::new(), &[v])?;
        let reciprocal = cx.op("Reciprocal", Attrs::new(), &[root])?;
        let norm = cx.op("Mul", Attrs::new(), &[d, reciprocal])?;
        cx.op("Mul", Attrs::new(), &[norm, c])
    }),
];

/// What `Max` leaves as it is: the constant is minus infinity, or zero below squares.
fn floor(cx: &mut Cx) -> Option<Id> {
    let (x, c) = (cx.id("?x")?, cx.value(cx.id("?c")?)?);
    let same = cx.ty(x)? == cx.ty(cx.class())? && cx.shape(x).is_some() && cx.dtype(x)?.is_float();
    if !same || c.is_empty() {
        return None;
    }
    let below = every(&c, |v| v == f64::NEG_INFINITY) || every(&c, |v| v == 0.0) && is_mean_of_squares(cx, x);
    below.then_some(x)
}

fn is_mean_of_squares(cx: &Cx, x: Id) -> bool {
    cx.nodes(x, "ReduceMean").any(|(_, inputs)| {
        inputs.first().is_some_and(|&s| cx.nodes(s, "Mul").any(|(_, factors)| factors[0] == factors[1]))
    })
}
