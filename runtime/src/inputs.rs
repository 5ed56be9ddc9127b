//! What a caller hands to a run: arrays that are lent for its duration, or tensors.

use crate::lend::Loan;
use bytemuck::Pod;
use ir::{DType, Element, Result, Tensor, Value};
use ndarray::{ArrayBase, ArrayView, CowArray, Data, Dimension};

/// One input of a run, made with `Input::from` or [`inputs!`](crate::inputs!).
///
/// An array or a view in standard layout whose first element lies at a multiple of 16 bytes, as those of large
/// allocations do, is read where it is; any other is copied once. Element types are those of [`ir::Element`] but `bool`,
/// which comes as a [`Tensor`].
pub struct Input<'a>(Kind<'a>);

enum Kind<'a> {
    Lent(Box<dyn Lend + 'a>),
    Owned(Value),
}

/// An array of any element type.
trait Lend {
    fn tensor<'s>(&'s self, loan: &mut Loan<'s>) -> Result<Tensor>;
}

struct Lent<'a, T> {
    data: CowArray<'a, T, ndarray::IxDyn>,
}

impl<T: Element + Pod> Lend for Lent<'_, T> {
    fn tensor<'s>(&'s self, loan: &mut Loan<'s>) -> Result<Tensor> {
        let data: &'s [T] = self.data.as_slice().unwrap_or(&[]);
        loan.tensor(T::DTYPE, self.data.shape(), bytemuck::cast_slice(data))
    }
}

/// Bytes of any type.
struct Raw<'a> {
    dtype: DType,
    shape: &'a [usize],
    data: &'a [u8],
}

impl Lend for Raw<'_> {
    fn tensor<'s>(&'s self, loan: &mut Loan<'s>) -> Result<Tensor> {
        loan.tensor(self.dtype, self.shape, self.data)
    }
}

impl<'a> Input<'a> {
    /// A tensor of stored bytes, row-major and little-endian, read where they are. A run fails when they are fewer than
    /// type and shape need.
    pub fn lent(dtype: DType, shape: &'a [usize], data: &'a [u8]) -> Input<'a> {
        Input(Kind::Lent(Box::new(Raw { dtype, shape, data })))
    }
}

impl Input<'_> {
    /// The value for one run; memory lent to it comes back when `loan` ends.
    pub(crate) fn value<'s>(&'s self, loan: &mut Loan<'s>) -> Result<Value> {
        match &self.0 {
            Kind::Lent(l) => Ok(Value::Tensor(l.tensor(loan)?)),
            Kind::Owned(v) => Ok(v.clone()),
        }
    }
}

impl<'a, T: Element + Pod, D: Dimension> From<ArrayView<'a, T, D>> for Input<'a> {
    fn from(a: ArrayView<'a, T, D>) -> Input<'a> {
        let a = a.into_dyn();
        let data = if a.is_standard_layout() {
            CowArray::from(a)
        } else {
            CowArray::from(a.as_standard_layout().into_owned())
        };
        Input(Kind::Lent(Box::new(Lent { data })))
    }
}

impl<'a, T: Element + Pod, S: Data<Elem = T>, D: Dimension> From<&'a ArrayBase<S, D>> for Input<'a> {
    fn from(a: &'a ArrayBase<S, D>) -> Input<'a> {
        a.view().into()
    }
}

impl From<Value> for Input<'_> {
    fn from(v: Value) -> Self {
        Input(Kind::Owned(v))
    }
}

impl From<Tensor> for Input<'_> {
    fn from(t: Tensor) -> Self {
        Value::Tensor(t).into()
    }
}

/// Inputs by name: `inputs! { "image" => &image, "scale" => scale.view() }` is an array of pairs for
/// [`Session::run`](crate::Session::run).
#[macro_export]
macro_rules! inputs {
    ($($name:expr => $value:expr),* $(,)?) => {
        [$(($name, $crate::Input::from($value))),*]
    };
}
