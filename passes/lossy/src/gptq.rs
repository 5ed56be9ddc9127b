//! Column-by-column rounding with error compensation (Frantar et al., GPTQ / OBQ, arXiv 2210.17323).
//!
//! Columns are fixed one at a time; the error of each is spread over the columns still free so that the layer's output
//! changes least. The same sweep prunes: a policy may set a weight to zero instead of rounding it (see `obs`).

use crate::factor::Inverse;
use crate::product;
use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, s};
use rayon::prelude::*;

/// Columns whose mutual updates are done at once; later columns get one matrix product per panel.
pub const PANEL: usize = 64;
/// Rows per task: fixed, so results do not depend on the number of threads.
const ROWS: usize = 64;

/// How one weight may be stored.
pub trait Policy: Sync {
    /// The stored code of `x` at (row, column) and the value it decodes to.
    fn round(&self, row: usize, col: usize, x: f32) -> (u8, f32);
    /// Whether roundings of one column depend on each other.
    fn together(&self) -> bool {
        false
    }
    /// Codes and values of a column from row `first` on, where a task starts.
    fn column(&self, first: usize, col: usize, x: &[f32], out: &mut [(u8, f32)]) {
        out.iter_mut().zip(x).enumerate().for_each(|(i, (out, &x))| *out = self.round(first + i, col, x));
    }
    /// Marks weights of this row's panel that must become zero. `cost[i]` is the output error of zeroing the i-th.
    fn zeros(&self, _row: usize, _cols: &[usize], _cost: &[f32], _zero: &mut [bool]) {}
}

/// Codes and the values they decode to, both rows × columns.
#[derive(Debug, Clone)]
pub struct Rounded {
    pub codes: Array2<u8>,
    pub values: Array2<f32>,
}

/// Rounds every weight to its nearest value, with no compensation.
pub fn nearest(w: ArrayView2<f32>, policy: &dyn Policy) -> Rounded {
    let (mut codes, mut values) = (Array2::<u8>::zeros(w.raw_dim()), Array2::<f32>::zeros(w.raw_dim()));
    let tasks: Vec<_> = codes
        .axis_chunks_iter_mut(Axis(0), ROWS)
        .zip(values.axis_chunks_iter_mut(Axis(0), ROWS))
        .zip(w.axis_chunks_iter(Axis(0), ROWS))
        .enumerate()
        .collect();
    tasks.into_par_iter().for_each(|(i, ((mut codes, mut values), w))| {
        if policy.together() {
            let mut out = vec![(0, 0.0); w.nrows()];
            for (c, x) in w.columns().into_iter().enumerate() {
                policy.column(i * ROWS, c, &x.to_vec(), &mut out);
                for (r, &(code, value)) in out.iter().enumerate() {
                    (codes[[r, c]], values[[r, c]]) = (code, value);
                }
            }
            return;
        }
        let stored = codes.iter_mut().zip(values.iter_mut());
        for (((r, c), &x), (code, value)) in w.indexed_iter().zip(stored) {
            (*code, *value) = policy.round(i * ROWS + r, c, x);
        }
    });
    Rounded { codes, values }
}

/// Rounds `w` under `policy`, compensating by the inverse factors of the input's Gram matrix.
pub fn compensate(w: ArrayView2<f32>, factors: &[Inverse], policy: &dyn Policy) -> Rounded {
    let (mut codes, mut values) = (Array2::<u8>::zeros(w.raw_dim()), Array2::<f32>::zeros(w.raw_dim()));
    let tasks: Vec<_> = codes
        .axis_chunks_iter_mut(Axis(0), ROWS)
        .zip(values.axis_chunks_iter_mut(Axis(0), ROWS))
        .zip(w.axis_chunks_iter(Axis(0), ROWS))
        .enumerate()
        .collect();
    tasks.into_par_iter().for_each(|(i, ((mut codes, mut values), w))| {
        for f in factors {
            sweep(i * ROWS, w, f, policy, &mut codes, &mut values);
        }
    });
    Rounded { codes, values }
}

fn sweep(
    first_row: usize,
    w: ArrayView2<f32>,
    f: &Inverse,
    policy: &dyn Policy,
    codes: &mut ArrayViewMut2<u8>,
    values: &mut ArrayViewMut2<f32>,
) {
    let n = f.order.len();
    let mut work = Array2::from_shape_fn((w.nrows(), n), |(r, j)| w[[r, f.order[j]]]);
    let mut errors = Array2::<f32>::zeros((w.nrows(), PANEL));
    for start in (0..n).step_by(PANEL) {
        let end = (start + PANEL).min(n);
        if policy.together() {
            let panel = Panel { row: first_row, start, end, f, policy };
            panel.fix_together(&mut work, &mut errors, |r, col, code, value| {
                codes[[r, col]] = code;
                values[[r, col]] = value;
            });
        } else {
            for r in 0..w.nrows() {
                let panel = Panel { row: first_row + r, start, end, f, policy };
                let mut row = work.row_mut(r);
                let Some(row) = row.as_slice_mut() else { continue };
                panel.fix(row, &mut errors.row_mut(r), |col, code, value| {
                    codes[[r, col]] = code;
                    values[[r, col]] = value;
                });
            }
        }
        if end < n {
            let e = errors.slice(s![.., ..end - start]);
            product::add(&mut work, end, -1.0, e, &f.upper, (start..end, end..n));
        }
    }
}

