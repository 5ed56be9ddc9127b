//! kernel: lines of windows of three or five adjacent columns: each column's cells are made once and add to all pixels
//! they are under, whose sums stay in registers.
//!
//! Of five rows four fill a cell; the fifth makes cells of four adjacent columns instead, two dot products for a pixel
//! where one for each column would be five.

use super::{BLOCK, MOST_LINES, Side, Work, cell, cells_at, finish, sources};
use crate::integers::Store;
use crate::simd::{LANES, Simd};
use std::ops::Range;

/// Most pixels under one column.
const MOST: usize = 5;
/// Rows of the taller window.
const TALL: usize = 5;

/// Whether the call's windows are of a kind that is made here.
pub(super) fn applies(work: &Work) -> bool {
    let (w, window) = (work.call.weights, &work.call.window);
    let columns = window.kernel[2];
    let fits = (columns == 3 && w.quads == 1) || (columns == TALL && w.products == TALL * columns);
    let stores = matches!(work.store, Store::Codes(_) | Store::Float);
    stores && fits && window.dilation[2] == 1 && window.stride[2] <= 2 && w.ones.is_none()
}

/// # Safety
/// As [`super::run`], for a range of lines and a block of channels; [`applies`] holds.
#[inline(always)]
pub(super) unsafe fn lines<S: Simd, L: Side>(s: S, work: &Work, lines: Range<usize>, block: usize) {
    let window = &work.call.window;
    // SAFETY: the caller's contract.
    unsafe {
        match (window.kernel[2], window.stride[2]) {
            (3, 1) => roll::<S, L, 3, 1>(s, work, lines, block),
            (3, _) => roll::<S, L, 3, 2>(s, work, lines, block),
            (_, 1) => roll::<S, L, 5, 1>(s, work, lines, block),
            _ => roll::<S, L, 5, 2>(s, work, lines, block),
        }
    }
}

/// # Safety
/// As [`lines`], for windows of `K` columns `STRIDE` apart.
#[inline(always)]
unsafe fn roll<S: Simd, L: Side, const K: usize, const STRIDE: usize>(
    s: S,
    work: &Work,
    lines: Range<usize>,
    block: usize,
) {
    let call = work.call;
    let (w, window) = (call.weights, &call.window);
    let start = block * BLOCK;
    let live = BLOCK.min(w.channels - start);
    let pad = call.pad(start);
    let (width, input, left) = (window.output[2], window.input[2], window.pad[2]);
    let pixels = const { K.div_ceil(STRIDE) };
    let tall = const { K == TALL };
    // SAFETY: the caller's contract; corrections have whole blocks.
    unsafe {
        let quads = if tall { 2 } else { 1 };
        let weights = w.cells.as_ptr().add(block * quads * K * BLOCK).cast::<i32>();
        let mut offset = [s.splat_i(0); 4];
        for v in 0..4 {
            offset[v] = s.load_i(work.offset.as_ptr().add(start + v * LANES));
        }
        let none = cells_at::<S, L>(s, &[[pad.as_ptr(); MOST_LINES]; 4], live);
        // The last row's weights over columns 0 to 3 and over column 4, at the place that column has in the cell.
        let (mut low, mut high) = (none, none);
        if tall {
            for v in 0..4 {
                let at = |k: usize| s.load_i(weights.add((K + k) * BLOCK + v * LANES));
                let two = s.xor_i(at(0), s.shl_i::<8>(at(1)));
                low[v] = s.xor_i(two, s.xor_i(s.shl_i::<16>(at(2)), s.shl_i::<24>(at(3))));
                high[v] = if STRIDE == 1 { s.shl_i::<24>(at(K - 1)) } else { s.shl_i::<16>(at(K - 1)) };
            }
        }
        for line in lines.clone().step_by(L::COUNT) {
            let part = (line, L::COUNT.min(lines.end - line));
            let rows = sources::<L>(work, part, 0, start, pad.as_ptr());
            let fifth = if tall { sources::<L>(work, part, 1, start, pad.as_ptr())[0] } else { rows[0] };
            // `sums[i]` are those of pixel `o − i`.
            let mut sums = [offset; MOST];
            for o in 0..width + pixels - 1 {
                for c in 0..STRIDE {
                    let x = match (o * STRIDE + c).checked_sub(left).filter(|&column| column < input) {
                        Some(column) => cell::<S, L>(s, &rows, column, live),
                        None => none,
                    };
                    for i in 0..pixels {
                        let k = c + STRIDE * i;
                        if k < K {
                            for v in 0..4 {
                                let w = s.load_i(weights.add(k * BLOCK + v * LANES));
                                sums[i][v] = s.dot(sums[i][v], x[v], w);
                            }
                        }
                    }
                }
                if tall {
                    let mut at = [[pad.as_ptr(); MOST_LINES]; 4];
                    for j in 0..4 {
                        let column =
                            (o * STRIDE + STRIDE - 1 + j).checked_sub(left + 3).filter(|&c| c < input);
                        if let Some(column) = column {
                            for l in 0..L::COUNT {
                                at[j][l] = fifth[l].0.wrapping_add(column * fifth[l].1);
                            }
                        }
                    }
                    let x = cells_at::<S, L>(s, &at, live);
                    for v in 0..4 {
                        let i = if STRIDE == 1 { 3 } else { 1 };
                        sums[i][v] = s.dot(sums[i][v], x[v], low[v]);
                        sums[i + 1][v] = s.dot(sums[i + 1][v], x[v], high[v]);
                    }
                }
                if o + 1 >= pixels {
                    let row = line * width + o + 1 - pixels;
                    finish::<S, L, 1>(s, work, [sums[pixels - 1]], (row, part.1), start);
                }
                for i in (1..pixels).rev() {
                    sums[i] = sums[i - 1];
                }
                sums[0] = offset;
            }
        }
    }
}
