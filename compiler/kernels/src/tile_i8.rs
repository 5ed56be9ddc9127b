//! kernel: the register tile of an integer contraction: each cell of the operands is four 8-bit integers, unsigned on the
//! left and signed on the right, whose four products one instruction adds to a 32-bit sum.

use crate::hint::prefetch;
use crate::simd::{LANES, Simd};
use crate::tile::{LONG_ENOUGH, Tile, ask};

/// Rows of cells ahead that are asked for.
const NEAR: usize = 4;

/// The loop, compiled for each tier and shape.
///
/// # Safety
/// As [`crate::tile::TileFn`], where pointers of rows need no alignment; `integers` is there.
#[inline(always)]
pub(crate) unsafe fn tile<S: Simd, const R: usize, const V: usize>(s: S, t: &Tile) {
    // SAFETY: the contract of `TileFn`.
    unsafe {
        let Some(integers) = t.integers else { return };
        let mut acc = [integers.start::<S, V>(s, t.place.col); R];
        let (mut b, mut ahead) = (t.b, t.ahead);
        for tap in 0..t.taps {
            let rows = t.rows.add(tap * t.tap_step);
            let mut a = [std::ptr::null::<u8>(); R];
            for r in 0..R {
                a[r] = (*rows.add(r)).cast();
            }
            for k in 0..t.depth {
                let mut bv = [s.splat_i(0); V];
                for v in 0..V {
                    bv[v] = s.bits(s.load(b.add(v * LANES)));
                }
                if V > 2 && R * V >= LONG_ENOUGH {
                    // Panels of long sums stay in the second-level cache; narrow ones in the first, and theirs are loops
                    // whose loads leave no room.
                    for v in 0..V {
                        prefetch(b.wrapping_add(NEAR * t.b_step + v * LANES));
                    }
                    ahead = ask::<R, V>(ahead, t.ahead_step);
                }
                for r in 0..R {
                    let x = s.quad(a[r].add(4 * k));
                    for v in 0..V {
                        acc[r][v] = s.dot(acc[r][v], x, bv[v]);
                    }
                }
                b = b.add(t.b_step);
            }
        }
        integers.store(s, acc, t);
    }
}
