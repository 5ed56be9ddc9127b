//! Results of a run, by name or number, as array views over the memory they were computed in.

use bytemuck::Pod;
use ir::{Element, Error, Result, Tensor, Value};
use ndarray::{ArrayViewD, IxDyn};
use std::sync::Arc;

/// The outputs of one run. They are the caller's: later runs do not touch them.
#[derive(Debug, Clone)]
pub struct Outputs {
    names: Arc<[String]>,
    values: Vec<Value>,
}

/// The name or the number of an output.
pub trait Which: std::fmt::Display {
    /// Its position among `names`.
    fn position(&self, names: &[String]) -> Option<usize>;
}

impl Which for &str {
    fn position(&self, names: &[String]) -> Option<usize> {
        names.iter().position(|n| n == self)
    }
}

impl Which for usize {
    fn position(&self, names: &[String]) -> Option<usize> {
        (*self < names.len()).then_some(*self)
    }
}

impl Outputs {
    pub(crate) fn new(names: Arc<[String]>, values: Vec<Value>) -> Result<Outputs> {
        Ok(Outputs { names, values: values.into_iter().map(aligned).collect::<Result<_>>()? })
    }

    /// A view of output `which`, of type `T`; an error when there is none or it is of another type. Nothing is copied.
    pub fn view<T: Element + Pod>(&self, which: impl Which) -> Result<ArrayViewD<'_, T>> {
        let t = self.get(which)?.tensor()?;
        if t.dtype() != T::DTYPE {
            return Err(Error::data(format!("the output is {}, not {}", t.dtype(), T::DTYPE)));
        }
        let data = bytemuck::try_cast_slice(t.bytes()).map_err(|e| Error::internal(e.to_string()))?;
        ArrayViewD::from_shape(IxDyn(t.shape()), data).map_err(|e| Error::internal(e.to_string()))
    }

    /// Output `which`: a tensor, or a sequence or optional where the model has such outputs.
    pub fn get(&self, which: impl Which) -> Result<&Value> {
        let found = which.position(&self.names).and_then(|i| self.values.get(i));
        found.ok_or_else(|| {
            Error::data(format!("there is no output {which}; the model gives {}", self.names.join(", ")))
        })
    }

    /// Names and values in the model's order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.names.iter().map(String::as_str).zip(&self.values)
    }

    /// Number of outputs.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether the model has no outputs.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The values in the model's order.
    pub fn into_values(self) -> Vec<Value> {
        self.values
    }
}

/// A tensor of the file itself may lie at any address.
fn aligned(v: Value) -> Result<Value> {
    Ok(match v {
        Value::Tensor(t) if !(t.bytes().as_ptr() as usize).is_multiple_of(8) => {
            let mut words = ir::budget::filled(t.bytes().len().div_ceil(8), 0u64)?;
            bytemuck::cast_slice_mut::<u64, u8>(&mut words)[..t.bytes().len()].copy_from_slice(t.bytes());
            Value::Tensor(Tensor::mapped(t.dtype(), t.shape(), Arc::new(Words(words)), 0)?)
        }
        v => v,
    })
}

/// Bytes at the start of an aligned allocation.
struct Words(Vec<u64>);

impl ir::Bytes for Words {
    fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}
