//! Rounding a layer group by group, with compensation where calibration allows it.

use crate::descent;
use crate::factor::Order;
use crate::gptq::{Policy, Rounded, compensate, nearest};
use crate::quant::Grid;
use crate::stats::Stats;
use ndarray::{Array2, s};

/// The policy of one group, whose rows start at `first`.
struct Shifted<'a> {
    first: usize,
    inner: &'a dyn Policy,
}

impl Policy for Shifted<'_> {
    fn round(&self, row: usize, col: usize, x: f32) -> (u8, f32) {
        self.inner.round(self.first + row, col, x)
    }
    fn together(&self) -> bool {
        self.inner.together()
    }
    fn column(&self, first: usize, col: usize, x: &[f32], out: &mut [(u8, f32)]) {
        self.inner.column(self.first + first, col, x, out);
    }
    fn zeros(&self, row: usize, cols: &[usize], cost: &[f32], zero: &mut [bool]) {
        self.inner.zeros(self.first + row, cols, cost, zero);
    }
}

/// Rounds `w`; with statistics, the better of compensated and nearest by measured error.
pub fn round(w: &Array2<f32>, stats: Option<&Stats>, order: Order, policy: &dyn Policy) -> Rounded {
    stats.map_or_else(|| nearest(w.view(), policy), |stats| measured(w, stats, order, policy).0)
}

/// As [`round`], and the error.
pub fn measured(w: &Array2<f32>, stats: &Stats, order: Order, policy: &dyn Policy) -> (Rounded, f64) {
    let of = |r: Rounded| {
        let error = stats.error(&(w - &r.values));
        (r, error)
    };
    let (compensated, plain) =
        rayon::join(|| of(swept(w, stats, order, policy)), || of(nearest(w.view(), policy)));
    if compensated.1 <= plain.1 { compensated } else { plain }
}

/// As [`round`] on a grid, with roundings and scales learned from the compensated start where that loses less.
pub fn learned(w: &Array2<f32>, stats: &Stats, grid: Grid) -> (Rounded, Grid) {
    let (start, error) = measured(w, stats, Order::Activity, &grid);
    let (end, scaled) = descent::codes_and_scales(w, stats, &grid, &start, false);
    if stats.error(&(w - &end.values)) < error { (end, scaled) } else { (start, grid) }
}

/// Rounds `w` by the compensating sweep alone.
pub fn swept(w: &Array2<f32>, stats: &Stats, order: Order, policy: &dyn Policy) -> Rounded {
    let factors = stats.factors(order);
    let per = w.nrows() / factors.len().max(1);
    let (mut codes, mut values) = (Array2::zeros(w.raw_dim()), Array2::zeros(w.raw_dim()));
    for (i, f) in factors.iter().enumerate() {
        let rows = s![i * per..(i + 1) * per, ..];
        let part = compensate(w.slice(rows), f, &Shifted { first: i * per, inner: policy });
        codes.slice_mut(rows).assign(&part.codes);
        values.slice_mut(rows).assign(&part.values);
    }
    Rounded { codes, values }
}
