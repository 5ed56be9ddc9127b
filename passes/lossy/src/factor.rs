//! Damped Cholesky factors of Gram matrices, in the two forms the methods need.

use crate::gram::Gram;
use faer::linalg::triangular_inverse::invert_lower_triangular;
use faer::linalg::triangular_solve::{solve_lower_triangular_in_place, solve_upper_triangular_in_place};
use faer::{Mat, Par, Side};
use ndarray::{Array2, ArrayView2};

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

/// Numbers that matrices are factored in.
trait Real: faer::traits::RealField + Copy {
    fn of(x: f64) -> Self;
    fn single(self) -> f32;
}

impl Real for f64 {
    fn of(x: f64) -> f64 {
        x
    }
    fn single(self) -> f32 {
        self as f32
    }
}

impl Real for f32 {
    fn of(x: f64) -> f32 {
        x as f32
    }
    fn single(self) -> f32 {
        self
    }
}

/// Damping from which single precision is enough: errors grow with the largest eigenvalue over λ.
const SINGLE: f64 = 0.02;

/// Inverse factors of all blocks; `damping` is λ as a share of the mean diagonal.
pub fn inverse(gram: &Gram, damping: f64, order: Order) -> Vec<Inverse> {
    let one = |(start, sum, scale): (usize, &Array2<f32>, f64)| {
        let n = sum.nrows();
        let mut local: Vec<usize> = (0..n).collect();
        if order == Order::Activity {
            local.sort_by(|&a, &b| sum[[b, b]].total_cmp(&sum[[a, a]]).then(a.cmp(&b)));
        }
        // The inverse of the reversed matrix's lower factor, reversed back, is the upper factor of the inverse.
        let flipped: Vec<usize> = local.iter().rev().copied().collect();
        let unit = unit(sum);
        let entry = |i: usize, j: usize| f64::from(sum[[flipped[i], flipped[j]]]) / unit;
        let upper = match single(damping).then(|| damped::<f32>(n, &entry, damping)).flatten() {
            Some(l) => upper(&l, unit * scale),
            None => upper(&whatever(n, &entry, damping), unit * scale),
        };
        Inverse { order: local.into_iter().map(|i| start + i).collect(), upper }
    };
    gram.sums().map(one).collect()
}

/// `B·(H + λI)⁻¹` for one block of H, the sum times `scale`.
pub fn solve(sum: &Array2<f32>, scale: f64, damping: f64, b: ArrayView2<f32>) -> Array2<f32> {
    let (n, unit) = (sum.nrows(), unit(sum));
    let entry = |i: usize, j: usize| f64::from(sum[[i, j]]) / unit;
    match single(damping).then(|| damped::<f32>(n, &entry, damping)).flatten() {
        Some(l) => solved(&l, unit * scale, b),
        None => solved(&whatever(n, &entry, damping), unit * scale, b),
    }
}

fn single(damping: f64) -> bool {
    damping >= SINGLE
}

/// The mean of the diagonal; one where all inputs are zero.
fn unit(sum: &Array2<f32>) -> f64 {
    let n = sum.nrows().max(1) as f64;
    let mean = sum.diag().iter().filter(|v| v.is_finite()).map(|&v| f64::from(v)).sum::<f64>() / n;
    if mean > 0.0 { mean } else { 1.0 }
}

/// L⁻¹ reversed: the upper factor of the inverse of `unit` times a matrix whose reversed lower factor this is.
fn upper<T: Real>(lower: &Mat<T>, unit: f64) -> Array2<f32> {
    const TILE: usize = 16;
    let n = lower.nrows();
    let mut inv = Mat::<T>::zeros(n, n);
    invert_lower_triangular(inv.as_mut(), lower.as_ref(), Par::Seq);
    let factor = (1.0 / unit.sqrt()) as f32;
    let mut upper = Array2::<f32>::zeros((n, n));
    // Tiles, as one side is stored by rows and the other by columns.
    for (top, left) in (0..n).step_by(TILE).flat_map(|t| (t..n).step_by(TILE).map(move |l| (t, l))) {
        for j in left..(left + TILE).min(n) {
            for i in top..(top + TILE).min(j + 1) {
                upper[[i, j]] = inv[(n - 1 - i, n - 1 - j)].single() * factor;
            }
        }
    }
    upper
}

/// `B·(L·Lᵀ·unit)⁻¹`.
fn solved<T: Real>(lower: &Mat<T>, unit: f64, b: ArrayView2<f32>) -> Array2<f32> {
    let mut x = Mat::<T>::from_fn(b.ncols(), b.nrows(), |i, j| T::of(f64::from(b[[j, i]])));
    solve_lower_triangular_in_place(lower.as_ref(), x.as_mut(), Par::Seq);
    solve_upper_triangular_in_place(lower.as_ref().transpose(), x.as_mut(), Par::Seq);
    let factor = (1.0 / unit) as f32;
    Array2::from_shape_fn(b.raw_dim(), |(i, j)| x[(j, i)].single() * factor)
}

/// Lower L with A + λI = L·Lᵀ for A of a mean diagonal of one; λ grows until the factorisation succeeds.
fn whatever(n: usize, entry: &dyn Fn(usize, usize) -> f64, damping: f64) -> Mat<f64> {
    let mut lambda = damping.max(1e-9);
    for _ in 0..24 {
        if let Some(l) = damped::<f64>(n, entry, lambda) {
            return l;
        }
        lambda *= 10.0;
    }
    Mat::from_fn(n, n, |i, j| if i == j { 1.0 } else { 0.0 })
}

fn damped<T: Real>(n: usize, entry: &dyn Fn(usize, usize) -> f64, lambda: f64) -> Option<Mat<T>> {
    // The other half is not read.
    let a = Mat::<T>::from_fn(n, n, |i, j| {
        let v = if j <= i { entry(i, j) } else { 0.0 };
        T::of((if v.is_finite() { v } else { 0.0 }) + if i == j { lambda } else { 0.0 })
    });
    Some(a.llt(Side::Lower).ok()?.L().to_owned())
}

/// Whitening of one block: H + λI = L·Lᵀ with columns in natural order.
pub fn lower(h: &Array2<f64>, damping: f64) -> Mat<f64> {
    let n = h.nrows();
    let mean = h.diag().iter().filter(|v| v.is_finite()).sum::<f64>() / n.max(1) as f64;
    let unit = if mean > 0.0 { mean } else { 1.0 };
    let mut l = whatever(n, &|i, j| h[[i, j]] / unit, damping);
    l.col_iter_mut().for_each(|c| c.iter_mut().for_each(|v| *v *= unit.sqrt()));
    l
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
