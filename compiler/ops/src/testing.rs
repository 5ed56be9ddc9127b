//! Runs single operators in tests.

use ir::{Attrs, EvalCx, Graph, Operator, Result, Tensor, Value};

/// Reference results of one node without subgraphs.
pub(crate) fn eval(
    op: &dyn Operator,
    attrs: Attrs,
    inputs: &[Option<Value>],
    outputs: usize,
) -> Result<Vec<Value>> {
    let none = |_: &Graph, _: Vec<Value>| Err(ir::Error::internal("no subgraph"));
    op.eval(&EvalCx { node: "test", attrs: &attrs, inputs, captures: &[], outputs, subgraph: &none })
}

/// First result of a standard operator on tensors that are all present.
pub(crate) fn apply(op: &str, attrs: Attrs, inputs: &[Tensor]) -> Result<Tensor> {
    let all: Vec<Option<Value>> = inputs.iter().cloned().map(|t| Some(t.into())).collect();
    eval(crate::standard(op)?, attrs, &all, 1)?.remove(0).tensor().cloned()
}
