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
