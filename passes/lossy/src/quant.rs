//! Integer grids for weights: scales per row or per block of columns, chosen by least weighted error.

use crate::gptq::Policy;
use half::f16;
use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;

/// Symmetric integer grid: value = scale(row, block) × code × factor(column), codes in `-2^(bits-1) ..= 2^(bits-1)-1`.
#[derive(Debug, Clone)]
pub struct Grid {
    pub bits: u32,
    /// Columns that share a scale; at least the number of columns when a row has one scale.
    pub block: usize,
    /// rows × ceil(cols / block)
    pub scales: Array2<f32>,
    /// Scales are stored as float16.
    pub half: bool,
    /// A factor per column; empty where all are one.
    pub columns: Vec<f32>,
}

impl Grid {
    pub fn low(&self) -> f32 {
        -((1u32 << (self.bits - 1)) as f32)
    }
    pub fn high(&self) -> f32 {
        ((1u32 << (self.bits - 1)) - 1) as f32
    }
    /// The factor of a column.
    pub fn column(&self, col: usize) -> f32 {
        self.columns.get(col).copied().unwrap_or(1.0)
    }
    /// What the stored code means: `code - offset`.
    pub fn offset(&self) -> i32 {
        1 << (self.bits - 1)
    }
}

impl Policy for Grid {
    fn round(&self, row: usize, col: usize, x: f32) -> (u8, f32) {
        let (s, c) = (self.scales[[row, col / self.block]], self.column(col));
        let q = if s > 0.0 { round_within(x / (s * c), self.low(), self.high()) } else { 0.0 };
        // NaN casts to 0, which decodes to the lowest code; a NaN weight is refused before it gets here.
        ((q + self.offset() as f32) as u8, q * s * c)
    }
}

/// Rounds scales so that they are what the file will hold.
pub fn stored_scale(s: f32, half: bool) -> f32 {
    if half { f16::from_f32(s).to_f32() } else { s }
}

/// True if every scale keeps at least ten significant bits as float16.
pub fn fits_half(scales: &Array2<f32>) -> bool {
    scales.iter().all(|&s| s == 0.0 || (6.2e-5..6.0e4).contains(&s))
}

/// A grid whose scales minimise `Σ d_j (w − ŵ)²` per row and block, `d` the diagonal of the input's Gram matrix.
pub fn grid(w: ArrayView2<f32>, bits: u32, block: usize, diagonal: Option<&[f64]>, half: bool) -> Grid {
    let block = block.clamp(1, w.ncols().max(1));
    let blocks = w.ncols().div_ceil(block).max(1);
    let rows: Vec<Vec<f32>> = (0..w.nrows())
        .into_par_iter()
        .map(|r| {
            let row: Vec<f32> = w.row(r).to_vec();
            (0..blocks)
                .map(|b| {
                    let (start, end) = (b * block, ((b + 1) * block).min(row.len()));
                    let d = diagonal.map(|d| &d[start..end]);
                    stored_scale(scale(&row[start..end], d, bits), half)
                })
                .collect()
        })
        .collect();
    let scales = Array2::from_shape_fn((w.nrows(), blocks), |(r, b)| rows[r][b]);
    Grid { bits, block, scales, half, columns: Vec::new() }
}

/// Ratios to the scale that just covers the largest weight; few bits gain from clipping, many do not.
fn shrinks(bits: u32) -> &'static [f32] {
    match bits {
        0..=2 => &[1.0, 0.93, 0.86, 0.8, 0.73, 0.66, 0.6, 0.53, 0.46, 0.4, 0.34, 0.28],
        3 => &[1.0, 0.94, 0.88, 0.82, 0.76, 0.7, 0.64, 0.58, 0.52, 0.46],
        4 => &[1.06, 1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.64, 0.58],
        5 | 6 => &[1.02, 1.0, 0.95, 0.9, 0.84, 0.78],
        _ => &[1.0, 0.97],
    }
}

/// The scale of least weighted squared error among shrunken ranges.
pub fn scale(w: &[f32], weights: Option<&[f64]>, bits: u32) -> f32 {
    let high = ((1u32 << (bits - 1)) - 1).max(1) as f32;
    let low = -((1u32 << (bits - 1)) as f32);
    let top = w.iter().fold(0f32, |m, &x| m.max(x.abs()));
    if top == 0.0 || !top.is_finite() {
        return 0.0;
    }
    let error = |s: f32| -> f64 {
        let inv = 1.0 / s;
        let one = |x: f32| {
            let d = x - round_within(x * inv, low, high) * s;
            f64::from(d * d)
        };
        match weights {
            None => lanes(w.len(), |i| one(w[i])),
            Some(d) => lanes(w.len().min(d.len()), |i| one(w[i]) * d[i].max(1e-30)),
        }
    };
    let mut best = (f64::MAX, top / high);
    for &r in shrinks(bits) {
        let s = top / (high + 0.5) * r * 1.02;
        let e = error(s);
        if e < best.0 {
            best = (e, s);
        }
    }
    best.1
}

