//! kernel: `QuantizeLinear` of vectors, by one scale or by one for each column.

mod rows;

pub(crate) use rows::Piece;

use crate::dispatch::Tier;
use crate::integers::Codes;
use crate::simd::{LANES, Simd, mapped, tiered};

/// What a quantization to 8 bits by one scale can tell apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grid {
    pub scale: f32,
    pub zero: i32,
    /// Of `i8`, not `u8`.
    pub signed: bool,
}

crate::fields! { Grid { scale, zero, signed } }

/// Makes of values what quantization and dequantization leave of them.
pub(crate) fn to_grid(tier: Tier, grid: Grid, x: &mut [f32]) {
    // SAFETY: the slice holds that many elements.
    unsafe { snap(tier, grid, x.as_mut_ptr(), x.len()) }
}

tiered! {
    /// # Safety
    /// `x` is valid for reading and writing `n` elements.
    unsafe fn snap(s: S; grid: Grid, x: *mut f32, n: usize) {
        let (low, high) = if grid.signed { (-128, 127) } else { (0, 255) };
        let q = Quantizer::new(s, grid.scale, grid.zero, low, high);
        let mut i = 0;
        while i + BLOCK <= n {
            let y = q.snap(s, four(s, x.add(i), BLOCK));
            for v in 0..4 {
                s.store(x.add(i + v * LANES), y[v]);
            }
            i += BLOCK;
        }
        while i < n {
            let [y] = q.snap(s, [s.load_up_to(x.add(i), n - i)]);
            s.store_up_to(x.add(i), y, n - i);
            i += LANES;
        }
    }
}

/// The distance from a whole number up to which a product with the reciprocal of `scale` rounds as the quotient does.
fn certain(scale: f32) -> f32 {
    // A power of two divides exactly; beyond these bounds a reciprocal is not to be trusted at all.
    let exact = scale.to_bits() & 0x7f_ffff == 0;
    match (1.0 / scale).is_normal() && scale.is_normal() {
        true if exact => 1.0,
        true => 0.5 - 1e-4,
        false => -1.0,
    }
}

/// `QuantizeLinear` on vectors: the quotient is rounded from a product with the reciprocal, and worked out again by division
/// where that comes near a tie, so the result is always that of the division.
#[derive(Clone, Copy)]
pub(crate) struct Quantizer<S: Simd> {
    scale: S::F,
    inverse: S::F,
    /// The distance from a whole number up to which the product is to be trusted: all of them where it is exact.
    certain: S::F,
    low: S::F,
    high: S::F,
    zero: S::I,
    /// What to cut at so that quotients fit into integers.
    most: S::F,
    codes: Codes,
}

impl<S: Simd> Quantizer<S> {
    #[inline(always)]
    pub(crate) fn new(s: S, scale: f32, zero: i32, low: i32, high: i32) -> Self {
        // Above the highest quotient that fits lies the lowest for a negative scale.
        let certain = if scale < 0.0 { -1.0 } else { certain(scale) };
        Quantizer {
            scale: s.splat(scale),
            inverse: s.splat(1.0 / scale),
            certain: s.splat(certain),
            low: s.splat((low - zero) as f32),
            high: s.splat((high - zero) as f32),
            zero: s.splat_i(zero),
            most: s.splat(scale * 1e9),
            codes: Codes { zero: (zero - low.min(0)) as i16, ..Codes::plain(-low.min(0) as i16) },
        }
    }

    /// Stores the codes of the first `n` of four vectors.
    ///
    /// # Safety
    /// `y` is valid for writing `min(n, 64)` bytes.
    #[inline(always)]
    pub(crate) unsafe fn store(self, s: S, y: *mut u8, x: [S::F; 4], n: usize) {
        // SAFETY: the caller's contract.
        unsafe { s.store_codes(y, self.whole(s, x), self.codes, n) }
    }

