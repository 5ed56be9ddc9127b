//! The types arithmetic is done in: f64 for double tensors, f32 for narrower floats, wrapping i64 for integers.
//!
//! Modular arithmetic commutes with truncation, so wrapping i64 sums and products cut to the element type at the end
//! equal sums and products that wrap at that type throughout.

use ir::{DType, Element, Error, Result, Tensor};
use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2, NdFloat, ShapeBuilder, ShapeError};
use std::borrow::Cow;

/// A type that sums and products are computed in.
pub trait Number: Copy + PartialOrd + PartialEq + Default + Send + Sync + 'static {
    const ZERO: Self;
    const ONE: Self;
    /// Below or equal to every number.
    const LOWEST: Self;
    /// Elements of a tensor, widened where it is of a narrower type.
    fn read(t: &Tensor) -> Result<Cow<'_, [Self]>>;
    /// A tensor of `dtype`: floats round once, integers wrap.
    fn write(dtype: DType, shape: &[usize], data: Vec<Self>) -> Result<Tensor>;
    fn plus(self, b: Self) -> Self;
    fn times(self, b: Self) -> Self;
    /// The product with a float; integers truncate.
    fn scaled(self, by: f32) -> Self;
    /// `c += a·b` with a (m, k) and b (k, n) of any (row, column) strides and c (m, n) of the given row stride.
    fn gemm(mkn: [usize; 3], a: Strided<Self>, b: Strided<Self>, c: &mut [Self], c_rows: usize)
    -> Result<()>;
}

/// A matrix inside a slice: elements, row stride, column stride.
#[derive(Clone, Copy)]
pub struct Strided<'a, T>(pub &'a [T], pub usize, pub usize);

/// A floating-point [`Number`].
pub trait Real: Number + NdFloat {
    fn of(x: f64) -> Self;
    fn f64(self) -> f64;
}

fn shape_error(e: ShapeError) -> Error {
    Error::internal(format!("matrix product: {e}"))
}

macro_rules! real {
    ($t:ident) => {
        impl Number for $t {
            const ZERO: $t = 0.0;
            const ONE: $t = 1.0;
            const LOWEST: $t = $t::NEG_INFINITY;
            fn read(t: &Tensor) -> Result<Cow<'_, [$t]>> {
                match t.dtype() {
                    DType::F64 | DType::F32 | DType::F16 | DType::BF16 => {}
                    d => return Err(Error::model(format!("expected a float tensor, got {d}"))),
                }
                if let Ok(x) = t.data::<$t>() {
                    return Ok(x);
                }
                Ok(Cow::Owned(t.to_f64s()?.into_iter().map(|x| x as $t).collect()))
            }
            fn write(dtype: DType, shape: &[usize], data: Vec<$t>) -> Result<Tensor> {
                match dtype {
                    $t::DTYPE => Tensor::new(shape, data),
                    d => Tensor::from_f64s(d, shape, data.into_iter().map(f64::from).collect()),
                }
            }
            fn plus(self, b: $t) -> $t {
                self + b
            }
            fn times(self, b: $t) -> $t {
                self * b
            }
            fn scaled(self, by: f32) -> $t {
                self * $t::from(by)
            }
            fn gemm(
                [m, k, n]: [usize; 3],
                a: Strided<$t>,
                b: Strided<$t>,
                c: &mut [$t],
                c_rows: usize,
            ) -> Result<()> {
                if m == 0 || k == 0 || n == 0 {
                    return Ok(());
                }
                let a = ArrayView2::from_shape((m, k).strides((a.1, a.2)), a.0).map_err(shape_error)?;
                let b = ArrayView2::from_shape((k, n).strides((b.1, b.2)), b.0).map_err(shape_error)?;
                let c = ArrayViewMut2::from_shape((m, n).strides((c_rows, 1)), c);
                general_mat_mul(1.0, &a, &b, 1.0, &mut c.map_err(shape_error)?);
                Ok(())
            }
        }
        impl Real for $t {
            fn of(x: f64) -> $t {
                x as $t
            }
            fn f64(self) -> f64 {
                f64::from(self)
            }
        }
    };
}

real!(f32);
real!(f64);

