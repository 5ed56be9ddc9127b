//! kernel: products with codes of eight bits by the tile unit: 16 rows of digits together, and then what vectors do row by row.

use super::digits::Digits;
use super::stream::{Job, finish, scale, scaled, total};
use super::{PackedCodes, depth};
use crate::amx::{self, Configured, Operands, SIDE, Sums, WIDE};
use crate::simd::{LANES, Simd};
use crate::tile::{Place, load, store_rows};

/// Vectors of a panel, and rows of sums of all digits.
const V: usize = WIDE / LANES;
const SUMS: usize = 3 * SIDE * WIDE;

/// Whether products of `m` rows, none of which is odd, run here in panels of 64 columns.
pub(super) fn takes(w: &PackedCodes, m: usize) -> bool {
    let plain = w.bits == 8 && w.entries.is_none() && w.kept.is_none();
    plain && m >= SIDE && w.block.is_multiple_of(4 * SIDE) && amx::usable(w.tier)
}

/// All rows of a panel of 64 columns: operations on floats and their order are those of vectors.
///
/// # Safety
/// As [`super::stream::run`], for the panel at `col`; [`takes`] said yes.
#[inline(always)]
pub(super) unsafe fn rows<S: Simd, const D: usize>(s: S, job: &Job, x: &Digits, m: usize, col: usize) {
    let (w, blocks, width) = (job.w, job.w.flushes(), depth(job.w.k, 8) * D);
    let panel = w.data.as_ptr().cast::<u8>().wrapping_add(col * depth(w.k, 8));
    let mut sums = Sums([0; SUMS]);
    let mut configured = None;
    for b in 0..blocks {
        let (len, start) = (w.block_len(b), b * w.block);
        let (steps, rest) = (len / (4 * SIDE), len / 4 % SIDE);
        let codes = panel.wrapping_add(start * WIDE);
        // What follows in memory is read after all rows.
        let lines = (V * SIDE).div_ceil(D * m.div_ceil(SIDE));
        for first in (0..m).step_by(SIDE) {
            let live = SIDE.min(m - first);
            // SAFETY: the caller's contract: panels hold their blocks, digits their rows.
            unsafe {
                if configured.as_ref().is_none_or(|&(rows, cells, _)| (rows, cells) != (live, rest)) {
                    // The registers are given back before they are taken again.
                    drop(configured.take());
                    configured = Some((live, rest, Configured::new(live, rest)));
                }
                for d in 0..D {
                    let at = first * width + start * D + d * len;
                    let part = first / SIDE * D + d;
                    amx::four_codes(&Operands {
                        a: x.bytes.as_ptr().add(at),
                        a_step: width,
                        b: codes,
                        b_step: WIDE * 4,
                        blocks: steps,
                        rest,
                        sums: sums.0[d * SIDE * WIDE..].as_mut_ptr(),
                        ahead: codes.wrapping_add(len * WIDE + part * steps * lines * 64),
                        lines,
                    });
                }
                for t in 0..live {
                    row::<S, D>(s, job, x, &sums.0, t, first + t, col, b);
                }
            }
        }
    }
}

/// What block `b` adds to a row, row `t` of those whose sums are given.
///
/// # Safety
/// As [`rows`].
#[inline(always)]
unsafe fn row<S: Simd, const D: usize>(
    s: S,
    job: &Job,
    x: &Digits,
    sums: &[i32; SUMS],
    t: usize,
    row: usize,
    col: usize,
    b: usize,
) {
    let (w, flushes) = (job.w, job.w.flushes());
    let index = row * flushes + b;
    let place = Place { out: &row, live_rows: 1, live_cols: WIDE.min(w.n - col), col };
    // SAFETY: the caller's contract.
    unsafe {
        let mut y = [s.splat(0.0); V];
        let c = job.c.add(col);
        if b > 0 {
            for v in 0..V {
                y[v] = load(s, c.add(row * job.c_step), v, place.live_cols);
            }
        }
        let unit = x.unit[index];
        let mut f = [[s.splat(0.0); D]; V];
        for d in 0..D {
            let start = s.splat_i(-w.zero * x.sums[index * D + d]);
            for v in 0..V {
                let sum = s.load_i(sums.as_ptr().add((d * SIDE + t) * WIDE + v * LANES));
                f[v][d] = s.to_f(s.add_i(start, sum));
            }
        }
        let worth: [S::F; D] = std::array::from_fn(|d| s.splat(unit * (1u64 << (8 * d)) as f32));
        if w.blocks == 1 {
            for v in 0..V {
                for d in 0..D {
                    y[v] = s.fma(worth[d], f[v][d], y[v]);
                }
            }
        } else {
            let at = col * w.blocks + b * WIDE;
            for v in 0..V {
                let mut sum = s.mul(worth[0], f[v][0]);
                for d in 1..D {
                    sum = s.fma(worth[d], f[v][d], sum);
                }
                y[v] = s.fma(scale(s, w, at + v * LANES), sum, y[v]);
            }
            if let Some(o) = &w.offsets {
                let sum = s.splat(total::<D>(unit, &x.sums[index * D..(index + 1) * D]));
                for v in 0..V {
                    y[v] = s.fma(s.load(o.as_ptr().add(at + v * LANES)), sum, y[v]);
                }
            }
        }
        if b + 1 < flushes {
            store_rows(s, &[y], c, job.c_step, &place);
            return;
        }
        if w.blocks == 1 {
            scaled(s, w, x, row, col, &mut y);
        }
        finish::<S, V>(s, job, y, row, col);
    }
}
