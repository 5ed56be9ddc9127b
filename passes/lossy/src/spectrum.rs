//! Best low-rank approximation of a weight under the statistics of its input.
//!
//! Minimising E‖(W − A·B)x‖² with H = E[x xᵀ]: the eigenvectors of the output covariance W·H·Wᵀ span the best outputs,
//! so A = U_r and B = U_rᵀ·W; the error is the sum of the eigenvalues left out. For tall weights the same is done on
//! the whitened input side (H = L·Lᵀ, singular vectors of W·L, unwhitened).

use crate::factor::lower;
use crate::gram::Gram;
use crate::product::dot;
use faer::{Mat, Side};
use ir::{Error, Result};
use ndarray::{Array2, s};

/// All factors of a weight, most important first; truncation gives every rank.
pub struct Spectrum {
    /// rows × k, orthogonal directions of the output (or scaled ones for tall weights).
    left: Array2<f32>,
    /// k × cols
    right: Array2<f32>,
    /// Squared error that each direction saves, descending.
    pub energy: Vec<f64>,
}

impl Spectrum {
    /// The factors A (rows × rank) and B (rank × cols).
    pub fn truncated(&self, rank: usize) -> (Array2<f32>, Array2<f32>) {
        let r = rank.min(self.energy.len());
        (self.left.slice(s![.., ..r]).to_owned(), self.right.slice(s![..r, ..]).to_owned())
    }

    /// Squared error of so many directions.
    pub fn left_out(&self, rank: usize) -> f64 {
        self.energy.iter().skip(rank).sum()
    }

    /// Of a weight (rows × cols) whose input has this Gram matrix; `None` stands for white inputs.
    pub fn of(w: &Array2<f32>, gram: Option<&Gram>) -> Result<Spectrum> {
        if w.nrows() <= w.ncols() { wide(w, gram) } else { tall(w, gram) }
    }
}

fn failed() -> Error {
    Error::internal("the eigenvalues of a layer did not converge")
}

/// Eigenvectors (columns) and eigenvalues of a symmetric matrix, descending.
pub fn eigen(a: &Array2<f64>) -> Result<(Array2<f64>, Vec<f64>)> {
    let n = a.nrows();
    let m = Mat::from_fn(n, n, |i, j| a[[i, j]]);
    let e = m.self_adjoint_eigen(Side::Lower).map_err(|_| failed())?;
    let (u, v) = (e.U(), e.S().column_vector());
    let vectors = Array2::from_shape_fn((n, n), |(i, j)| u[(i, n - 1 - j)]);
    Ok((vectors, (0..n).map(|j| v[n - 1 - j].max(0.0)).collect()))
}

fn wide(w: &Array2<f32>, gram: Option<&Gram>) -> Result<Spectrum> {
    let w64 = w.mapv(f64::from);
    let wh = match gram {
        Some(g) => g.apply(w.view()).mapv(f64::from),
        None => w64.clone(),
    };
    let c = dot(wh.view(), w64.t());
    let symmetric = (&c + &c.t()) * 0.5;
    let (u, energy) = eigen(&symmetric)?;
    let right = dot(u.t(), w64.view()).mapv(|v| v as f32);
    Ok(Spectrum { left: u.mapv(|v| v as f32), right, energy })
}

fn tall(w: &Array2<f32>, gram: Option<&Gram>) -> Result<Spectrum> {
    let n = w.ncols();
    let w64 = w.mapv(f64::from);
    let l = match gram {
        Some(g) => whitening(g, n),
        None => Array2::eye(n),
    };
    let wl = dot(w64.view(), l.view());
    let c = dot(wl.t(), wl.view());
    let symmetric = (&c + &c.t()) * 0.5;
    let (v, energy) = eigen(&symmetric)?;
    // A = W·L·V and B = Vᵀ·L⁻¹, so A·B keeps the directions of V.
    let left = dot(wl.view(), v.view()).mapv(|x| x as f32);
    let right = solve_right(&v, &l).mapv(|x| x as f32);
    Ok(Spectrum { left, right, energy })
}

fn whitening(g: &Gram, n: usize) -> Array2<f64> {
    let mut l = Array2::zeros((n, n));
    for (start, h) in g.blocks() {
        let part = lower(&h, 1e-6);
        for i in 0..h.nrows() {
            for j in 0..=i {
                l[[start + i, start + j]] = part[(i, j)];
            }
        }
    }
    l
}

/// Vᵀ·L⁻¹ for lower triangular L.
pub fn solve_right(v: &Array2<f64>, l: &Array2<f64>) -> Array2<f64> {
    let n = l.nrows();
    // X·L = Vᵀ is Lᵀ·Xᵀ = V: back substitution for all columns at once.
    let mut x = v.clone();
    for i in (0..n).rev() {
        let d = l[[i, i]];
        let row = x.row(i).mapv(|e| if d != 0.0 { e / d } else { 0.0 });
        for k in 0..i {
            let f = l[[i, k]];
            if f != 0.0 {
                let mut target = x.row_mut(k);
                target.scaled_add(-f, &row);
            }
        }
        x.row_mut(i).assign(&row);
    }
    x.reversed_axes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{correlated, matrix};

    #[test]
    fn error_is_the_tail_of_the_spectrum() {
        for (rows, cols) in [(12, 20), (30, 14)] {
            let (w, x) = (matrix(rows, cols, 1), correlated(400, cols, 2));
            let mut g = Gram::new(cols, 4096);
            g.push(x.view());
            for gram in [None, Some(&g)] {
                let s = Spectrum::of(&w, gram).unwrap();
                let total: f64 = s.energy.iter().sum();
                for rank in [1, 5, 10] {
                    let (a, b) = s.truncated(rank);
                    let delta = &w - &a.dot(&b);
                    let e = match gram {
                        Some(g) => g.error(delta.view()),
                        None => delta.iter().map(|&d| f64::from(d).powi(2)).sum(),
                    };
                    let tail: f64 = s.energy[rank..].iter().sum();
                    assert!((e - tail).abs() < 1e-4 * total, "{rows} {rank}: {e} {tail}");
                }
            }
        }
    }

    #[test]
    fn data_aware_is_never_worse_on_the_data() {
        let (w, x) = (matrix(16, 24, 3), correlated(300, 24, 4));
        let mut g = Gram::new(24, 4096);
        g.push(x.view());
        let error = |s: &Spectrum| {
            let (a, b) = s.truncated(6);
            g.error((&w - &a.dot(&b)).view())
        };
        let (aware, plain) = (Spectrum::of(&w, Some(&g)).unwrap(), Spectrum::of(&w, None).unwrap());
        assert!(error(&aware) < 0.8 * error(&plain));
    }
}
