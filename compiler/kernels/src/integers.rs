//! kernel: what becomes of the integer sums of a contraction: zero points out, scales in, the epilogue, and storing as
//! float32, as 8-bit integers or as they are.
//!
//! For activations `x` with zero point `zx` and weights `w` with zero points `zw` of each column, over K products,
//! `Σ (x − zx)(w − zw) = Σ x·w − zx·Σ(w − zw) − zw·Σ x`: a term of the column and one of row and column.

use crate::epilogue::Activation;
use crate::simd::{LANES, Simd};
use crate::tile::{Place, Tile, store_rows};

/// How results are stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Store {
    /// The sums themselves.
    Sums,
    Float,
    /// `saturate(round_half_even(x / scale) + zero)` into `low..=high`.
    Bytes {
        scale: f32,
        zero: i32,
        low: i32,
        high: i32,
    },
}

impl Store {
    /// The activation that remains to be done: quantizing cuts at its own bounds, and where an activation's bounds are these
    /// or lie outside, rounding being monotone, it changes nothing.
    pub(crate) fn remains(self, act: Activation) -> Activation {
        let Store::Bytes { scale, zero, low, high } = self else { return act };
        let code = |x: f32| (x / scale).round_ties_even() + zero as f32;
        let (lo, hi) = match act {
            Activation::Relu => (0.0, f32::INFINITY),
            Activation::Clip { lo, hi } => (lo, hi),
            _ => return act,
        };
        // A scale that is not positive turns the order around or has none.
        if scale > 0.0 && code(lo) <= low as f32 && code(hi) >= high as f32 { Activation::None } else { act }
    }
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

    /// Where the sums of columns from `col` on start.
    ///
    /// # Safety
    /// The columns have their corrections.
    #[inline(always)]
    pub(crate) unsafe fn start<S: Simd, const V: usize>(&self, s: S, col: usize) -> [S::I; V] {
        let mut start = [s.splat_i(0); V];
        for v in 0..V {
            // SAFETY: the caller's contract.
            start[v] = s.sub_i(start[v], unsafe { s.load_i(self.offset.add(col + v * LANES)) });
        }
        start
    }

    /// Finishes and stores a tile whose sums began at [`Integers::start`].
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
                Store::Bytes { .. } => Self::bytes(s, self.store, &f, t.c.cast(), t.c_step, place),
                _ => store_rows(s, &f, t.c.wrapping_add(place.col), t.c_step, place),
            }
        }
    }

    /// Quantizes and stores a tile of values.
    ///
    /// # Safety
    /// `y + out[r] · step + col` is valid for writing the live columns of each live row.
    #[inline(always)]
    pub(crate) unsafe fn bytes<S: Simd, const R: usize, const V: usize>(
        s: S,
        store: Store,
        f: &[[S::F; V]; R],
        y: *mut u8,
        step: usize,
        place: &Place,
    ) {
        let Store::Bytes { scale, zero, low, high } = store else { return };
        let q = Quantizer::new(s, scale, zero, low, high);
        for r in 0..R {
            if r < place.live_rows {
                // SAFETY: the caller's contract.
                unsafe {
                    let y = y.wrapping_add(place.col + *place.out.add(r) * step);
                    for v in 0..V {
                        let live = place.live_cols.saturating_sub(v * LANES).min(LANES);
                        s.store_bytes(y.wrapping_add(v * LANES), q.of(s, f[r][v]), live);
                    }
                }
            }
        }
    }
}

/// `QuantizeLinear` on vectors: the quotient is rounded from a product with the reciprocal, and worked out again by division
/// where that comes near a tie, so the result is always that of the division.
#[derive(Clone, Copy)]
pub(crate) struct Quantizer<S: Simd> {
    scale: S::F,
    inverse: S::F,
    /// Distance from a tie that the product may be wrong by; negative where it is exact.
    doubt: S::F,
    low: S::F,
    high: S::F,
    zero: S::I,
}

impl<S: Simd> Quantizer<S> {
    #[inline(always)]
    pub(crate) fn new(s: S, scale: f32, zero: i32, low: i32, high: i32) -> Self {
        let inverse = 1.0 / scale;
        // A power of two divides exactly; beyond these bounds a reciprocal is not to be trusted at all.
        let exact = scale.to_bits() & 0x7f_ffff == 0;
        let doubt = match inverse.is_normal() && scale.is_normal() {
            true if exact => -1.0,
            true => 1e-4,
            false => 2.0,
        };
        Quantizer {
            scale: s.splat(scale),
            inverse: s.splat(inverse),
            doubt: s.splat(doubt),
            low: s.splat((low - zero) as f32),
            high: s.splat((high - zero) as f32),
            zero: s.splat_i(zero),
        }
    }

    /// NaN gives the lowest value.
    #[inline(always)]
    pub(crate) fn of(self, s: S, x: S::F) -> S::I {
        let v = s.min(s.max(s.mul(x, self.inverse), self.low), self.high);
        let mut nearest = s.round(v);
        // |v − nearest| is at most 1/2, and close to it only near a tie.
        let tie = s.sub(s.splat(0.5), s.abs(s.sub(v, nearest)));
        if s.any(s.lt(tie, self.doubt)) {
            nearest = s.round(s.min(s.max(s.div(x, self.scale), self.low), self.high));
        }
        s.add_i(s.to_i(nearest), self.zero)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::quantized;

    #[test]
    fn an_absorbed_activation_changes_nothing() {
        let acts = [
            Activation::Relu,
            Activation::Clip { lo: 0.0, hi: 6.0 },
            Activation::Clip { lo: -1.0, hi: 1.0 },
            Activation::Clip { lo: 0.3, hi: 5.9 },
            Activation::Tanh,
        ];
        let mut absorbed = 0;
        for act in acts {
            for (scale, zero, signed) in [
                (6.0 / 255.0, 0, false),
                (0.02, 0, false),
                (0.02, 3, false),
                (1.0 / 127.0, 0, true),
                (-0.1, 0, false),
            ] {
                let (low, high) = if signed { (-128, 127) } else { (0, 255) };
                if (Store::Bytes { scale, zero, low, high }).remains(act) == act {
                    continue;
                }
                absorbed += 1;
                let (lo, hi) = match act {
                    Activation::Clip { lo, hi } => (lo, hi),
                    _ => (0.0, f32::INFINITY),
                };
                for x in (-2000..2000).map(|i| i as f32 * 0.005) {
                    let cut = x.max(lo).min(hi);
                    assert_eq!(
                        quantized(cut, scale, zero, signed),
                        quantized(x, scale, zero, signed),
                        "{act:?} {x} {scale}"
                    );
                }
            }
        }
        assert!(absorbed >= 3, "{absorbed}");
        assert_eq!(Store::Float.remains(Activation::Relu), Activation::Relu);
    }
}
