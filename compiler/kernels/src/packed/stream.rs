//! kernel: the stream of packed weights, once through memory whatever the number of rows.

use super::coding::{Bytes, Coding, Nibbles, Table16, Table256};
use super::digits::{self, Digits, FLOAT, WORDS};
use super::entries::Entries;
use super::source::{Dense, Source, Sparse};
use super::{PackedCodes, Precision, Scales, depth, panels};
use crate::dispatch::Tier;
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
    let digits = match precision {
        Precision::Float => FLOAT,
        Precision::Words if job.w.takes_words() => WORDS,
        Precision::Words => FLOAT,
        Precision::Bytes => 1,
    };
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

/// # Safety
/// As [`run`], for one panel.
unsafe fn panel(tier: Tier, job: &Job, x: &Shared, col: usize, width: usize) {
    // SAFETY: the caller's contract.
    unsafe {
        match (job.w.bits, &job.w.entries) {
            (4, None) => nibbles(tier, job, x, col, width),
            (_, None) => bytes(tier, job, x, col, width),
            (4, Some(e)) => table_16(tier, e, job, x, col, width),
            (_, Some(e)) => table_256(tier, e, job, x, col, width),
        }
    }
}

// One function for each coding, and in it what runs: all together take a compiler minutes.
tiered! {
    unsafe fn nibbles(s: S; job: &Job, x: &Shared, col: usize, width: usize) {
        four_bits(s, Nibbles, job, x, col, width);
    }
}

tiered! {
    unsafe fn bytes(s: S; job: &Job, x: &Shared, col: usize, width: usize) {
        #[cfg(target_arch = "x86_64")]
        if S::WIDE && width == 4 && super::tiles::takes(job.w, x.m) && !(0..x.m).any(|row| odd(x.x, row, job.w.flushes())) {
            return match x.x.digits {
                1 => super::tiles::rows::<S, 1>(s, job, x.x, x.m, col),
                WORDS => super::tiles::rows::<S, WORDS>(s, job, x.x, x.m, col),
                _ => super::tiles::rows::<S, FLOAT>(s, job, x.x, x.m, col),
            };
        }
        match (x.x.digits, S::WIDE && width == 4) {
            _ if job.w.kept.is_some() => few_rows::<S, _, Sparse<S>>(s, Bytes, job, x, col, width),
            (1, true) => rows::<S, 4, 1, 1, _, Dense>(s, Bytes, job, x, col),
            (WORDS, true) => rows::<S, 4, WORDS, 2, _, Dense>(s, Bytes, job, x, col),
            (_, true) => rows::<S, 4, FLOAT, 2, _, Dense>(s, Bytes, job, x, col),
            _ => single(s, Bytes, job, x, col),
        }
    }
}

tiered! {
    unsafe fn table_16(s: S; e: &Entries, job: &Job, x: &Shared, col: usize, width: usize) {
        match e.parts() {
            1 => four_bits(s, Table16::<S, 1>::new(s, e), job, x, col, width),
            _ => four_bits(s, Table16::<S, 3>::new(s, e), job, x, col, width),
        }
    }
}

tiered! {
    unsafe fn table_256(s: S; e: &Entries, job: &Job, x: &Shared, col: usize, width: usize) {
        match e.parts() {
            1 => few_rows::<S, _, Dense>(s, Table256::<S, 1>::new(s, e), job, x, col, width),
            _ => few_rows::<S, _, Dense>(s, Table256::<S, 3>::new(s, e), job, x, col, width),
        }
    }
}

/// Panels of one vector, row by row.
#[inline(always)]
unsafe fn single<S: Simd, C: Coding<S>>(s: S, c: C, job: &Job, x: &Shared, col: usize) {
    // SAFETY: the caller's contract.
    unsafe {
        match (x.x.digits, S::WIDE) {
            (1, _) => rows::<S, 1, 1, 1, C, Dense>(s, c, job, x, col),
            (WORDS, true) => rows::<S, 1, WORDS, 1, C, Dense>(s, c, job, x, col),
            _ => rows::<S, 1, FLOAT, 1, C, Dense>(s, c, job, x, col),
        }
    }
}

