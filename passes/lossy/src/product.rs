//! Products of matrices in the widest vector registers there are.

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use ndarray::{Array2, ArrayView2, LinalgScalar, linalg::general_mat_mul, s};
use std::ops::Range;

/// Products of fewer multiplications are not worth setting up.
const SMALL: usize = 1 << 12;

/// Adds `factor·a·b` to the columns from `at` on of `out`, where b is this block of rows and columns of a matrix.
pub fn add(
    out: &mut Array2<f32>,
    at: usize,
    factor: f32,
    a: ArrayView2<f32>,
    b: &Array2<f32>,
    (rows, cols): (Range<usize>, Range<usize>),
) {
    let (m, k, n) = (a.nrows(), rows.len(), cols.len());
    let a = a.as_standard_layout();
    let width = out.ncols();
    if m * k * n >= SMALL
        && let (Some(x), Some(y), Some(z)) = (a.as_slice(), b.as_slice(), out.as_slice_mut())
    {
        let x = MatRef::from_row_major_slice(x, m, k);
        let y = MatRef::from_row_major_slice(y, b.nrows(), b.ncols());
        let y = y.submatrix(rows.start, cols.start, k, n);
        let z = MatMut::from_row_major_slice_mut(z, m, width).subcols_mut(at, n);
        matmul(z, Accum::Add, x, y, factor, Par::Seq);
        return;
    }
    general_mat_mul(factor, &a, &b.slice(s![rows, cols]), 1.0, &mut out.slice_mut(s![.., at..at + n]));
}

/// `a·b`.
pub fn dot<T: LinalgScalar + faer::traits::ComplexField>(a: ArrayView2<T>, b: ArrayView2<T>) -> Array2<T> {
    let (m, k, n) = (a.nrows(), a.ncols(), b.ncols());
    if m * k * n < SMALL || k != b.nrows() {
        return a.dot(&b);
    }
    let (own_a, own_b);
    let a = match laid_out(&a) {
        Some(x) => x,
        None => {
            own_a = a.as_standard_layout().into_owned();
            MatRef::from_row_major_slice(own_a.as_slice().unwrap_or_default(), m, k)
        }
    };
    let b = match laid_out(&b) {
        Some(x) => x,
        None => {
            own_b = b.as_standard_layout().into_owned();
            MatRef::from_row_major_slice(own_b.as_slice().unwrap_or_default(), k, n)
        }
    };
    let mut out = Array2::<T>::zeros((m, n));
    if let Some(z) = out.as_slice_mut() {
        let z = MatMut::from_row_major_slice_mut(z, m, n);
        matmul(z, Accum::Replace, a, b, T::one(), Par::Seq);
    }
    out
}

/// A matrix whose rows or columns lie one after the other.
fn laid_out<'a, T>(m: &'a ArrayView2<T>) -> Option<MatRef<'a, T>> {
    let (rows, cols) = m.dim();
    if let Some(s) = m.as_slice() {
        return Some(MatRef::from_row_major_slice(s, rows, cols));
    }
    let by_columns = m.strides() == [1, rows as isize];
    let s = m.as_slice_memory_order().filter(|_| by_columns)?;
    Some(MatRef::from_column_major_slice(s, rows, cols))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::matrix;

    #[test]
    fn products_are_those_of_the_definition() {
        let (a, b) = (matrix(40, 30, 1), matrix(30, 50, 2));
        let expected = a.dot(&b);
        let near = |c: Array2<f32>| (&c - &expected).iter().all(|d| d.abs() < 1e-4);
        let (at, bt) = (a.t().as_standard_layout().into_owned(), b.t().as_standard_layout().into_owned());
        assert!(near(dot(a.view(), b.view())) && near(dot(at.t(), b.view())) && near(dot(a.view(), bt.t())));
        let wide = ndarray::concatenate![ndarray::Axis(1), b, b];
        assert!(near(dot(a.view(), wide.slice(s![.., 50..]))));
    }

    #[test]
    fn blocks_are_added_where_they_belong() {
        for (m, k, n) in [(2, 3, 4), (40, 30, 50)] {
            let (a, b) = (matrix(k, m, 1), matrix(k + 5, n + 7, 2));
            let mut out = matrix(m, n + 9, 3);
            let mut expected = out.clone();
            let product = a.t().dot(&b.slice(s![2..2 + k, 4..4 + n])) * -0.5;
            expected.slice_mut(s![.., 6..6 + n]).scaled_add(1.0, &product);
            add(&mut out, 6, -0.5, a.t(), &b, (2..2 + k, 4..4 + n));
            assert!((&out - &expected).iter().all(|d| d.abs() < 1e-4), "{m} {k} {n}");
        }
    }
}
