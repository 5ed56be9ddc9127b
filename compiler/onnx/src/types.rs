//! Declared types of values.

use crate::proto::{DimValue, TypeProto, TypeValue};
use ir::{DType, Dim, Error, Result, ValueType};

/// Deepest nesting of sequences and optionals: half of what the textual form reads, so that what imports can be written
/// in both forms and read again, inside subgraphs too.
const MAX_DEPTH: usize = 16;

/// Whether a type can be written so that [`value_type`] reads it.
pub fn is_readable(t: &ValueType) -> bool {
    let mut inner = t;
    let depth = std::iter::from_fn(|| {
        let (ValueType::Sequence(e) | ValueType::Optional(e)) = inner else { return None };
        inner = e;
        Some(())
    });
    depth.count() <= MAX_DEPTH
}

/// A declared type.
pub fn value_type(t: Option<&TypeProto>) -> Result<ValueType> {
    value_type_at(t, 0)
}

fn value_type_at(t: Option<&TypeProto>, depth: usize) -> Result<ValueType> {
    if depth > MAX_DEPTH {
        return Err(Error::limit(format!("types nest deeper than {MAX_DEPTH}")));
    }
    let Some(value) = t.and_then(|t| t.value.as_ref()) else { return Ok(ValueType::Unknown) };
    let nested = |t: Option<&TypeProto>| value_type_at(t, depth + 1).map(Box::new);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{OptionalOf, SequenceOf};
    use ir::Blame;

    fn type_of(value: TypeValue) -> TypeProto {
        TypeProto { value: Some(value), ..TypeProto::default() }
    }

    fn nested(depth: usize) -> TypeProto {
        (0..depth).fold(TypeProto::default(), |t, i| match i % 2 {
            0 => type_of(TypeValue::SequenceType(SequenceOf {
                elem_type: Some(t).into(),
                ..Default::default()
            })),
            _ => type_of(TypeValue::OptionalType(OptionalOf {
                elem_type: Some(t).into(),
                ..Default::default()
            })),
        })
    }

    /// A type whose innermost sequence said nothing was written one message deeper than it was read, and then too
    /// deep to read.
    #[test]
    fn types_nest_only_so_deep() {
        let deepest = value_type(Some(&nested(MAX_DEPTH))).unwrap();
        assert!(is_readable(&deepest));
        assert!(!is_readable(&ValueType::Optional(Box::new(deepest))));
        assert_eq!(value_type(Some(&nested(MAX_DEPTH + 1))).unwrap_err().blame, Blame::Limit);
    }
}