/// Eight inputs at a time: two rows of three digits take more registers than there are.
#[inline(always)]
unsafe fn four_bits<S: Simd, C: Coding<S>>(s: S, c: C, job: &Job, x: &Shared, col: usize, width: usize) {
    // SAFETY: the caller's contract.
    unsafe {
        match (x.x.digits, S::WIDE && width == 4) {
            (1, true) => rows::<S, 4, 1, 1, C, Dense>(s, c, job, x, col),
            (WORDS, true) => rows::<S, 4, WORDS, 2, C, Dense>(s, c, job, x, col),
            (_, true) => rows::<S, 4, FLOAT, 1, C, Dense>(s, c, job, x, col),
            _ => single(s, c, job, x, col),
        }
    }
}

/// Forms that are read for few rows: tables of 256 entries, and bytes behind a bitmap.
#[inline(always)]
unsafe fn few_rows<S: Simd, C: Coding<S>, R: Source<S>>(
    s: S,
    c: C,
    job: &Job,
    x: &Shared,
    col: usize,
    width: usize,
) {
    // SAFETY: the caller's contract.
    unsafe {
        match (x.x.digits, S::WIDE && width == 4) {
            (1, true) => rows::<S, 4, 1, 1, C, R>(s, c, job, x, col),
            (_, true) => rows::<S, 4, FLOAT, 1, C, R>(s, c, job, x, col),
            (1, false) => rows::<S, 1, 1, 1, C, R>(s, c, job, x, col),
            (_, false) => rows::<S, 1, FLOAT, 1, C, R>(s, c, job, x, col),
        }
    }
}

/// All rows of one panel, over parts of it that stay cached; rows go together where registers hold their sums.
#[inline(always)]
unsafe fn rows<S: Simd, const V: usize, const D: usize, const T: usize, C: Coding<S>, R: Source<S>>(
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
            let range = first..blocks.min(first + part);
            let start = next;
            let mut row = 0;
            while T > 1 && row + T <= x.m && !(row..row + T).any(|row| odd(x.x, row, blocks)) {
                next = some_rows::<S, V, D, T, C, R>(s, coding, start, job, x, row, col, range.clone());
                row += T;
            }
            while row < x.m {
                if odd(x.x, row, blocks) {
                    if range.end == blocks {
                        let y = plain::<S, V>(s, w, x.x.rows.0.add(row * x.x.rows.1), col);
                        finish::<S, V>(s, job, y, row, col);
                    }
                } else {
                    next = some_rows::<S, V, D, 1, C, R>(s, coding, start, job, x, row, col, range.clone());
                }
                row += 1;
            }
        }
    }
}

/// Whether a row holds what digits do not stand for.
fn odd(x: &Digits, row: usize, blocks: usize) -> bool {
    x.unit[row * blocks..(row + 1) * blocks].iter().any(|u| u.is_nan())
}

/// What `T` rows from `row` on sum to over a range of blocks, on top of what earlier ranges left in the result.
#[inline(always)]
unsafe fn some_rows<S: Simd, const V: usize, const D: usize, const T: usize, C: Coding<S>, R: Source<S>>(
    s: S,
    coding: C,
    mut source: R,
    job: &Job,
    x: &Shared,
    row: usize,
    col: usize,
    range: std::ops::Range<usize>,
) -> R {
    let (w, live_cols) = (job.w, (V * LANES).min(job.w.n - col));
    let place = Place { out: &row, live_rows: T, live_cols, col };
    // SAFETY: the caller's contract.
    unsafe {
        let mut y = [[s.splat(0.0); V]; T];
        if range.start > 0 {
            for t in 0..T {
                for v in 0..V {
                    y[t][v] = load(s, job.c.add((row + t) * job.c_step + col), v, live_cols);
                }
            }
        }
        let last = range.end == w.flushes();
        block_sums::<S, V, D, T, C, R>(s, coding, &mut source, job, x.x, row, col, range, &mut y);
        for t in 0..T {
            if last {
                if w.blocks == 1 {
                    scaled(s, w, x.x, row + t, col, &mut y[t]);
                }
                finish::<S, V>(s, job, y[t], row + t, col);
            } else {
                let place = Place { out: &(row + t), live_rows: 1, ..place };
                store_rows(s, &[y[t]], job.c.add(col), job.c_step, &place);
            }
        }
    }
    source
}

/// Complete sums of a row, through the epilogue into the result.
#[inline(always)]
pub(super) unsafe fn finish<S: Simd, const V: usize>(s: S, job: &Job, y: [S::F; V], row: usize, col: usize) {
    let place = Place { out: &row, live_rows: 1, live_cols: (V * LANES).min(job.w.n - col), col };
    let mut y = [y];
    // SAFETY: the caller's contract.
    unsafe {
        let c = job.c.add(col);
        job.finish.sums(s, &mut y, &place);
        store_rows(s, &y, c, job.c_step, &place);
        if job.finish.is_late() {
            let c = c.add(row * job.c_step);
            job.finish.late(std::slice::from_raw_parts_mut(c, place.live_cols), row, col);
        }
    }
}

