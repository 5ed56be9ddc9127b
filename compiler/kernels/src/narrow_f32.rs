//! kernel: results of at most four columns, which would leave most of a vector of columns empty: vectors hold four rows of
//! four products each, and four sums of a row are added at the end.

use crate::indirect::Job;
use crate::pack::{Cells, Panel};
use crate::scratch;
use crate::simd::{LANES, tiered};
use crate::tile::{MOST_ROWS, Place, store_rows};

/// Most columns.
const MOST: usize = 4;
/// Rows of a vector, and products of each.
const SIDE: usize = 4;
/// Floats of rearranged weights that the first-level cache keeps beside the rows.
const WEIGHTS: usize = 4 << 10;

/// Floats of the rearranged weights, where this is the way to go. Sums are added in another order here, so it follows from
/// the operand alone, not from how many rows a task has.
pub(crate) fn weights(job: &Job) -> Option<usize> {
    let plain = job.integers.is_none() && job.b.cells == Cells::One;
    let cols = job.b.panels.cols;
    let len = job.taps * job.depth.div_ceil(SIDE) * cols * LANES;
    (plain && cols <= MOST && (1..=WEIGHTS).contains(&len)).then_some(len)
}

/// Sums, finishes and stores all `count` rows of a panel of `cols` columns.
///
/// # Safety
/// As [`crate::indirect::run`]; `pointers`, `step` for each tap, and `out` describe `count` rows and repeat the last one
/// [`MOST_ROWS`] times. [`weights`] gave `len`.
pub(crate) unsafe fn panel(
    job: &Job,
    panel: Panel,
    cols: usize,
    (pointers, step): (&[*const f32], usize),
    out: &[usize],
    count: usize,
    len: usize,
) {
    const { assert!(SIDE <= MOST_ROWS) };
    scratch::with(len, |to| {
        let width = panel.width * LANES;
        // SAFETY: the packed operand has `taps · depth` rows of `width` elements at the panel.
        let b = unsafe {
            let rows = job.taps * job.depth * width;
            std::slice::from_raw_parts(job.b.data.wrapping_add(panel.col * job.b.rows), rows)
        };
        let quads = job.depth.div_ceil(SIDE);
        for (i, to) in to.chunks_exact_mut(LANES).enumerate() {
            let (quad, n) = (i / cols, i % cols);
            let (tap, first) = (quad / quads, quad % quads * SIDE);
            for (lane, to) in to.iter_mut().enumerate() {
                let k = first + lane % SIDE;
                *to = if k < job.depth { b[(tap * job.depth + k) * width + n] } else { 0.0 };
            }
        }
        let call = Call { job, col: panel.col, cols, pointers, step, out, count, weights: to };
        // SAFETY: the caller's contract.
        unsafe {
            match cols {
                1 => rows(job.tier, &call, Columns::<1>),
                2 => rows(job.tier, &call, Columns::<2>),
                3 => rows(job.tier, &call, Columns::<3>),
                _ => rows(job.tier, &call, Columns::<4>),
            }
        }
    });
}

struct Call<'a> {
    job: &'a Job<'a>,
    col: usize,
    cols: usize,
    pointers: &'a [*const f32],
    step: usize,
    out: &'a [usize],
    count: usize,
    /// For each tap, four of its products and column: theirs, once for each row of a vector.
    weights: &'a [f32],
}

trait Count: Copy {
    const COUNT: usize;
}

#[derive(Clone, Copy)]
struct Columns<const N: usize>;

impl<const N: usize> Count for Columns<N> {
    const COUNT: usize = N;
}

tiered! {
    /// # Safety
    /// As [`panel`], for results of as many columns as the count says.
    unsafe fn rows<N: Count>(s: S; call: &Call, _columns: N) {
        let job = call.job;
        let (whole, rest) = (job.depth / SIDE, job.depth % SIDE);
        let c = job.c.wrapping_add(call.col);
        for row in (0..call.count).step_by(SIDE) {
            let mut acc = [s.splat(0.0); MOST];
            let mut w = call.weights.as_ptr();
            for tap in 0..job.taps {
                let at = call.pointers.as_ptr().add(tap * call.step + row);
                let mut x = [*at, *at.add(1), *at.add(2), *at.add(3)];
                for _ in 0..whole {
                    let v = s.quads(x);
                    for n in 0..N::COUNT {
                        acc[n] = s.fma(v, s.load(w.add(n * LANES)), acc[n]);
                    }
                    w = w.add(N::COUNT * LANES);
                    for x in &mut x {
                        *x = x.add(SIDE);
                    }
                }
                if rest > 0 {
                    let mut tail = [[0f32; SIDE]; SIDE];
                    for (tail, x) in tail.iter_mut().zip(x) {
                        std::ptr::copy_nonoverlapping(x, tail.as_mut_ptr(), rest);
                    }
                    let v = s.quads([tail[0].as_ptr(), tail[1].as_ptr(), tail[2].as_ptr(), tail[3].as_ptr()]);
                    for n in 0..N::COUNT {
                        acc[n] = s.fma(v, s.load(w.add(n * LANES)), acc[n]);
                    }
                    w = w.add(N::COUNT * LANES);
                }
            }
            let sums = s.sum_quads(acc);
            let mut acc = [[sums[0]], [sums[1]], [sums[2]], [sums[3]]];
            let place = Place {
                out: call.out.as_ptr().add(row),
                live_rows: SIDE.min(call.count - row),
                live_cols: call.cols,
                col: call.col,
            };
            job.finish.sums(s, &mut acc, &place);
            store_rows(s, &acc, c, job.c_step, &place);
        }
    }
}