struct Panel<'a> {
    row: usize,
    start: usize,
    end: usize,
    f: &'a Inverse,
    policy: &'a dyn Policy,
}

impl Panel<'_> {
    /// Fixes the panel's columns of all rows from its own on, one column after the other, and records their scaled errors.
    fn fix_together(
        &self,
        work: &mut Array2<f32>,
        errors: &mut Array2<f32>,
        mut store: impl FnMut(usize, usize, u8, f32),
    ) {
        let mut x = vec![0.0; work.nrows()];
        let mut out = vec![(0, 0.0); work.nrows()];
        for (i, at) in (self.start..self.end).enumerate() {
            let (col, u) = (self.f.order[at], self.f.upper.row(at));
            x.iter_mut().zip(work.column(at)).for_each(|(x, w)| *x = *w);
            self.policy.column(self.row, col, &x, &mut out);
            for (r, &(code, value)) in out.iter().enumerate() {
                store(r, col, code, value);
                let e = (x[r] - value) / u[at];
                errors[[r, i]] = e;
                for j in at + 1..self.end {
                    work[[r, j]] -= e * u[j];
                }
            }
        }
    }

    /// Fixes the panel's columns of one row and records their scaled errors.
    fn fix(
        &self,
        row: &mut [f32],
        errors: &mut ndarray::ArrayViewMut1<f32>,
        mut store: impl FnMut(usize, u8, f32),
    ) {
        let mut zero = [false; PANEL];
        let mut cost = [0f32; PANEL];
        let width = self.end - self.start;
        for i in 0..width {
            let d = self.f.upper[[self.start + i, self.start + i]];
            cost[i] = (row[self.start + i] / d).powi(2);
        }
        let cols = &self.f.order[self.start..self.end];
        self.policy.zeros(self.row, cols, &cost[..width], &mut zero[..width]);
        for i in 0..width {
            let at = self.start + i;
            let x = row[at];
            let wanted = if zero[i] { 0.0 } else { x };
            let (code, value) = self.policy.round(self.row, cols[i], wanted);
            store(cols[i], code, value);
            let u = self.f.upper.row(at);
            let e = (x - value) / u[at];
            errors[i] = e;
            for j in at + 1..self.end {
                row[j] -= e * u[j];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::factor::{Order, inverse};
    use crate::gram::Gram;
    use crate::testing::{correlated, matrix};

    struct Step(f32);
    impl Policy for Step {
        fn round(&self, _: usize, _: usize, x: f32) -> (u8, f32) {
            let q = (x / self.0).round().clamp(-8.0, 7.0);
            ((q + 8.0) as u8, q * self.0)
        }
    }

    fn gram(x: &Array2<f32>) -> Gram {
        let mut g = Gram::new(x.ncols(), 4096);
        g.push(x.view());
        g
    }

    #[test]
    fn compensation_halves_the_output_error_on_correlated_inputs() {
        let (x, w) = (correlated(800, 150, 1), matrix(70, 150, 2));
        let g = gram(&x);
        let plain = nearest(w.view(), &Step(0.5));
        let base = g.error((&w - &plain.values).view());
        for order in [Order::Natural, Order::Activity] {
            let q = compensate(w.view(), &inverse(&g, 0.01, order), &Step(0.5));
            let e = g.error((&w - &q.values).view());
            assert!(e < 0.5 * base, "{order:?}: {e} against {base}");
        }
    }

    #[test]
    fn codes_decode_to_values() {
        let (x, w) = (correlated(100, 20, 3), matrix(9, 20, 4));
        let q = compensate(w.view(), &inverse(&gram(&x), 0.01, Order::Activity), &Step(0.5));
        for (c, v) in q.codes.iter().zip(q.values.iter()) {
            assert_eq!((f32::from(*c) - 8.0) * 0.5, *v);
        }
    }

    #[test]
    fn white_input_needs_no_compensation() {
        let w = matrix(5, 33, 4);
        let q = compensate(w.view(), &inverse(&Gram::identity(33), 0.01, Order::Natural), &Step(0.5));
        assert_eq!(q.values, nearest(w.view(), &Step(0.5)).values);
    }
}
