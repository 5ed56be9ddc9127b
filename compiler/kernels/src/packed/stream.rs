//! kernel: the stream of packed weights, once through memory whatever the number of rows.

use super::coding::{Bytes, Coding, Nibbles, Table16, Table256};
use super::digits::{self, Digits, FLOAT};
use super::source::{Dense, Source, Sparse};
use super::{PackedCodes, Precision, Scales, depth, panels};
use crate::epilogue::Finish;
use crate::error::Error;
use crate::parallel::Pool;
use crate::scratch;
use crate::simd::{LANES, Simd, tiered};
use crate::tile::{Place, load, store_rows};

/// Bytes of weights, times rows, below which a task is not worth handing over.
const GRAIN: usize = 64 << 10;
/// Bytes of a panel that stay in the first-level cache while all rows read them.
const CACHED: usize = 16 << 10;
/// Bytes ahead of the read position that are asked for.
const AHEAD: usize = 4096;

pub(super) struct Job<'a> {
    pub w: &'a PackedCodes,
    pub c: *mut f32,
    pub c_step: usize,
    pub finish: &'a Finish,
}

// SAFETY: panels write disjoint columns of `c`.
unsafe impl Sync for Job<'_> {}

/// # Safety
/// `a` holds `m` rows of `w.k` elements, `c` `m` rows of `w.n`; `finish` was made for the result.
pub(super) unsafe fn run(
    pool: &dyn Pool,
    precision: Precision,
    m: usize,
    a: (*const f32, usize),
    job: &Job,
) -> Result<(), Error> {
    let digits = if precision == Precision::Float { FLOAT } else { 1 };
    let cells =
        digits::cells(job.w, m, digits).ok_or(Error::Shape { what: "rows leave the address space" })?;
    scratch::with(cells, |room| {
        // SAFETY: the caller's contract.
        let x = unsafe { digits::cut(pool, job.w, m, digits, a, room) };
        let all: Vec<(usize, usize)> = panels(job.w.tier, job.w.n).collect();
        let tasks =
            (job.w.bytes().saturating_mul(m) / GRAIN).clamp(1, 4 * pool.threads().max(1)).min(all.len());
        let share = all.len().div_ceil(tasks);
        let (x, all) = (Shared { x: &x, m }, &all);
        let task = |i: usize| {
            for &(col, width) in &all[i * share..all.len().min((i + 1) * share)] {
                // SAFETY: the caller's contract; tasks have panels of their own.
                unsafe { panel(job.w.tier, job, &x, col, width) };
            }
        };
        match all.len().div_ceil(share) {
            tasks if tasks == 1 || pool.threads() <= 1 => (0..tasks).for_each(task),
            tasks => pool.run(tasks, &task),
        }
    });
    Ok(())
}

struct Shared<'a> {
    x: &'a Digits<'a>,
    m: usize,
}

// SAFETY: rows and digits are only read.
unsafe impl Sync for Shared<'_> {}

tiered! {
    unsafe fn panel(s: S; job: &Job, x: &Shared, col: usize, width: usize) {
        if width == 4 { coded::<S, 4>(s, job, x, col) } else { coded::<S, 1>(s, job, x, col) }
    }
}

/// # Safety
/// As [`run`], for one panel.
#[inline(always)]
unsafe fn coded<S: Simd, const V: usize>(s: S, job: &Job, x: &Shared, col: usize) {
    // SAFETY: the caller's contract.
    unsafe {
        match (job.w.bits, &job.w.entries) {
            (4, None) => digit::<S, V, _>(s, Nibbles, job, x, col),
            (_, None) => digit::<S, V, _>(s, Bytes, job, x, col),
            (4, Some(e)) if e.parts() == 1 => digit::<S, V, _>(s, Table16::<S, 1>::new(s, e), job, x, col),
            (4, Some(e)) => digit::<S, V, _>(s, Table16::<S, 3>::new(s, e), job, x, col),
            (_, Some(e)) if e.parts() == 1 => digit::<S, V, _>(s, Table256::<S, 1>::new(s, e), job, x, col),
            (_, Some(e)) => digit::<S, V, _>(s, Table256::<S, 3>::new(s, e), job, x, col),
        }
    }
}

