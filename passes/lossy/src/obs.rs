//! Pruning with compensation (Optimal Brain Surgeon; SparseGPT, Frantar & Alistarh, arXiv 2301.00774).
//!
//! A weight is removed where `w²/[H⁻¹]` is least and the survivors absorb its error. Policies for the sweep of `gptq`.

use crate::gptq::Policy;

/// Which weights go.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pattern {
    /// This share of each row, chosen panel by panel.
    Unstructured(f32),
    /// Keep `n` of every `m` consecutive columns (columns must be swept in natural order).
    NofM(usize, usize),
}

/// Zeroes by pattern; survivors are rounded by `inner`, or kept as they are.
pub struct Prune<'a> {
    pub pattern: Pattern,
    pub inner: Option<&'a dyn Policy>,
}

impl Policy for Prune<'_> {
    fn round(&self, row: usize, col: usize, x: f32) -> (u8, f32) {
        match self.inner {
            _ if x == 0.0 => (self.inner.map_or(0, |p| p.round(row, col, 0.0).0), 0.0),
            Some(p) => p.round(row, col, x),
            None => (1, x),
        }
    }

    fn zeros(&self, _row: usize, cols: &[usize], cost: &[f32], zero: &mut [bool]) {
        match self.pattern {
            Pattern::Unstructured(share) => {
                let k = (f64::from(share) * cost.len() as f64).round() as usize;
                mark_least(0, cost, k, zero);
            }
            Pattern::NofM(n, m) => {
                let mut start = 0;
                while start < cols.len() {
                    let group = cols[start] / m.max(1);
                    let end =
                        (start..cols.len()).find(|&i| cols[i] / m.max(1) != group).unwrap_or(cols.len());
                    mark_least(start, &cost[start..end], (end - start).saturating_sub(n), zero);
                    start = end;
                }
            }
        }
    }
}

fn mark_least(start: usize, cost: &[f32], k: usize, zero: &mut [bool]) {
    let mut order: Vec<usize> = (0..cost.len()).collect();
    order.sort_by(|&a, &b| cost[a].total_cmp(&cost[b]).then(a.cmp(&b)));
    order.iter().take(k).for_each(|&i| zero[start + i] = true);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::factor::{Order, inverse};
    use crate::gptq::compensate;
    use crate::gram::Gram;
    use crate::testing::{correlated, matrix};

    fn run(pattern: Pattern) -> (f64, f64, ndarray::Array2<f32>) {
        let (x, w) = (correlated(600, 128, 7), matrix(32, 128, 8));
        let mut g = Gram::new(128, 4096);
        g.push(x.view());
        let p = compensate(w.view(), &inverse(&g, 0.01, Order::Natural), &Prune { pattern, inner: None });
        // The same mask without compensation.
        let masked =
            ndarray::Zip::from(&w).and(&p.values).map_collect(|&a, &b| if b == 0.0 { 0.0 } else { a });
        (g.error((&w - &p.values).view()), g.error((&w - &masked).view()), p.values)
    }

    #[test]
    fn half_the_weights_go_and_the_rest_absorb_the_error() {
        let (with, without, v) = run(Pattern::Unstructured(0.5));
        let zeros = v.iter().filter(|x| **x == 0.0).count();
        assert_eq!(zeros, 32 * 64);
        assert!(with < 0.5 * without, "{with} {without}");
    }

    #[test]
    fn two_of_four() {
        let (with, without, v) = run(Pattern::NofM(2, 4));
        for row in v.rows() {
            for g in row.as_slice().unwrap().chunks(4) {
                assert!(g.iter().filter(|x| **x != 0.0).count() <= 2);
            }
        }
        assert!(with < without);
    }
}