/// What the row sums to before its blocks' zero points: the value of its digits.
#[inline(always)]
pub(super) fn total<const D: usize>(unit: f32, sums: &[i32]) -> f32 {
    let mut t = 0i64;
    for d in (0..D).rev() {
        t = (t << 8) + i64::from(sums[d]);
    }
    t as f32 * unit
}

/// `T` rows over a range of blocks: each row's operations and their order are those of the row alone.
#[inline(always)]
unsafe fn block_sums<S: Simd, const V: usize, const D: usize, const T: usize, C: Coding<S>, R: Source<S>>(
    s: S,
    coding: C,
    source: &mut R,
    job: &Job,
    x: &Digits,
    row: usize,
    col: usize,
    range: std::ops::Range<usize>,
    y: &mut [[S::F; V]; T],
) {
    let w = job.w;
    let per = 4 * C::QUADS;
    let (width, flushes) = (depth(w.k, w.bits) * D, w.flushes());
    // SAFETY: the caller's contract: panels hold their blocks, digits their rows.
    unsafe {
        let mut vectors = *source;
        let mut digits = x.bytes.as_ptr().add(row * width + range.start * w.block * D);
        for b in range {
            let len = w.block_len(b);
            let mut acc = [[[s.splat_i(0); V]; D]; T];
            for t in 0..T {
                let index = ((row + t) * flushes + b) * D;
                for d in 0..D {
                    acc[t][d] = [s.splat_i(-w.zero * *x.sums.get_unchecked(index + d)); V];
                }
            }
            for k in (0..len).step_by(per) {
                let mut quads = [[[s.splat_i(0); D]; 2]; T];
                for t in 0..T {
                    for q in 0..C::QUADS {
                        for d in 0..D {
                            quads[t][q][d] = s.quad(digits.add(t * width + d * len + k + 4 * q));
                        }
                    }
                }
                for v in 0..V {
                    let packed = vectors.next::<AHEAD>(s);
                    for q in 0..C::QUADS {
                        let codes = coding.codes(s, packed, q);
                        for part in 0..C::PARTS {
                            let byte = coding.part(s, codes, part);
                            // Digit and byte together count 256^(i + PARTS - 1); smaller products round away.
                            for t in 0..T {
                                for i in 0..D {
                                    let d = i + C::PARTS - 1 - part;
                                    if d < D {
                                        acc[t][i][v] = s.dot(acc[t][i][v], byte, quads[t][q][d]);
                                    }
                                }
                            }
                        }
                    }
                }
            }
            digits = digits.add(len * D);
            for t in 0..T {
                let index = (row + t) * flushes + b;
                let unit = *x.unit.get_unchecked(index);
                let mut worth = [s.splat(0.0); D];
                for i in 0..D {
                    worth[i] = s.splat(unit * (1u64 << (8 * (i + C::PARTS - 1))) as f32);
                }
                if w.blocks == 1 {
                    for v in 0..V {
                        for i in 0..D {
                            y[t][v] = s.fma(worth[i], s.to_f(acc[t][i][v]), y[t][v]);
                        }
                    }
                    continue;
                }
                let at = col * w.blocks + b * V * LANES;
                for v in 0..V {
                    let mut sum = s.mul(worth[0], s.to_f(acc[t][0][v]));
                    for i in 1..D {
                        sum = s.fma(worth[i], s.to_f(acc[t][i][v]), sum);
                    }
                    y[t][v] = s.fma(scale(s, w, at + v * LANES), sum, y[t][v]);
                }
                if let Some(o) = &w.offsets {
                    let sums = x.sums.get_unchecked(index * D..(index + 1) * D);
                    let sum = s.splat(total::<D>(unit, sums));
                    for v in 0..V {
                        y[t][v] = s.fma(s.load(o.as_ptr().add(at + v * LANES)), sum, y[t][v]);
                    }
                }
            }
        }
        *source = vectors;
    }
}

#[inline(always)]
pub(super) unsafe fn scale<S: Simd>(s: S, w: &PackedCodes, at: usize) -> S::F {
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
pub(super) unsafe fn scaled<S: Simd, const V: usize>(
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
                WORDS => total::<WORDS>(x.unit[b], &x.sums[b * WORDS..]),
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
