//! kernel: one row times a packed operand: a stream of weights, limited by memory.
//!
//! The sum is cut into interleaved phases, so that additions do not wait for each other.

use crate::hint::prefetch;
use crate::indirect::{Job, Table};
use crate::pack::Panel;
use crate::parallel::Pool;
use crate::scratch;
use crate::simd::{LANES, Simd, tiered};
use crate::tile::{Place, store_rows};

/// Bytes of weights below which a task is not worth handing over.
const GRAIN: usize = 128 << 10;
/// Floats ahead of the read position that are asked for.
const AHEAD: usize = 768;

/// Runs a job of one row and one tap.
///
/// # Safety
/// As [`crate::indirect::run`].
pub(crate) unsafe fn run(pool: &dyn Pool, job: &Job) {
    scratch::with(job.rows.spare_len(1), |spare| {
        let (mut pointer, mut out) = ([std::ptr::null()], [0]);
        job.rows.fill(0, 1, Table { pointers: &mut pointer, step: 1, out: &mut out, spare, live: &mut [] });
        // SAFETY: the caller's contract.
        unsafe { panels(pool, &Row { a: pointer[0], out: out[0], job }) };
    });
}

/// # Safety
/// As [`run`]; `row` holds what [`crate::indirect::Rows::fill`] wrote.
unsafe fn panels(pool: &dyn Pool, row: &Row) {
    let packed = &row.job.b;
    let panels = packed.panels.count();
    let bytes = packed.panels.len(packed.rows).saturating_mul(size_of::<f32>());
    let tasks = (bytes / GRAIN).clamp(1, 4 * pool.threads().max(1)).min(panels);
    let share = panels.div_ceil(tasks);
    let task = |i: usize| {
        for index in i * share..panels.min((i + 1) * share) {
            // SAFETY: the caller's contract; tasks have panels of their own.
            unsafe { row.panel(packed.panels.get(index)) };
        }
    };
    match panels.div_ceil(share) {
        tasks if tasks == 1 || pool.threads() <= 1 => (0..tasks).for_each(task),
        tasks => pool.run(tasks, &task),
    }
}

struct Row<'a> {
    a: *const f32,
    out: usize,
    job: &'a Job<'a>,
}

// SAFETY: panels write disjoint columns.
unsafe impl Sync for Row<'_> {}

impl Row<'_> {
    /// # Safety
    /// As [`run`], once for each panel.
    unsafe fn panel(&self, panel: Panel) {
        let job = self.job;
        let width = panel.width * LANES;
        let place = Place {
            out: &self.out,
            live_rows: 1,
            live_cols: width.min(job.b.panels.cols - panel.col),
            col: panel.col,
        };
        let b = job.b.data.wrapping_add(panel.col * job.b.rows);
        // SAFETY: the caller's contract.
        unsafe {
            stream(job.tier, self.a, b, panel.width, job, &place);
            if job.finish.is_late() {
                let c = job.c.add(panel.col + self.out * job.c_step);
                job.finish.late(std::slice::from_raw_parts_mut(c, place.live_cols), self.out, panel.col);
            }
        }
    }
}

tiered! {
    unsafe fn stream(s: S; a: *const f32, b: *const f32, width: usize, job: &Job, place: &Place) {
        match width {
            1 => phases::<S, 1, 4>(s, a, b, job, place),
            2 => phases::<S, 2, 4>(s, a, b, job, place),
            3 => phases::<S, 3, 4>(s, a, b, job, place),
            _ => phases::<S, 4, 4>(s, a, b, job, place),
        }
    }
}

/// # Safety
/// `a` holds as many elements as the panel at `b` has rows of `V` vectors; the rest is as for [`run`].
#[inline(always)]
unsafe fn phases<S: Simd, const V: usize, const P: usize>(
    s: S,
    a: *const f32,
    mut b: *const f32,
    job: &Job,
    place: &Place,
) {
    // SAFETY: the caller's contract.
    unsafe {
        let mut acc = [[s.splat(0.0); V]; P];
        let mut k = 0;
        while k + P <= job.depth {
            for p in 0..P {
                let x = s.splat(*a.add(k + p));
                for v in 0..V {
                    prefetch(b.wrapping_add(AHEAD + v * LANES));
                    acc[p][v] = s.fma(x, s.load(b.add(v * LANES)), acc[p][v]);
                }
                b = b.add(V * LANES);
            }
            k += P;
        }
        while k < job.depth {
            let x = s.splat(*a.add(k));
            for v in 0..V {
                acc[0][v] = s.fma(x, s.load(b.add(v * LANES)), acc[0][v]);
            }
            b = b.add(V * LANES);
            k += 1;
        }
        let mut sum = [acc[0]];
        for p in 1..P {
            for v in 0..V {
                sum[0][v] = s.add(sum[0][v], acc[p][v]);
            }
        }
        job.finish.sums(s, &mut sum, place);
        store_rows(s, &sum, job.c.add(place.col), job.c_step, place);
    }
}