#[inline(always)]
unsafe fn digit<S: Simd, const V: usize, C: Coding<S>>(s: S, c: C, job: &Job, x: &Shared, col: usize) {
    // SAFETY: the caller's contract.
    unsafe {
        match (x.x.digits, &job.w.kept) {
            (1, None) => rows::<S, V, 1, C, Dense>(s, c, job, x, col),
            (_, None) => rows::<S, V, FLOAT, C, Dense>(s, c, job, x, col),
            (1, _) if C::QUADS == 1 => rows::<S, V, 1, C, Sparse<S>>(s, c, job, x, col),
            _ if C::QUADS == 1 => rows::<S, V, FLOAT, C, Sparse<S>>(s, c, job, x, col),
            _ => {}
        }
    }
}

/// All rows of one panel, over parts of it that stay cached.
#[inline(always)]
unsafe fn rows<S: Simd, const V: usize, const D: usize, C: Coding<S>, R: Source<S>>(
    s: S,
    coding: C,
    job: &Job,
    x: &Shared,
    col: usize,
) {
    let w = job.w;
    let blocks = w.flushes();
    let block_bytes = w.block * V * LANES * w.bits as usize / 8;
    let part = if x.m == 1 { blocks } else { (CACHED / block_bytes).max(1) };
    // SAFETY: the caller's contract.
    unsafe {
        let mut next = R::at(s, w, col);
        for first in (0..blocks).step_by(part) {
            let end = blocks.min(first + part);
            let start = next;
            for row in 0..x.m {
                let place = Place { out: &row, live_rows: 1, live_cols: (V * LANES).min(w.n - col), col };
                let c = job.c.add(col);
                let mut y = [[s.splat(0.0); V]];
                if first > 0 {
                    for v in 0..V {
                        y[0][v] = load(s, c.add(row * job.c_step), v, place.live_cols);
                    }
                }
                let units = &x.x.unit[row * blocks..(row + 1) * blocks];
                let odd = units.iter().any(|u| u.is_nan());
                if !odd {
                    next = start;
                    block_sums::<S, V, D, C, R>(
                        s,
                        coding,
                        &mut next,
                        job,
                        x.x,
                        row,
                        col,
                        first..end,
                        &mut y[0],
                    );
                }
                if end == blocks {
                    if odd {
                        y[0] = plain(s, w, x.x.rows.0.add(row * x.x.rows.1), col);
                    } else if w.blocks == 1 {
                        scaled(s, w, x.x, row, col, &mut y[0]);
                    }
                    job.finish.sums(s, &mut y, &place);
                }
                store_rows(s, &y, c, job.c_step, &place);
                if end == blocks && job.finish.is_late() {
                    let c = c.add(row * job.c_step);
                    job.finish.late(std::slice::from_raw_parts_mut(c, place.live_cols), row, col);
                }
            }
        }
    }
}

/// What the row sums to before its blocks' zero points: the value of its digits.
#[inline(always)]
fn total<const D: usize>(unit: f32, sums: &[i32]) -> f32 {
    let mut t = 0i64;
    for d in (0..D).rev() {
        t = (t << 8) + i64::from(sums[d]);
    }
    t as f32 * unit
}

