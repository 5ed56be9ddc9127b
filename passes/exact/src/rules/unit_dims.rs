//! Bias and activation behind a convolution whose dims of 1 are dropped, as convolutions over one dim come from those over
//! two: before the dims go, where they join the convolution. For running here.

use super::fuse::along;
use crate::rule::{Cx, Rule};
use egg::Id;
use ir::Attrs;

macro_rules! activate_before {
    ($($act:literal: $left:literal),*) => { [$(Rule::build(
        concat!("activate-before-dropped-dims-", $act),
        concat!("(", $act, " ?r (Reshape ?q (ir.FusedConv ?a ?x ?w ?b ?res) ?s)", $left, ")"),
        |cx| activate(cx, $act),
    )
    .runtime()),*] };
}

pub static ACTIVATIONS: &[Rule] = &activate_before!(
    "Relu": "", "Clip": " ?lo ?hi", "LeakyRelu": "", "HardSwish": "", "HardSigmoid": "", "Sigmoid": "", "Tanh": "",
    "Swish": "", "Gelu": ""
);

pub static RULES: &[Rule] =
    &[Rule::build("add-before-dropped-dims", "(Add ?m (Reshape ?r (Conv ?a ?x ?w ?b) ?s) ?c)", |cx| {
        let inputs = [cx.id("?x")?, cx.id("?w")?, cx.id("?b")?];
        let conv = cx.op("Conv", cx.attrs("?a")?, &inputs)?;
        let (full, kept) = (cx.shape(conv)?, cx.shape(cx.class())?);
        let same = |d: &&usize| **d != 1;
        let dropped = kept.len() < full.len()
            && kept.get(..2)? == full.get(..2)?
            && kept[2..].iter().filter(same).eq(full[2..].iter().filter(same));
        if !dropped || full.contains(&0) || !cx.dtype(conv)?.is_float() {
            return None;
        }
        let bias = along(cx, cx.id("?c")?, kept.len(), 1, full[1])?;
        let mut spread = vec![1i64; full.len()];
        spread[1] = full[1] as i64;
        let spread = cx.int_vector(&spread);
        let bias = cx.op("Reshape", Attrs::new(), &[bias, spread])?;
        let sum = cx.op("Add", Attrs::new(), &[conv, bias])?;
        dims_dropped(cx, sum)
    })
    .runtime()];

fn activate(cx: &mut Cx, act: &str) -> Option<Id> {
    let inputs: Vec<Id> = ["?x", "?w", "?b", "?res"].iter().map(|v| cx.id(v)).collect::<Option<_>>()?;
    let attrs = cx.attrs("?a")?;
    if attrs.has("activation") {
        return None;
    }
    let conv = cx.op_in("ir.", "FusedConv", attrs, &inputs)?;
    let bounds = ["?lo", "?hi"].iter().filter_map(|v| cx.id(v));
    let operands: Vec<Id> = std::iter::once(conv).chain(bounds).collect();
    let y = cx.op(act, cx.attrs("?r")?, &operands)?;
    dims_dropped(cx, y)
}

/// `y` in the shape of the match.
fn dims_dropped(cx: &mut Cx, y: Id) -> Option<Id> {
    let shape: Vec<i64> = cx.shape(cx.class())?.iter().map(|&d| d as i64).collect();
    if shape.contains(&0) {
        return None;
    }
    let shape = cx.int_vector(&shape);
    cx.op("Reshape", Attrs::new(), &[y, shape])
}
