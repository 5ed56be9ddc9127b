//! kernel: results of at most four columns, which would leave most of a vector of columns empty: vectors hold products of one
//! row, or four of each of four rows where a tap has few, and sums are added up at the end.

use crate::indirect::Job;
use crate::pack::{Cells, Panel};
use crate::scratch;
use crate::simd::{LANES, Simd, tiered};
use crate::tile::{MOST_ROWS, Place, store_rows};

/// Most columns.
const MOST: usize = 4;
/// Rows of a vector, and products of each.
const SIDE: usize = 4;
/// Products of a tap from which vectors hold those of one row.
const LONG: usize = LANES / 2;
/// Most rows whose sums grow at the same time.
const ROWS: usize = 8;
/// Floats of rearranged weights that the first-level cache keeps beside the rows.
const WEIGHTS: usize = 4 << 10;
/// Instructions that add up the sums of a vector and store the result.
const ENDING: usize = 12;

/// Instructions for each row and column, where vectors hold products of one row.
pub(crate) fn instructions(taps: usize, depth: usize, cols: usize) -> Option<usize> {
    let vectors = taps.checked_mul(depth.div_ceil(LANES))?;
    let len = vectors.checked_mul(cols)?.checked_mul(LANES)?;
    ((1..=MOST).contains(&cols) && depth >= LONG && len <= WEIGHTS).then_some(vectors + ENDING)
}

/// Products of a tap in a vector.
fn products(depth: usize) -> usize {
    if depth >= LONG { LANES } else { SIDE }
}

/// Floats of the rearranged weights, where this is the way to go. Sums are added in another order here, so it follows from
/// the operand alone, not from how many rows a task has.
pub(crate) fn weights(job: &Job) -> Option<usize> {
    let plain = job.integers.is_none() && job.b.cells == Cells::One;
    let cols = job.b.panels.cols;
    let len = job.taps * job.depth.div_ceil(products(job.depth)) * cols * LANES;
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
    const { assert!(SIDE <= MOST_ROWS && ROWS <= MOST_ROWS) };
    scratch::with(len, |to| {
        let width = panel.width * LANES;
        // SAFETY: the packed operand has `taps · depth` rows of `width` elements at the panel.
        let b = unsafe {
            let rows = job.taps * job.depth * width;
            std::slice::from_raw_parts(job.b.data.wrapping_add(panel.col * job.b.rows), rows)
        };
        let side = products(job.depth);
        let parts = job.depth.div_ceil(side);
        for (i, to) in to.chunks_exact_mut(LANES).enumerate() {
            let (part, n) = (i / cols, i % cols);
            let (tap, first) = (part / parts, part % parts * side);
            for (lane, to) in to.iter_mut().enumerate() {
                let k = first + lane % side;
                *to = if k < job.depth { b[(tap * job.depth + k) * width + n] } else { 0.0 };
            }
        }
        let call = Call { job, col: panel.col, cols, pointers, step, out, count, weights: to };
        // SAFETY: the caller's contract.
        unsafe {
            match cols {
                _ if side == LANES => long(job.tier, &call),
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
    /// For each tap, as many of its products as a vector has of a row, and column: theirs, once for each row of a vector.
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
            finish(s, call, row, [[sums[0]], [sums[1]], [sums[2]], [sums[3]]]);
        }
    }
}

/// Stores the rows from `row` on, whose sums these are.
///
/// # Safety
/// As [`panel`].
#[inline(always)]
unsafe fn finish<S: Simd, const R: usize>(s: S, call: &Call, row: usize, mut sums: [[S::F; 1]; R]) {
    let job = call.job;
    // SAFETY: the caller's contract.
    unsafe {
        let place = Place {
            out: call.out.as_ptr().add(row),
            live_rows: R.min(call.count - row),
            live_cols: call.cols,
            col: call.col,
        };
        job.finish.sums(s, &mut sums, &place);
        store_rows(s, &sums, job.c.wrapping_add(call.col), job.c_step, &place);
    }
}

tiered! {
    /// # Safety
    /// As [`panel`], for taps of [`LONG`] products and more.
    unsafe fn long(s: S; call: &Call) {
        match (call.cols, S::WIDE) {
            (1, true) => of_rows::<S, 1, ROWS>(s, call),
            (1, false) => of_rows::<S, 1, 4>(s, call),
            (2, true) => of_rows::<S, 2, ROWS>(s, call),
            (2, false) => of_rows::<S, 2, 2>(s, call),
            (3, _) => of_rows::<S, 3, 4>(s, call),
            _ => of_rows::<S, 4, 4>(s, call),
        }
    }
}

/// Sums of `N` columns, of `R` rows at a time.
///
/// # Safety
/// As [`panel`].
#[inline(always)]
unsafe fn of_rows<S: Simd, const N: usize, const R: usize>(s: S, call: &Call) {
    let job = call.job;
    let (whole, rest) = (job.depth / LANES, job.depth % LANES);
    // SAFETY: the caller's contract: as many products of each tap, rows and weights.
    unsafe {
        for row in (0..call.count).step_by(R) {
            let mut acc = [[s.splat(0.0); N]; R];
            let mut w = call.weights.as_ptr();
            for tap in 0..job.taps {
                let x = call.pointers.as_ptr().add(tap * call.step + row);
                for part in 0..whole + usize::from(rest > 0) {
                    let mut b = [s.splat(0.0); N];
                    for n in 0..N {
                        b[n] = s.load(w.add(n * LANES));
                    }
                    for r in 0..R {
                        let x = (*x.add(r)).add(part * LANES);
                        let v = if part < whole { s.load(x) } else { s.load_head(x, rest) };
                        for n in 0..N {
                            acc[r][n] = s.fma(v, b[n], acc[r][n]);
                        }
                    }
                    w = w.add(N * LANES);
                }
            }
            let mut sums = [[s.splat(0.0)]; R];
            for r in 0..R {
                let mut one = [0.0; N];
                for n in 0..N {
                    one[n] = s.sum(acc[r][n]);
                }
                sums[r] = [s.load_head(one.as_ptr(), N)];
            }
            finish(s, call, row, sums);
        }
    }
}