macro_rules! integer {
    ($t:ident) => {
        impl Number for $t {
            const ZERO: $t = 0;
            const ONE: $t = 1;
            const LOWEST: $t = $t::MIN;
            fn read(t: &Tensor) -> Result<Cow<'_, [$t]>> {
                if let Ok(x) = t.data::<$t>() {
                    return Ok(x);
                }
                if t.dtype() == DType::U64 {
                    return Ok(Cow::Owned(t.data::<u64>()?.iter().map(|&x| x as $t).collect()));
                }
                Ok(Cow::Owned(t.to_i64s()?.into_iter().map(|x| x as $t).collect()))
            }
            fn write(dtype: DType, shape: &[usize], data: Vec<$t>) -> Result<Tensor> {
                match dtype {
                    $t::DTYPE => Tensor::new(shape, data),
                    d => Tensor::from_i64s(d, shape, data.into_iter().map(i64::from).collect()),
                }
            }
            fn plus(self, b: $t) -> $t {
                self.wrapping_add(b)
            }
            fn times(self, b: $t) -> $t {
                self.wrapping_mul(b)
            }
            fn scaled(self, by: f32) -> $t {
                (self as f64 * f64::from(by)) as $t
            }
            fn gemm(
                [m, k, n]: [usize; 3],
                a: Strided<$t>,
                b: Strided<$t>,
                c: &mut [$t],
                c_rows: usize,
            ) -> Result<()> {
                for (i, l) in (0..m).flat_map(|i| (0..k).map(move |l| (i, l))) {
                    let x = a.0[i * a.1 + l * a.2];
                    let row = &mut c[i * c_rows..][..n];
                    for (y, w) in row.iter_mut().zip(b.0[l * b.1..].iter().step_by(b.2.max(1))) {
                        *y = y.wrapping_add(x.wrapping_mul(*w));
                    }
                }
                Ok(())
            }
        }
    };
}

integer!(i32);
integer!(i64);

/// Calls `f::<T>(..)` with the [`Real`] type that tensors of this dtype are computed in.
macro_rules! by_real {
    ($dtype:expr, $f:ident($($a:expr),* $(,)?)) => {
        match $dtype {
            ir::DType::F64 => $f::<f64>($($a),*),
            ir::DType::F32 | ir::DType::F16 | ir::DType::BF16 => $f::<f32>($($a),*),
            d => Err(ir::Error::model(format!("expected a float tensor, got {d}"))),
        }
    };
}

/// Calls `f::<T>(..)` with the [`Number`] type that tensors of this dtype are computed in.
macro_rules! by_number {
    ($dtype:expr, $f:ident($($a:expr),* $(,)?)) => {
        match $dtype {
            ir::DType::F64 => $f::<f64>($($a),*),
            ir::DType::F32 | ir::DType::F16 | ir::DType::BF16 => $f::<f32>($($a),*),
            d if d.is_int() => $f::<i64>($($a),*),
            d => Err(ir::Error::model(format!("expected a tensor of numbers, got {d}"))),
        }
    };
}

pub(crate) use {by_number, by_real};

#[cfg(test)]
mod tests {
    use super::*;

    fn product<T: Number>(a: &[T], b: &[T]) -> Vec<T> {
        let mut c = vec![T::ZERO; 4];
        T::gemm([2, 2, 2], Strided(a, 1, 2), Strided(b, 2, 1), &mut c, 2).unwrap();
        c
    }

    #[test]
    fn transposed_products_agree_between_types() {
        assert_eq!(product::<f32>(&[1., 2., 3., 4.], &[5., 6., 7., 8.]), [26., 30., 38., 44.]);
        assert_eq!(product::<i64>(&[1, 2, 3, 4], &[5, 6, 7, 8]), [26, 30, 38, 44]);
    }

    #[test]
    fn integers_wrap_at_their_own_width() {
        let t = <i64 as Number>::write(DType::U8, &[1], vec![300]).unwrap();
        assert_eq!(t.to_i64s().unwrap(), [44]);
        let big = Tensor::vector(vec![u64::MAX]);
        assert_eq!(&*<i64 as Number>::read(&big).unwrap(), [-1]);
    }
}
