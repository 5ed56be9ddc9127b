//! Declared types of values.

use crate::proto::{DimValue, TypeProto, TypeValue};
use ir::{DType, Dim, Error, Result, ValueType};

/// A declared type.
pub fn value_type(t: Option<&TypeProto>) -> Result<ValueType> {
    let Some(value) = t.and_then(|t| t.value.as_ref()) else { return Ok(ValueType::Unknown) };
    let nested = |t: Option<&TypeProto>| value_type(t).map(Box::new);
    Ok(match value {
        TypeValue::TensorType(t) => {
            let Some(dtype) = DType::from_onnx(t.elem_type) else {
                return match t.elem_type {
                    0 => Ok(ValueType::Unknown),
                    n => Err(Error::unsupported(format!("element type number {n}"))),
                };
            };
            let dims = t.shape.as_ref().map(|s| {
                s.dim
                    .iter()
                    .map(|d| match &d.value {
                        // Some producers write -1 for a size they do not know.
                        Some(DimValue::DimValue(n)) => usize::try_from(*n).map_or(Dim::Unknown, Dim::Known),
                        Some(DimValue::DimParam(s)) if !s.is_empty() => Dim::symbol(s),
                        _ => Dim::Unknown,
                    })
                    .collect::<Vec<Dim>>()
            });
            match dims {
                Some(d) => {
                    let known: Vec<usize> = d.iter().map(|d| d.known().unwrap_or(1)).collect();
                    ir::budget::elements(&known)?;
                    ValueType::tensor(dtype, d)
                }
                None => ValueType::unranked(dtype),
            }
        }
        TypeValue::SequenceType(s) => ValueType::Sequence(nested(s.elem_type.as_ref())?),
        TypeValue::OptionalType(o) => ValueType::Optional(nested(o.elem_type.as_ref())?),
        _ => return Err(Error::unsupported("map and sparse tensor types")),
    })
}