/// The nearest integer within integer bounds below 2^22, ties to even, in arithmetic that every vector unit has.
fn round_within(x: f32, low: f32, high: f32) -> f32 {
    /// Above this, neighbouring floats differ by one.
    const UNIT: f32 = 12_582_912.0;
    (x.clamp(low, high) + UNIT) - UNIT
}

/// Sum of `f(0..n)` in eight interleaved parts, which fit vector registers.
fn lanes(n: usize, f: impl Fn(usize) -> f64) -> f64 {
    let mut sums = [0f64; 8];
    for start in (0..n - n % 8).step_by(8) {
        for (l, s) in sums.iter_mut().enumerate() {
            *s += f(start + l);
        }
    }
    let rest: f64 = (n - n % 8..n).map(&f).sum();
    sums.iter().sum::<f64>() + rest
}

/// The least-squares scale of each row for given codes: `s = (w·H·qᵀ)/(q·H·qᵀ)`; `hq` is rows × cols of `H·q`.
pub fn refit(w: ArrayView2<f32>, q: &Array2<f32>, hq: &Array2<f32>, old: &[f32]) -> Vec<f32> {
    (0..w.nrows())
        .map(|r| {
            let dot = |a: ndarray::ArrayView1<f32>| -> f64 {
                a.iter().zip(hq.row(r)).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum()
            };
            let (num, den) = (dot(w.row(r)), dot(q.row(r)));
            let s = (num / den) as f32;
            if den > 0.0 && s.is_finite() && s > 0.5 * old[r] && s < 2.0 * old[r] { s } else { old[r] }
        })
        .collect()
}

/// Asymmetric 8-bit parameters (scale, zero point) that cover `lo..=hi` and represent zero exactly.
pub fn affine_u8(lo: f32, hi: f32) -> (f32, u8) {
    let (lo, hi) = (lo.min(0.0), hi.max(0.0));
    let s = (hi - lo) / 255.0;
    if s <= 0.0 || !s.is_finite() {
        return (1.0, 0);
    }
    (s, (-lo / s).round().clamp(0.0, 255.0) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gptq::nearest;
    use crate::testing::matrix;

    fn sqnr(w: &Array2<f32>, v: &Array2<f32>) -> f64 {
        let p: f64 = w.iter().map(|&x| f64::from(x).powi(2)).sum();
        let e: f64 = w.iter().zip(v).map(|(&a, &b)| f64::from(a - b).powi(2)).sum();
        10.0 * (p / e).log10()
    }

    #[test]
    fn each_bit_is_worth_about_six_decibels() {
        let w = matrix(16, 256, 3);
        let at = |bits| sqnr(&w, &nearest(w.view(), &grid(w.view(), bits, 256, None, false)).values);
        let db: Vec<f64> = (2..=8).map(at).collect();
        assert!(db[2] > 17.5 && db[6] > 39.0, "{db:?}");
        assert!(db.windows(2).all(|p| p[1] > p[0] + 3.5), "{db:?}");
    }

    #[test]
    fn rounding_is_to_the_nearest_even_integer_within_bounds() {
        for i in -2000..2000 {
            let x = i as f32 / 8.0;
            assert_eq!(round_within(x, -128.0, 127.0), x.round_ties_even().clamp(-128.0, 127.0), "{x}");
        }
        assert_eq!(round_within(f32::INFINITY, -8.0, 7.0), 7.0);
        assert_eq!(lanes(19, |i| i as f64), 171.0);
    }

    #[test]
    fn smaller_blocks_are_never_worse() {
        let mut w = matrix(8, 128, 3);
        w.slice_mut(ndarray::s![.., ..32]).mapv_inplace(|x| x * 10.0);
        let at = |block| sqnr(&w, &nearest(w.view(), &grid(w.view(), 4, block, None, true)).values);
        assert!(at(32) > at(128) + 0.5);
    }

    #[test]
    fn empty_and_zero_rows() {
        assert_eq!(scale(&[0.0; 4], None, 4), 0.0);
        let w = Array2::<f32>::zeros((2, 3));
        assert_eq!(nearest(w.view(), &grid(w.view(), 8, 3, None, false)).values, w);
        assert_eq!(affine_u8(0.0, 0.0), (1.0, 0));
        assert!((127..=128).contains(&affine_u8(-1.0, 1.0).1));
    }
}