#[inline(always)]
unsafe fn block_sums<S: Simd, const V: usize, const D: usize, C: Coding<S>, R: Source<S>>(
    s: S,
    coding: C,
    source: &mut R,
    job: &Job,
    x: &Digits,
    row: usize,
    col: usize,
    range: std::ops::Range<usize>,
    y: &mut [S::F; V],
) {
    let w = job.w;
    let per = 4 * C::QUADS;
    let width = depth(w.k, w.bits);
    let index = row * w.flushes();
    // SAFETY: the caller's contract: panels hold their blocks, digits their rows.
    unsafe {
        let mut vectors = *source;
        let mut digits = x.bytes.as_ptr().add((row * width + range.start * w.block) * D);
        for b in range {
            let len = w.block_len(b);
            let unit = *x.unit.get_unchecked(index + b);
            let sums = x.sums.get_unchecked((index + b) * D..(index + b + 1) * D);
            let mut acc = [[s.splat_i(0); V]; D];
            for d in 0..D {
                acc[d] = [s.splat_i(-w.zero * sums[d]); V];
            }
            for k in (0..len).step_by(per) {
                let mut quads = [[s.splat_i(0); D]; 2];
                for q in 0..C::QUADS {
                    for d in 0..D {
                        quads[q][d] = s.quad(digits.add(d * len + k + 4 * q));
                    }
                }
                for v in 0..V {
                    let packed = vectors.next::<AHEAD>(s);
                    for q in 0..C::QUADS {
                        let codes = coding.codes(s, packed, q);
                        for part in 0..C::PARTS {
                            let byte = coding.part(s, codes, part);
                            // Digit and byte together count 256^(i + PARTS - 1); smaller products round away.
                            for i in 0..D {
                                let d = i + C::PARTS - 1 - part;
                                if d < D {
                                    acc[i][v] = s.dot(acc[i][v], byte, quads[q][d]);
                                }
                            }
                        }
                    }
                }
            }
            digits = digits.add(len * D);
            let mut worth = [s.splat(0.0); D];
            for i in 0..D {
                worth[i] = s.splat(unit * (1u64 << (8 * (i + C::PARTS - 1))) as f32);
            }
            if w.blocks == 1 {
                for v in 0..V {
                    for i in 0..D {
                        y[v] = s.fma(worth[i], s.to_f(acc[i][v]), y[v]);
                    }
                }
            } else {
                let at = col * w.blocks + b * V * LANES;
                for v in 0..V {
                    let mut t = s.mul(worth[0], s.to_f(acc[0][v]));
                    for i in 1..D {
                        t = s.fma(worth[i], s.to_f(acc[i][v]), t);
                    }
                    y[v] = s.fma(scale(s, w, at + v * LANES), t, y[v]);
                }
                if let Some(o) = &w.offsets {
                    let t = s.splat(total::<D>(unit, sums));
                    for v in 0..V {
                        y[v] = s.fma(s.load(o.as_ptr().add(at + v * LANES)), t, y[v]);
                    }
                }
            }
        }
        *source = vectors;
    }
}

#[inline(always)]
unsafe fn scale<S: Simd>(s: S, w: &PackedCodes, at: usize) -> S::F {
    // SAFETY: the caller's index lies in the scales.
    unsafe {
        match &w.scales {
            Scales::Half(h) => s.load_half(h.as_ptr().add(at)),
            Scales::Single(f) => s.load(f.as_ptr().add(at)),
        }
    }
}

/// Applies one scale for each output to complete sums.
#[inline(always)]
unsafe fn scaled<S: Simd, const V: usize>(
    s: S,
    w: &PackedCodes,
    x: &Digits,
    row: usize,
    col: usize,
    y: &mut [S::F; V],
) {
    let mut sum = 0.0;
    if w.offsets.is_some() {
        for b in row * w.flushes()..(row + 1) * w.flushes() {
            sum += match x.digits {
                1 => total::<1>(x.unit[b], &x.sums[b..]),
                _ => total::<FLOAT>(x.unit[b], &x.sums[b * FLOAT..]),
            };
        }
    }
    for v in 0..V {
        // SAFETY: one scale for each column of the panel.
        unsafe {
            y[v] = s.mul(scale(s, w, col + v * LANES), y[v]);
            if let Some(o) = &w.offsets {
                y[v] = s.fma(s.load(o.as_ptr().add(col + v * LANES)), s.splat(sum), y[v]);
            }
        }
    }
}

/// A row with infinities, NaN or huge numbers, as float products.
#[inline(never)]
unsafe fn plain<S: Simd, const V: usize>(s: S, w: &PackedCodes, row: *const f32, col: usize) -> [S::F; V] {
    let mut y = [s.splat(0.0); V];
    w.each_weight(col, V, &mut |k, v, weights| {
        // SAFETY: a row holds `k` elements; a vector 16.
        unsafe { y[v] = s.fma(s.splat(*row.add(k)), s.load(weights.as_ptr()), y[v]) };
    });
    y
}
