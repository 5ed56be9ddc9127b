//! Bias, activation and residual join the contraction before them, whose kernel applies them while sums are at hand.
//!
//! Each contraction with constant weights first gets an internal twin; the rules after that extend it step by step.

use crate::rule::{Cx, Rule};
use egg::Id;
use ir::{Attrs, DType};
use ops::packed::fused::Activation;

macro_rules! after {
    ($fused:literal; $($act:literal: $left:literal),*) => { [
        Rule::build(
            concat!("fuse-residual-into-", $fused),
            concat!("(Add ?r (ir.", $fused, " ?a ?x ?w ?b ?res) ?other)"),
            |cx| residual(cx, $fused),
        )
        .runtime(),
        $(Rule::build(
            concat!("fuse-", $act, "-into-", $fused),
            concat!("(", $act, " ?r (ir.", $fused, " ?a ?x ?w ?b ?res)", $left, ")"),
            |cx| activate(cx, $fused, $act),
        )
        .runtime()),*
    ] };
}

macro_rules! epilogues {
    ($($fused:literal),*) => { [$(after!($fused;
        "Relu": "", "Clip": " ?lo ?hi", "LeakyRelu": "", "HardSwish": "", "HardSigmoid": "", "Sigmoid": "",
        "Tanh": "", "Swish": "", "Gelu": "")),*] };
}

/// For each contraction: the residual, then the activations.
pub static EPILOGUES: [[Rule; 10]; 4] =
    epilogues!("FusedConv", "FusedConvTranspose", "FusedGemm", "FusedMatMul");

pub static RULES: &[Rule] = &[
    Rule::build("extend-conv", "(Conv ?a ?x ?w ?b)", |cx| twin(cx, "FusedConv", 3..=5)).runtime(),
    Rule::build("extend-conv-transpose", "(ConvTranspose ?a ?x ?w ?b)", |cx| {
        twin(cx, "FusedConvTranspose", 3..=5)
    })
    .runtime(),
    Rule::build("extend-gemm", "(Gemm ?a ?x ?w ?b)", |cx| {
        if cx.attrs("?a")?.int_or("transA", 0).ok()? != 0 {
            return None;
        }
        twin(cx, "FusedGemm", 2..=2)
    })
    .runtime(),
    Rule::build("extend-matmul", "(MatMul ?a ?x ?w)", |cx| {
        if cx.rank(cx.id("?w")?)? == 2 { twin(cx, "FusedMatMul", 2..=8) } else { None }
    })
    .runtime(),
    Rule::build("fuse-bias-into-FusedMatMul", "(Add ?r (ir.FusedMatMul ?a ?x ?w _ _) ?c)", bias).runtime(),
];

/// The contraction as the internal operator, with nothing after its sums yet.
fn twin(cx: &mut Cx, fused: &str, ranks: std::ops::RangeInclusive<usize>) -> Option<Id> {
    let (a, x, w) = (cx.attrs("?a")?, cx.id("?x")?, cx.id("?w")?);
    let b = cx.id("?b");
    let floats = cx.dtype(x)? == DType::F32 && cx.dtype(w)? == DType::F32;
    let known = cx.shape(cx.class()).is_some() && cx.shape(x).is_some();
    let vector = b.is_none_or(|b| cx.absent(b) || cx.constant(b));
    // Quantized weights have kernels of their own.
    let quantized = || [x, w].iter().any(|&t| cx.find(t, "DequantizeLinear").is_some());
    let weighted = cx.constant(w) && !cx.constant(x) && !quantized();
    if !floats || !known || !vector || !weighted || !ranks.contains(&cx.rank(x)?) {
        return None;
    }
    let inputs: Vec<Id> = [x, w].into_iter().chain(b).collect();
    cx.op_in("ir.", fused, a, &inputs)
}

fn rebuild(cx: &mut Cx, fused: &str, a: Attrs, residual: Id) -> Option<Id> {
    let inputs = [cx.id("?x")?, cx.id("?w")?, cx.id("?b")?, residual];
    cx.op_in("ir.", fused, a, &inputs)
}

fn activate(cx: &mut Cx, fused: &str, op: &str) -> Option<Id> {
    let mut a = cx.attrs("?a")?;
    // A bound that is absent is open.
    let bound = |var: &str, open: f32| match cx.id(var) {
        Some(id) if cx.absent(id) => Some(open),
        Some(id) => cx.scalar(id).map(|b| b as f32),
        None => Some(open),
    };
    let bounds = (bound("?lo", f32::NEG_INFINITY)?, bound("?hi", f32::INFINITY)?);
    if a.has("activation") || bounds.0 > bounds.1 || bounds.0.is_nan() || bounds.1.is_nan() {
        return None;
    }
    Activation::of_node(op, &cx.attrs("?r")?, bounds)?.write(&mut a);
    let res = cx.id("?res")?;
    rebuild(cx, fused, a, res)
}

/// A computed tensor of the result's own shape: constants along one axis are biases.
fn residual(cx: &mut Cx, fused: &str) -> Option<Id> {
    let (mut a, res, other) = (cx.attrs("?a")?, cx.id("?res")?, cx.id("?other")?);
    let shape = cx.shape(cx.class())?;
    if !cx.absent(res) || cx.constant(other) || cx.dtype(other)? != DType::F32 || cx.shape(other)? != shape {
        return None;
    }
    let sum = rebuild(cx, fused, a.clone(), res)?;
    if cx.shape(sum)? != shape || sum == other {
        return None;
    }
    if a.has("activation") {
        a.set("residual_last", 1);
    }
    rebuild(cx, fused, a, other)
}

fn bias(cx: &mut Cx) -> Option<Id> {
    let (a, x, w, c) = (cx.attrs("?a")?, cx.id("?x")?, cx.id("?w")?, cx.id("?c")?);
    let n = *cx.shape(cx.class())?.last()?;
    let shape = cx.shape(c)?;
    let vector = cx.constant(c) && shape.last() == Some(&n) && shape.iter().product::<usize>() == n;
    if a.has("activation") || !vector || cx.dtype(c)? != DType::F32 || shape.len() > cx.rank(cx.class())? {
        return None;
    }
    let sum = cx.op_in("ir.", "FusedMatMul", a.clone(), &[x, w])?;
    if cx.shape(sum)? != cx.shape(cx.class())? {
        return None;
    }
    cx.op_in("ir.", "FusedMatMul", a, &[x, w, c])
}
