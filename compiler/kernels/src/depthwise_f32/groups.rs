//! Narrow groups: each channel of a group in turn is spread over the group's lanes, where it meets its weights of all of them.

use super::{Line, vectors};
use crate::hint::opaque;
use crate::simd::{LANES, Simd};

/// Channels of groups that divide a vector, where a product for each group would fill few lanes.
pub const WIDTHS: [usize; 3] = [2, 4, 8];

/// Adds one line of a window, an element and an input channel of the groups at a time.
///
/// # Safety
/// As [`super::sums`], from the input `x` and weights `w` on.
#[inline(always)]
pub unsafe fn walk<S: Simd, const P: usize, const V: usize>(
    s: S,
    acc: &mut [[S::F; V]; P],
    mut x: *const f32,
    mut w: *const f32,
    line: &Line,
) {
    let weights = line.part.call.weights;
    let mut first = [0i32; LANES];
    for (lane, first) in first.iter_mut().enumerate() {
        *first = (lane / weights.mixed * weights.mixed) as i32;
    }
    // SAFETY: 16 lanes.
    let first = unsafe { s.load_i(first.as_ptr()) };
    for _ in 0..line.run {
        for i in 0..weights.mixed {
            let (pixels, from) = (opaque(x), s.add_i(first, s.splat_i(i as i32)));
            // SAFETY: the caller's contract.
            unsafe {
                let wv = vectors::<S, V>(s, w);
                for r in 0..P {
                    for v in 0..V {
                        let x = s.permute(s.load(pixels.add(r * line.step + v * LANES)), from);
                        acc[r][v] = s.fma(x, wv[v], acc[r][v]);
                    }
                }
            }
            w = w.wrapping_add(weights.step);
        }
        x = x.wrapping_add(line.spread);
    }
}
