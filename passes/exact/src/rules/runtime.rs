//! Fusions into operators newer than most runtimes know, for running here.

use crate::Rule;
use ir::Attrs;

pub static RULES: &[Rule] = &[Rule::build("recognise-swish", "(Mul ?a ?x (Sigmoid ?b ?x))", |cx| {
    let x = cx.id("?x")?;
    cx.op("Swish", Attrs::new(), &[x])
})
.runtime()];
