//! Type rules that many families share.

use ir::{DType, Dim, InferCx, Result, TensorType, Value, ValueType};

/// One output of the first input's type and shape.
pub(crate) fn like_first(cx: &InferCx) -> Result<Vec<ValueType>> {
    cx.dtype(0)?;
    Ok(vec![cx.input(0)?.clone()])
}

/// A tensor type of which element type and shape may each be unknown.
pub(crate) fn tensor_type(dtype: Option<DType>, shape: Option<Vec<Dim>>) -> ValueType {
    dtype.map_or(ValueType::Unknown, |dtype| ValueType::Tensor(TensorType { dtype, shape }))
}

/// One tensor as the results of an evaluation.
pub(crate) fn one(t: ir::Tensor) -> Vec<Value> {
    vec![Value::Tensor(t)]
}

/// Integers of an input that must be a list (a single number counts as one).
pub(crate) fn list(cx: &ir::EvalCx, i: usize) -> Result<Vec<i64>> {
    let t = cx.tensor(i)?;
    if t.rank() > 1 {
        return Err(ir::Error::model(format!("input {i} must be a list, has shape {:?}", t.shape())));
    }
    t.to_i64s()
}