    /// The same of all elements, which are in the order of [`Simd::spread`].
    ///
    /// # Safety
    /// `y` is valid for writing 64 bytes.
    #[inline(always)]
    pub(crate) unsafe fn store_spread(self, s: S, y: *mut u8, x: [S::F; 4]) {
        // SAFETY: the caller's contract.
        unsafe { s.store_codes_spread(y, self.whole(s, x), self.codes) }
    }

    /// Whole multiples of the scale, to be cut to codes. Quotients of more than 512 are cut, wherever the zero point is, and
    /// those below are certain where the product is.
    #[inline(always)]
    fn whole(self, s: S, x: [S::F; 4]) -> [S::I; 4] {
        let mut whole = [self.zero; 4];
        let mut farthest = s.splat(0.0);
        for v in 0..4 {
            // Beyond 32 bits there is no whole number; the lowest stands for those below.
            let q = s.mul(s.min(self.most, x[v]), self.inverse);
            whole[v] = s.to_i(q);
            farthest = s.farther(farthest, q);
        }
        if s.any(s.lt(self.certain, farthest)) {
            for v in 0..4 {
                whole[v] = s.to_i(s.min(s.max(s.div(x[v], self.scale), self.low), self.high));
            }
        }
        whole
    }

    /// NaN gives the lowest value.
    #[inline(always)]
    pub(crate) fn of(self, s: S, x: S::F) -> S::I {
        let [y] = self.all(s, [x]);
        y
    }

    /// The same of several vectors.
    #[inline(always)]
    pub(crate) fn all<const V: usize>(self, s: S, x: [S::F; V]) -> [S::I; V] {
        mapped(self.nearest(s, x), |n| s.add_i(s.to_i(n), self.zero))
    }

    /// Whole multiples of the scale, zero points not added.
    #[inline(always)]
    pub(crate) fn nearest<const V: usize>(self, s: S, x: [S::F; V]) -> [S::F; V] {
        let mut nearest = x;
        let mut most = s.splat(0.0);
        for v in 0..V {
            let y = s.min(s.max(s.mul(x[v], self.inverse), self.low), self.high);
            nearest[v] = s.round(y);
            // At most 1/2, and close to it only near a tie.
            most = s.max(most, s.abs(s.sub(y, nearest[v])));
        }
        if s.any(s.lt(self.certain, most)) {
            for v in 0..V {
                nearest[v] = s.round(s.min(s.max(s.div(x[v], self.scale), self.low), self.high));
            }
        }
        nearest
    }

    /// What quantization and dequantization leave of values.
    #[inline(always)]
    pub(crate) fn snap<const V: usize>(self, s: S, x: [S::F; V]) -> [S::F; V] {
        // Minus zero comes back as zero.
        mapped(self.nearest(s, x), |n| s.mul(s.add(n, s.splat(0.0)), self.scale))
    }
}

/// Bytes of the columns of a matrix: a scale and a zero point for each column.
pub(crate) struct ByColumn {
    scale: Vec<f32>,
    inverse: Vec<f32>,
    certain: Vec<f32>,
    zero: Vec<f32>,
    low: f32,
    high: f32,
}

impl ByColumn {
    /// As many zero points as scales.
    pub(crate) fn new(scale: Vec<f32>, zero: Vec<i32>, low: i32, high: i32) -> ByColumn {
        debug_assert_eq!(scale.len(), zero.len());
        let inverse = scale.iter().map(|s| 1.0 / s).collect();
        let certain = scale.iter().map(|&s| certain(s)).collect();
        let zero = zero.into_iter().map(|z| z as f32).collect();
        ByColumn { scale, inverse, certain, zero, low: low as f32, high: high as f32 }
    }

    /// Quantizes a piece of a row that starts at column `col`.
    ///
    /// # Safety
    /// The `n` columns from `col` on have scales; `x` is valid for reading and `y` for writing `n` elements.
    pub(crate) unsafe fn row(&self, tier: Tier, (x, y): (*const f32, *mut u8), n: usize, col: usize) {
        debug_assert!(col + n <= self.scale.len());
        // SAFETY: passed on.
        unsafe { quotients(tier, self, x, y, n, col) }
    }
}

