//! kernel: what becomes of the integer sums of a contraction: zero points out, scales in, the epilogue, and storing as
//! float32, as 8-bit integers or as they are.
//!
//! For activations `x` with zero point `zx` and weights `w` with zero points `zw` of each column, over K products,
//! `Σ (x − zx)(w − zw) = Σ x·w − zx·Σ(w − zw) − zw·Σ x`: a term of the column and one of row and column.

use crate::simd::{LANES, Simd};
use crate::tile::{Tile, store_rows};

/// How results are stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Store {
    /// The sums themselves.
    Sums,
    Float,
    /// `saturate(round_half_even(x / scale) + zero)` into `low..=high`.
    Bytes { scale: f32, zero: i32, low: i32, high: i32 },
}

/// Corrections and scales, one for each column and padded to whole vectors; resolved to pointers.
pub(crate) struct Integers {
    /// Subtracted from the sums of a column.
    pub offset: *const i32,
    /// Weight zero points, or null; then `row_sums` has one sum of the left operand for each result row.
    pub zero: *const i32,
    pub row_sums: *const i32,
    /// From integer sums to values.
    pub scale: *const f32,
    pub store: Store,
}

// SAFETY: the pointers are to slices that outlive the kernel call they are made for, and are only read.
unsafe impl Sync for Integers {}

impl Integers {
    /// The same for the columns from `col` on; `col` may be any, loads are unaligned.
    pub(crate) fn starting_at_column(&self, col: usize) -> Integers {
        let zero = if self.zero.is_null() { self.zero } else { self.zero.wrapping_add(col) };
        Integers { offset: self.offset.wrapping_add(col), zero, scale: self.scale.wrapping_add(col), ..*self }
    }

    /// Finishes and stores a tile.
    ///
    /// # Safety
    /// The columns and rows of the tile have their corrections, and the result's memory holds elements as `store` says.
    #[inline(always)]
    pub(crate) unsafe fn store<S: Simd, const R: usize, const V: usize>(
        &self,
        s: S,
        mut acc: [[S::I; V]; R],
        t: &Tile,
    ) {
        let place = &t.place;
        // SAFETY: the caller's contract.
        unsafe {
            for v in 0..V {
                let offset = s.load_i(self.offset.add(place.col + v * LANES));
                for r in 0..R {
                    acc[r][v] = s.sub_i(acc[r][v], offset);
                }
            }
            if !self.zero.is_null() {
                for v in 0..V {
                    let zero = s.load_i(self.zero.add(place.col + v * LANES));
                    for r in 0..R {
                        if r < place.live_rows {
                            let sum = s.splat_i(*self.row_sums.add(*place.out.add(r)));
                            acc[r][v] = s.sub_i(acc[r][v], s.mul_i(zero, sum));
                        }
                    }
                }
            }
            let mut f = [[s.splat(0.0); V]; R];
            if self.store == Store::Sums {
                for r in 0..R {
                    for v in 0..V {
                        f[r][v] = s.of_bits(acc[r][v]);
                    }
                }
                return store_rows(s, &f, t.c.wrapping_add(place.col), t.c_step, place);
            }
            for v in 0..V {
                let scale = s.load(self.scale.add(place.col + v * LANES));
                for r in 0..R {
                    f[r][v] = s.mul(s.to_f(acc[r][v]), scale);
                }
            }
            t.finish.sums(s, &mut f, place);
            match self.store {
                Store::Bytes { scale, zero, low, high } => {
                    let q = Quantizer::new(s, scale, zero, low, high);
                    for r in 0..R {
                        if r < place.live_rows {
                            let c = t.c.cast::<u8>().wrapping_add(place.col + *place.out.add(r) * t.c_step);
                            for v in 0..V {
                                let live = place.live_cols.saturating_sub(v * LANES).min(LANES);
                                s.store_bytes(c.wrapping_add(v * LANES), q.of(s, f[r][v]), live);
                            }
                        }
                    }
                }
                _ => store_rows(s, &f, t.c.wrapping_add(place.col), t.c_step, place),
            }
        }
    }
}

/// `QuantizeLinear` on vectors.
#[derive(Clone, Copy)]
pub(crate) struct Quantizer<S: Simd> {
    scale: S::F,
    low: S::F,
    high: S::F,
    zero: S::I,
}

impl<S: Simd> Quantizer<S> {
    #[inline(always)]
    pub(crate) fn new(s: S, scale: f32, zero: i32, low: i32, high: i32) -> Self {
        let bound = |x: i32| s.splat((x - zero) as f32);
        Quantizer { scale: s.splat(scale), low: bound(low), high: bound(high), zero: s.splat_i(zero) }
    }

    /// NaN gives the lowest value.
    #[inline(always)]
    pub(crate) fn of(self, s: S, x: S::F) -> S::I {
        let x = s.min(s.max(s.div(x, self.scale), self.low), self.high);
        s.add_i(s.to_i(s.round(x)), self.zero)
    }
}
