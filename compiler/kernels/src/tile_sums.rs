//! kernel: what becomes of a tile of sums that lie in memory: `b` is their first row, `b_step` apart.

use crate::simd::{LANES, Simd};
use crate::tile::{Tile, store_rows};

/// The loop, compiled for each shape.
///
/// # Safety
/// As [`crate::tile::TileFn`]; the rows of sums are whole vectors, and `integers` is there.
#[inline(always)]
pub(crate) unsafe fn tile<S: Simd, const R: usize, const V: usize>(s: S, t: &Tile) {
    // SAFETY: the contract of `TileFn`.
    unsafe {
        let Some(integers) = t.integers else { return };
        let mut acc = [integers.start::<S, V>(s, t.place.col); R];
        for r in 0..R {
            for v in 0..V {
                let sum = s.bits(s.load(t.b.add(r * t.b_step + v * LANES)));
                acc[r][v] = s.add_i(acc[r][v], sum);
            }
        }
        integers.store(s, acc, t);
    }
}

/// Sums of floats.
pub(crate) mod floats {
    use super::*;

    /// # Safety
    /// As [`crate::tile::TileFn`]; the rows of sums are whole vectors.
    #[inline(always)]
    pub(crate) unsafe fn tile<S: Simd, const R: usize, const V: usize>(s: S, t: &Tile) {
        // SAFETY: the contract of `TileFn`.
        unsafe {
            let mut acc = [[s.splat(0.0); V]; R];
            for r in 0..R {
                for v in 0..V {
                    acc[r][v] = s.load(t.b.add(r * t.b_step + v * LANES));
                }
            }
            t.finish.sums(s, &mut acc, &t.place);
            store_rows(s, &acc, t.c, t.c_step, &t.place);
        }
    }
}