/// Elements of the vectors that are stored together.
const BLOCK: usize = 4 * LANES;

/// Stores the bytes of a piece of `n` columns.
///
/// # Safety
/// `y` is valid for writing `n` elements; the rest is the contract of [`ByColumn::row`].
#[inline(always)]
unsafe fn stored<S: Simd>(s: S, y: *mut u8, n: usize, rounding: Quotients) {
    let codes = Codes::plain(if rounding.by.low < 0.0 { 128 } else { 0 });
    let mut i = 0;
    // SAFETY: the caller's contract.
    unsafe {
        // Without the questions that a tail asks for each vector.
        while i + BLOCK <= n {
            s.store_codes(y.add(i), rounding.whole(s, i, BLOCK), codes, BLOCK);
            i += BLOCK;
        }
        if i < n {
            s.store_codes(y.add(i), rounding.whole(s, i, n - i), codes, n - i);
        }
    }
}

/// Four vectors, zero behind the first `left` elements.
///
/// # Safety
/// `p` is valid for reading `min(left, 64)` elements.
#[inline(always)]
unsafe fn four<S: Simd>(s: S, p: *const f32, left: usize) -> [S::F; 4] {
    let mut vectors = [s.splat(0.0); 4];
    for (v, x) in vectors.iter_mut().enumerate() {
        // SAFETY: the lanes below `left`.
        *x = unsafe { s.load_up_to(p.wrapping_add(v * LANES), left.saturating_sub(v * LANES)) };
    }
    vectors
}

struct Quotients<'a> {
    by: &'a ByColumn,
    x: *const f32,
    col: usize,
}

impl Quotients<'_> {
    /// Whole numbers of four vectors, of which `left` elements matter, from column `i` of the piece on.
    ///
    /// # Safety
    /// `min(left, 64)` elements from there on are valid for reading, and have scales.
    #[inline(always)]
    unsafe fn whole<S: Simd>(&self, s: S, i: usize, left: usize) -> [S::I; 4] {
        let by = self.by;
        let (low, high, none) = (s.splat(by.low), s.splat(by.high), s.splat(0.0));
        let at = |p: &[f32]| p.as_ptr().wrapping_add(self.col + i);
        // SAFETY: the caller's contract.
        let (x, inverse, certain, zero) = unsafe {
            (
                four(s, self.x.wrapping_add(i), left),
                four(s, at(&by.inverse), left),
                four(s, at(&by.certain), left),
                four(s, at(&by.zero), left),
            )
        };
        let cut = |x: S::F, zero: S::F| s.min(s.max(x, s.sub(low, zero)), s.sub(high, zero));
        let mut whole = [s.splat_i(0); 4];
        let mut doubt = none;
        for v in 0..4 {
            let q = cut(s.mul(x[v], inverse[v]), zero[v]);
            whole[v] = s.to_i(q);
            doubt = s.max(doubt, s.sub(s.abs(s.sub(q, s.to_f(whole[v]))), certain[v]));
        }
        if s.any(s.lt(none, doubt)) {
            // SAFETY: as above.
            let scale = unsafe { four(s, at(&by.scale), left) };
            for v in 0..4 {
                whole[v] = s.to_i(cut(s.div(x[v], scale[v]), zero[v]));
            }
        }
        for v in 0..4 {
            whole[v] = s.add_i(whole[v], s.to_i(zero[v]));
        }
        whole
    }
}

tiered! {
    /// # Safety
    /// As [`ByColumn::row`].
    unsafe fn quotients(s: S; by: &ByColumn, x: *const f32, y: *mut u8, n: usize, col: usize) {
        stored(s, y, n, Quotients { by, x, col });
    }
}
