//! The matrix behind a weight tensor: rows are outputs, columns are inputs, whatever the operator's layout is.

use crate::transpose::transposed;
use ir::{Error, Result, Tensor};
use ndarray::Array2;

/// How a tensor is read as a matrix of `rows` outputs × `cols` inputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Shape of the tensor.
    pub shape: Vec<usize>,
    pub rows: usize,
    pub cols: usize,
    /// The tensor stores cols × rows.
    pub transposed: bool,
    /// Rows fall into this many equal runs, each with its own inputs (grouped convolution).
    pub groups: usize,
    /// Columns whose inputs meet in one sum; fewer than `cols` in grouped transposed convolutions.
    pub run: usize,
}

impl View {
    /// Rows are the first axis, the other axes are columns; a vector is one row.
    pub fn leading(shape: &[usize], groups: usize) -> View {
        let rows = if shape.len() > 1 { shape[0] } else { 1 };
        let cols = shape.iter().skip(usize::from(shape.len() > 1)).product();
        View { shape: shape.to_vec(), rows, cols, transposed: false, groups: groups.max(1), run: cols }
    }

    /// Columns are the first axis, the other axes are rows.
    pub fn trailing(shape: &[usize]) -> View {
        let cols = shape.first().copied().unwrap_or(1);
        let rows = shape.iter().skip(1).product();
        View { shape: shape.to_vec(), rows, cols, transposed: true, groups: 1, run: cols }
    }

    /// Rows are the product of the first `n` axes.
    pub fn split(shape: &[usize], n: usize) -> View {
        let rows = shape.iter().take(n).product();
        let cols = shape.iter().skip(n).product();
        View { shape: shape.to_vec(), rows, cols, transposed: false, groups: 1, run: cols }
    }

    pub fn len(&self) -> usize {
        self.rows * self.cols
    }
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The two-dimensional shape in storage order.
    pub fn stored_shape(&self) -> [usize; 2] {
        if self.transposed { [self.cols, self.rows] } else { [self.rows, self.cols] }
    }
    /// Axis of the rows in [`View::stored_shape`].
    pub fn row_axis(&self) -> i64 {
        i64::from(self.transposed)
    }
    /// Axis of the columns in [`View::stored_shape`].
    pub fn col_axis(&self) -> i64 {
        1 - self.row_axis()
    }
    /// The axis of the tensor itself that holds exactly the rows, if one does.
    pub fn direct_row_axis(&self) -> Option<i64> {
        match self.transposed {
            false if self.shape.first() == Some(&self.rows) => Some(0),
            true if self.shape.len() == 2 => Some(1),
            _ => None,
        }
    }

    /// The tensor's values as rows × cols.
    pub fn matrix(&self, t: &Tensor) -> Result<Array2<f32>> {
        let data = t.to_f32s()?;
        if data.len() != self.len() {
            return Err(Error::internal(format!("view {:?} of a weight of {}", self.shape, data.len())));
        }
        let data = if self.transposed { transposed(&data, self.cols, self.rows) } else { data };
        Array2::from_shape_vec((self.rows, self.cols), data)
            .map_err(|e| Error::internal(format!("view {:?} of a weight: {e}", self.shape)))
    }

    /// Entries of a rows × cols matrix in storage order.
    pub fn stored<T: Copy + Default>(&self, m: &Array2<T>) -> Vec<T> {
        match m.as_slice() {
            Some(a) if self.transposed => transposed(a, m.nrows(), m.ncols()),
            Some(a) => a.to_vec(),
            None if self.transposed => m.t().iter().copied().collect(),
            None => m.iter().copied().collect(),
        }
    }

    /// The tensor of a rows × cols matrix.
    pub fn tensor(&self, m: &Array2<f32>) -> Result<Tensor> {
        Tensor::new(&self.shape, self.stored(m))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::matrix;

    #[test]
    fn tensors_survive_the_round_trip() {
        for view in [View::leading(&[4, 3, 2], 2), View::trailing(&[4, 3, 2]), View::split(&[2, 2, 6], 2)] {
            let t = Tensor::new(&view.shape, matrix(1, 24, 3).into_raw_vec_and_offset().0).unwrap();
            let m = view.matrix(&t).unwrap();
            assert_eq!(m.dim(), (view.rows, view.cols));
            assert_eq!(view.tensor(&m).unwrap(), t);
        }
    }
}
