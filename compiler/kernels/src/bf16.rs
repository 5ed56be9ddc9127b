//! Floats to bfloat16: the upper half of a float32, rounded to nearest, ties to even.
//!
//! A cell is two of them, the first in the lower half. A NaN stays one; a subnormal may become zero, which the
//! instructions of CPUs that have them do.

use crate::parallel::Pool;
use crate::partition::Parts;

/// Rows that one task converts, in elements.
const TASK: usize = 1 << 15;

/// Whether this CPU multiplies bfloat16 itself.
pub fn native() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        use std::sync::OnceLock;
        static NATIVE: OnceLock<bool> = OnceLock::new();
        *NATIVE.get_or_init(|| {
            crate::Tier::best() == crate::Tier::Avx512 && is_x86_feature_detected!("avx512bf16")
        })
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Two elements as a cell.
pub(crate) fn cell(first: f32, second: f32) -> [u16; 2] {
    [half::bf16::from_f32(first).to_bits(), half::bf16::from_f32(second).to_bits()]
}

/// Converts `rows` rows of `cols` elements, `stride` apart in `x`, into rows of `cols.div_ceil(2)` cells. The extents are
/// the caller's: `x` holds the rows and `to` the cells.
pub(crate) fn convert(
    pool: &dyn Pool,
    native: bool,
    x: &[f32],
    rows: usize,
    cols: usize,
    stride: usize,
    to: &mut [f32],
) {
    let cells = cols.div_ceil(2);
    if rows == 0 || cells == 0 {
        return;
    }
    // Adjacent rows of whole cells are one row.
    let (rows, cols, stride, cells) = if stride == cols && cols.is_multiple_of(2) {
        let pieces = (rows * cells).div_ceil(TASK / 2);
        let piece = (rows * cells).div_ceil(pieces);
        return run(pool, native, x, (pieces, 2 * piece, 2 * piece, piece), to, rows * cols);
    } else {
        (rows, cols, stride, cells)
    };
    run(pool, native, x, (rows, cols, stride, cells), to, usize::MAX);
}

fn run(
    pool: &dyn Pool,
    native: bool,
    x: &[f32],
    (rows, cols, stride, cells): (usize, usize, usize, usize),
    to: &mut [f32],
    end: usize,
) {
    let share = (TASK / cols.max(1)).max(1);
    let (tasks, end) = (rows.div_ceil(share), end.min(x.len()));
    let length = to.len();
    let parts = Parts::of(to);
    let task = |t: usize| {
        for r in t * share..rows.min((t + 1) * share) {
            let from = &x[(r * stride).min(end)..(r * stride + cols).min(end)];
            // SAFETY: rows are disjoint parts, each converted once.
            let to = unsafe { parts.part((r * cells).min(length)..((r + 1) * cells).min(length)) };
            row(native, from, bytemuck::cast_slice_mut(to));
        }
    };
    match tasks {
        1 => task(0),
        _ => pool.run(tasks, &task),
    }
}

fn row(native: bool, x: &[f32], to: &mut [[u16; 2]]) {
    #[cfg(target_arch = "x86_64")]
    if native {
        let whole = x.len() / 32 * 32;
        // SAFETY: `native` says that the CPU has the instruction; both hold `whole` elements.
        unsafe { x86::convert(&x[..whole], to[..whole / 2].as_mut_ptr().cast()) };
        return plain(&x[whole..], &mut to[whole / 2..]);
    }
    let _ = native;
    plain(x, to)
}

fn plain(x: &[f32], to: &mut [[u16; 2]]) {
    let pairs = x.chunks_exact(2);
    let last = pairs.remainder();
    for (to, x) in to.iter_mut().zip(pairs) {
        *to = cell(x[0], x[1]);
    }
    if let (&[x], Some(to)) = (last, to.get_mut(x.len() / 2)) {
        *to = cell(x, 0.0);
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    /// # Safety
    /// `to` is valid for writing as many 16-bit elements as `x` has, a multiple of 32.
    #[target_feature(enable = "avx512f,avx512bf16")]
    pub unsafe fn convert(x: &[f32], to: *mut u16) {
        for i in (0..x.len()).step_by(32) {
            // SAFETY: 32 elements from `i` on are there, in `x` and, by the caller, in `to`.
            unsafe {
                let (low, high) =
                    (_mm512_loadu_ps(x.as_ptr().add(i)), _mm512_loadu_ps(x.as_ptr().add(i + 16)));
                let both = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low));
                _mm512_storeu_si512(to.add(i).cast(), both);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Two, random};

    #[test]
    fn both_ways_round_alike() {
        let mut x = random(70 * 37, 3);
        x[5] = f32::INFINITY;
        x[6] = f32::NEG_INFINITY;
        x[7] = f32::NAN;
        x[8] = -0.0;
        x[9] = f32::MAX; // rounds to infinity
        x[10] = f32::from_bits(0x3f80_8000); // a tie: to even, down
        x[11] = f32::from_bits(0x3f81_8000); // a tie: to even, up
        for (rows, cols, stride) in
            [(70, 36, 37), (70, 37, 37), (35, 74, 74), (1, 2590, 2590), (0, 4, 4), (2, 1, 3)]
        {
            let cells = usize::div_ceil(cols, 2);
            for native in [false, native()] {
                let mut to = vec![f32::NAN; rows * cells];
                convert(&Two, native, &x, rows, cols, stride, &mut to);
                let found: &[[u16; 2]] = bytemuck::cast_slice(&to);
                for r in 0..rows {
                    for c in 0..2 * cells {
                        let wanted = if c < cols { x[r * stride + c] } else { 0.0 };
                        let wanted = half::bf16::from_f32(wanted);
                        let found = half::bf16::from_bits(found[r * cells + c / 2][c % 2]);
                        assert!(
                            found.to_bits() == wanted.to_bits() || (found.is_nan() && wanted.is_nan()),
                            "{r} {c}: {found} {wanted}"
                        );
                    }
                }
            }
        }
    }
}
