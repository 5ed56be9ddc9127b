//! Types of values: dims that may be symbolic, tensors, sequences and optionals.

use crate::{DType, Error, Result, Tensor, tensor::Shape};
use std::fmt;
use std::sync::Arc;

/// One dimension of a shape.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dim {
    Known(usize),
    /// A named size, equal wherever the name is equal.
    Symbol(Arc<str>),
    Unknown,
}

impl Dim {
    pub fn known(&self) -> Option<usize> {
        match self {
            Dim::Known(n) => Some(*n),
            _ => None,
        }
    }
    pub fn symbol(name: &str) -> Dim {
        Dim::Symbol(name.into())
    }
    /// The dim both agree on; a known size wins over a symbol, a symbol over unknown.
    pub fn merge(&self, o: &Dim) -> Result<Dim> {
        Ok(match (self, o) {
            (Dim::Known(a), Dim::Known(b)) if a != b => {
                return Err(Error::model(format!("dimension {a} does not match {b}")));
            }
            (Dim::Known(a), _) | (_, Dim::Known(a)) => Dim::Known(*a),
            (Dim::Symbol(a), _) | (_, Dim::Symbol(a)) => Dim::Symbol(a.clone()),
            _ => Dim::Unknown,
        })
    }
}

impl From<usize> for Dim {
    fn from(n: usize) -> Dim {
        Dim::Known(n)
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Known(n) => write!(f, "{n}"),
            Dim::Symbol(s) => f.write_str(s),
            Dim::Unknown => f.write_str("?"),
        }
    }
}

/// Element type and shape; `None` is an unknown rank.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TensorType {
    pub dtype: DType,
    pub shape: Option<Vec<Dim>>,
}

/// Type of a value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ValueType {
    Unknown,
    Tensor(TensorType),
    Sequence(Box<ValueType>),
    Optional(Box<ValueType>),
}

impl ValueType {
    pub fn tensor(dtype: DType, shape: Vec<Dim>) -> ValueType {
        ValueType::Tensor(TensorType { dtype, shape: Some(shape) })
    }
    pub fn known(dtype: DType, shape: &[usize]) -> ValueType {
        ValueType::tensor(dtype, shape.iter().map(|&d| Dim::Known(d)).collect())
    }
    /// A tensor of known type and unknown rank.
    pub fn unranked(dtype: DType) -> ValueType {
        ValueType::Tensor(TensorType { dtype, shape: None })
    }
    pub fn of(t: &Tensor) -> ValueType {
        ValueType::known(t.dtype(), t.shape())
    }
    pub fn as_tensor(&self) -> Option<&TensorType> {
        match self {
            ValueType::Tensor(t) => Some(t),
            _ => None,
        }
    }
    pub fn dtype(&self) -> Option<DType> {
        self.as_tensor().map(|t| t.dtype)
    }
    pub fn shape(&self) -> Option<&[Dim]> {
        self.as_tensor()?.shape.as_deref()
    }
    pub fn rank(&self) -> Option<usize> {
        self.shape().map(<[Dim]>::len)
    }
    /// The shape when every dim is known.
    pub fn concrete(&self) -> Option<Shape> {
        self.shape()?.iter().map(Dim::known).collect()
    }
    /// The type both descriptions agree on; an error names what differs.
    pub fn merge(&self, o: &ValueType) -> Result<ValueType> {
        use ValueType::*;
        Ok(match (self, o) {
            (Unknown, t) | (t, Unknown) => t.clone(),
            (Tensor(a), Tensor(b)) if a.dtype != b.dtype => {
                return Err(Error::model(format!("element type {} does not match {}", a.dtype, b.dtype)));
            }
            (Tensor(a), Tensor(b)) => {
                let shape = match (&a.shape, &b.shape) {
                    (None, s) | (s, None) => s.clone(),
                    (Some(x), Some(y)) if x.len() != y.len() => {
                        return Err(Error::model(format!("shape {self} does not match {o}: ranks differ")));
                    }
                    (Some(x), Some(y)) => {
                        Some(x.iter().zip(y).map(|(p, q)| p.merge(q)).collect::<Result<_>>()?)
                    }
                };
                Tensor(TensorType { dtype: a.dtype, shape })
            }
            (Sequence(a), Sequence(b)) => Sequence(Box::new(a.merge(b)?)),
            (Optional(a), Optional(b)) => Optional(Box::new(a.merge(b)?)),
            _ => return Err(Error::model(format!("type {self} does not match {o}"))),
        })
    }
    /// The narrowest type that covers both, for results of branches.
    pub fn join(&self, o: &ValueType) -> ValueType {
        use ValueType::*;
        match (self, o) {
            (Tensor(a), Tensor(b)) if a.dtype == b.dtype => {
                let shape = match (&a.shape, &b.shape) {
                    (Some(x), Some(y)) if x.len() == y.len() => Some(
                        x.iter().zip(y).map(|(p, q)| if p == q { p.clone() } else { Dim::Unknown }).collect(),
                    ),
                    _ => None,
                };
                Tensor(TensorType { dtype: a.dtype, shape })
            }
            (Sequence(a), Sequence(b)) => Sequence(Box::new(a.join(b))),
            (Optional(a), Optional(b)) => Optional(Box::new(a.join(b))),
            _ => Unknown,
        }
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ValueType::Unknown => f.write_str("?"),
            ValueType::Tensor(t) => {
                write!(f, "{}", t.dtype)?;
                match &t.shape {
                    None => f.write_str("[...]"),
                    Some(s) => write!(f, "[{}]", s.iter().map(Dim::to_string).collect::<Vec<_>>().join(",")),
                }
            }
            ValueType::Sequence(t) => write!(f, "seq({t})"),
            ValueType::Optional(t) => write!(f, "optional({t})"),
        }
    }
}

/// A runtime value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Tensor(Tensor),
    /// Element type and elements.
    Sequence(ValueType, Vec<Value>),
    /// Element type and, perhaps, the element.
    Optional(ValueType, Option<Box<Value>>),
}

impl Value {
    pub fn tensor(&self) -> Result<&Tensor> {
        match self {
            Value::Tensor(t) => Ok(t),
            v => Err(Error::model(format!("expected a tensor, got {}", v.value_type()))),
        }
    }
    pub fn value_type(&self) -> ValueType {
        match self {
            Value::Tensor(t) => ValueType::of(t),
            Value::Sequence(t, _) => ValueType::Sequence(Box::new(t.clone())),
            Value::Optional(t, _) => ValueType::Optional(Box::new(t.clone())),
        }
    }
}

impl From<Tensor> for Value {
    fn from(t: Tensor) -> Value {
        Value::Tensor(t)
    }
}
