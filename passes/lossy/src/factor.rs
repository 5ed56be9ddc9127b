//! Damped Cholesky factors of Gram matrices, in the two forms the methods need.

use crate::gram::Gram;
use faer::{Mat, Par, Side, linalg::triangular_inverse::invert_lower_triangular};
use ndarray::Array2;

/// Factors of one diagonal block, columns taken in `order`.
#[derive(Debug, Clone)]
pub struct Inverse {
    /// Position → column of the whole matrix.
    pub order: Vec<usize>,
    /// Upper triangular U with (H + λI)⁻¹ = Uᵀ·U in that order.
    pub upper: Array2<f32>,
}

/// In which order columns are decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Natural,
    /// Columns of large E\[x²\] first, while many others can still absorb their error ("act-order").
    Activity,
}

/// Inverse factors of all blocks; `damping` is λ as a share of the mean diagonal.
pub fn inverse(gram: &Gram, damping: f64, order: Order) -> Vec<Inverse> {
    gram.blocks().map(|(start, h)| block_inverse(start, &h, damping, order)).collect()
}

fn block_inverse(start: usize, h: &Array2<f64>, damping: f64, order: Order) -> Inverse {
    let n = h.nrows();
    let mut local: Vec<usize> = (0..n).collect();
    if order == Order::Activity {
        local.sort_by(|&a, &b| h[[b, b]].total_cmp(&h[[a, a]]).then(a.cmp(&b)));
    }
    // The inverse of the reversed matrix's lower factor, reversed back, is the upper factor of the inverse.
    let flipped: Vec<usize> = local.iter().rev().copied().collect();
    let lower = damped_lower(h, &flipped, damping);
    let mut inv = Mat::<f64>::zeros(n, n);
    invert_lower_triangular(inv.as_mut(), lower.as_ref(), Par::Seq);
    let upper =
        Array2::from_shape_fn((n, n), |(i, j)| if i <= j { inv[(n - 1 - i, n - 1 - j)] as f32 } else { 0.0 });
    Inverse { order: local.into_iter().map(|i| start + i).collect(), upper }
}

/// Lower L with H + λI = L·Lᵀ, rows and columns in `order`; λ grows until the factorisation succeeds.
fn damped_lower(h: &Array2<f64>, order: &[usize], damping: f64) -> Mat<f64> {
    let n = order.len();
    let mean = h.diag().iter().filter(|v| v.is_finite()).sum::<f64>() / n.max(1) as f64;
    let unit = if mean > 0.0 { mean } else { 1.0 };
    let mut lambda = damping.max(1e-9) * unit;
    for _ in 0..24 {
        let a = Mat::from_fn(n, n, |i, j| {
            let v = h[[order[i], order[j]]];
            (if v.is_finite() { v } else { 0.0 }) + if i == j { lambda } else { 0.0 }
        });
        if let Ok(l) = a.llt(Side::Lower) {
            return l.L().to_owned();
        }
        lambda *= 10.0;
    }
    Mat::from_fn(n, n, |i, j| if i == j { unit.sqrt() } else { 0.0 })
}

/// Whitening of one block: H + λI = L·Lᵀ with columns in natural order.
pub fn lower(h: &Array2<f64>, damping: f64) -> Mat<f64> {
    let order: Vec<usize> = (0..h.nrows()).collect();
    damped_lower(h, &order, damping)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::correlated;

    #[test]
    fn upper_factor_inverts_the_damped_gram() {
        let x = correlated(300, 12, 5);
        let mut g = Gram::new(12, 64);
        g.push(x.view());
        for order in [Order::Natural, Order::Activity] {
            let f = &inverse(&g, 0.01, order)[0];
            let (_, h) = g.blocks().next().unwrap();
            let lambda = 0.01 * h.diag().sum() / 12.0;
            let u = f.upper.mapv(f64::from);
            let inv = u.t().dot(&u);
            let a = Array2::from_shape_fn((12, 12), |(i, j)| {
                h[[f.order[i], f.order[j]]] + if i == j { lambda } else { 0.0 }
            });
            let unit = a.dot(&inv);
            for ((i, j), v) in unit.indexed_iter() {
                assert!((v - f64::from(u8::from(i == j))).abs() < 1e-3, "{order:?} {i} {j} {v}");
            }
        }
    }

    #[test]
    fn rank_deficient_input_is_damped_not_refused() {
        let g = Gram::new(6, 64);
        let f = inverse(&g, 0.0, Order::Natural);
        assert!(f[0].upper.iter().all(|v| v.is_finite()));
    }
}
