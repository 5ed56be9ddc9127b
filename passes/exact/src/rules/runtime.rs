//! Fusions into operators newer than most runtimes know, for running here.

use crate::rule::{Cx, Rule};
use egg::Id;
use ir::{Attrs, DType, Tensor};

pub static RULES: &[Rule] = &[
    Rule::build("recognise-swish", "(Mul ?a ?x (Sigmoid ?b ?x))", |cx| {
        let x = cx.id("?x")?;
        cx.op("Swish", Attrs::new(), &[x])
    })
    .runtime(),
    // x/√(mean(x²) + ε) over the last axis; the scale joins in the rule after them.
    Rule::build(
        "recognise-rms-norm",
        "(Div ?a ?x (Sqrt ?b (Add ?c (ReduceMean ?r (Mul ?p ?x ?x) ?axes) ?eps)))",
        rms_norm,
    )
    .runtime(),
    Rule::build(
        "recognise-rms-norm-by-reciprocal",
        "(Mul ?a ?x (Reciprocal ?e (Sqrt ?b (Add ?c (ReduceMean ?r (Mul ?p ?x ?x) ?axes) ?eps))))",
        rms_norm,
    )
    .runtime(),
    Rule::build("fold-mul-into-rms-norm", "(Mul ?m (RMSNormalization ?a ?x ?s) ?c)", |cx| {
        let (a, x, s, c) = (cx.attrs("?a")?, cx.id("?x")?, cx.id("?s")?, cx.id("?c")?);
        let last = matches!(a.int_or("axis", -1).ok()?, axis if axis == -1 || Some(axis + 1) == cx.rank(x).map(|r| r as i64));
        if !last || !cx.constant(c) || !cx.constant(s) || cx.shape(c)? != cx.shape(s)? || cx.dtype(c)? != cx.dtype(s)? {
            return None;
        }
        let s = cx.op("Mul", Attrs::new(), &[s, c])?;
        cx.op("RMSNormalization", a, &[x, s])
    })
    .runtime(),
];

fn rms_norm(cx: &mut Cx) -> Option<Id> {
    let x = cx.id("?x")?;
    let (axes, r) = (cx.ints(cx.id("?axes")?)?, cx.attrs("?r")?);
    let (eps, dtype, rank) = (cx.scalar(cx.id("?eps")?)?, cx.dtype(x)?, cx.rank(x)? as i64);
    let last = axes == [-1] || axes == [rank - 1];
    // A vector of ε, or one of more dims than x, would have changed the shape.
    if !last || r.int_or("keepdims", 1).ok()? != 1 || cx.ty(x)? != cx.ty(cx.class())? || dtype != DType::F32 {
        return None;
    }
    let n = cx.ty(x)?.shape()?.last()?.known()?;
    let ones = cx.tensor(Tensor::from_f32s(dtype, &[n], vec![1.0; n]).ok()?);
    cx.op("RMSNormalization", Attrs::new().with("axis", -1).with("epsilon", eps as f32), &[x, ones])
}
