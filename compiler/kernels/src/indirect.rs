//! kernel: the loops around the register tile: a matrix product whose left rows are lists of pointers.
//!
//! Rows are cut into blocks whose input stays in the second-level cache, columns are the packed panels, and the sum
//! is cut where a panel would crowd that cache; the sum continues from the stored result, in the same
//! order, so no cut changes a bit. After Dukhan, The Indirect Convolution Algorithm (2019).

#[cfg(target_arch = "x86_64")]
use crate::amx::{Configured, Even};
use crate::epilogue::{Activation, Finish};
use crate::integers::Integers;
use crate::pack::{Cells, PackedRef, Panel};
use crate::parallel::Pool;
use crate::quantizer::{ByColumn, Piece};
use crate::simd::LANES;
use crate::tile::{MOST_ROWS, Place, Tile, Tiles};
use crate::{Tier, gemv_f32, narrow_f32};
use std::cell::RefCell;
use std::ops::Range;

/// Where the left rows are and where the result's rows go.
pub(crate) trait Rows: Sync {
    /// Elements [`Rows::fill`] needs for `count` rows beside the input: zeros, padded copies.
    fn spare_len(&self, count: usize) -> usize;

    /// Writes the pointer of row `first + i` for tap `t` to `table[t · step + i]` and the index of its result row to
    /// `out[i]`.
    fn fill(&self, first: usize, count: usize, to: Table);
}

/// What [`Rows::fill`] writes.
pub(crate) struct Table<'a> {
    pub pointers: &'a mut [*const f32],
    pub step: usize,
    pub out: &'a mut [usize],
    pub spare: &'a mut [f32],
    /// For each row the taps at which it is not all zeros, one bit each; empty where nobody asks.
    pub live: &'a mut [u64],
}

/// A product of `count` rows with a packed operand of `taps · depth` rows.
pub(crate) struct Job<'a> {
    pub tier: Tier,
    pub rows: &'a dyn Rows,
    pub count: usize,
    pub taps: usize,
    pub depth: usize,
    /// Products with taps at which [`Rows`] reads nothing but zeros may be left out: the operand is finite.
    pub skips: bool,
    /// Bytes of input that a row adds to a block.
    pub row_bytes: usize,
    pub b: PackedRef,
    pub c: *mut f32,
    pub c_step: usize,
    pub finish: &'a Finish,
    /// The operands hold cells of four 8-bit integers, and this says what becomes of their sums.
    pub integers: Option<&'a Integers>,
    /// Results that are finished late are quantized after that: `c` holds bytes, and values only pass through scratch memory.
    pub quantized: Option<&'a ByColumn>,
}

// SAFETY: tasks write disjoint blocks of `c`; everything else is read.
unsafe impl Sync for Job<'_> {}

impl Job<'_> {
    /// Products with zeros are left out.
    fn skips(&self) -> bool {
        self.skips && self.taps <= MOST_TAPS
    }
}

/// Bytes of a panel up to which sums stay in registers: it comes from the second-level cache as fast as it is needed, and
/// sums that are stored and read again cost more than a panel in the first-level cache saves.
const PANEL_BYTES: usize = 96 << 10;
/// Sums of a tile that take less time than their weights, where these come from memory.
const FEW_SUMS: usize = 16;
/// Bytes of input rows that the second-level cache keeps beside the panel.
const BLOCK_BYTES: usize = 256 << 10;
/// Every tile height of the widest tier divides this, and the rows of the tile unit.
const ROW_UNIT: usize = 48;
/// Fewest rows that threads get for themselves: a block reads all panels.
const LEAST_ROWS: usize = 12;
/// Pointers of a block.
const MOST_POINTERS: usize = 8192;
/// Taps of which it is known where they are live.
const MOST_TAPS: usize = 64;
/// One in so many terms of the sums must be zero for rows to be sorted.
const FEW_DEAD: usize = 24;

/// Runs the product.
///
/// # Safety
/// `fill` gives pointers valid for `depth` elements and result rows such that `c + out · c_step` is valid for as
/// many elements as the panels have columns, no two rows alike; `finish` was made for these rows and columns.
pub(crate) unsafe fn run(pool: &dyn Pool, job: &Job) {
    let panels = job.b.panels.count();
    if job.count == 0 || panels == 0 {
        return;
    }
    if job.count == 1 && job.taps == 1 && job.integers.is_none() && job.b.cells == Cells::One {
        // SAFETY: the caller's contract.
        return unsafe { gemv_f32::run(pool, job) };
    }
    let threads = pool.threads().max(1);
    let rows = block_rows(job, threads);
    let blocks = job.count.div_ceil(rows);
    let groups = if threads == 1 { 1 } else { (3 * threads).div_ceil(blocks).min(panels) };
    let share = panels.div_ceil(groups);
    // As many panels for each thread, where they can be shared out so.
    let share = (share / 2 + 1..=share).rev().find(|s| panels.is_multiple_of(s * threads)).unwrap_or(share);
    let groups = panels.div_ceil(share);
    let task = |index: usize| {
        let (block, group) = (index / groups, index % groups);
        let first = block * rows;
        let count = rows.min(job.count - first);
        // SAFETY: the caller's contract; blocks and groups are disjoint parts of the result.
        unsafe { self::block(job, first, count, group * share..panels.min((group + 1) * share)) };
    };
    match blocks * groups {
        tasks if threads == 1 || tasks == 1 => (0..tasks).for_each(task),
        tasks => pool.run(tasks, &task),
    }
}

/// Columns of groups that share one table of pointers: with more a table of their own costs little.
pub(crate) const NARROW: usize = 32;

/// Runs the products of groups, whose rows are those of the first job, each `shift` bytes behind those of the group before.
///
/// # Safety
/// As [`run`] for each job and these rows; what the pointers lead to beside the input has room for all shifts.
pub(crate) unsafe fn run_groups(pool: &dyn Pool, jobs: &[Job], shift: usize) {
    let Some(job) = jobs.first().filter(|j| j.count > 0) else { return };
    let threads = pool.threads().max(1);
    let rows = block_rows(job, threads);
    let blocks = job.count.div_ceil(rows);
    let parts = if threads == 1 { 1 } else { (3 * threads).div_ceil(blocks).min(jobs.len()) };
    let share = jobs.len().div_ceil(parts);
    let parts = jobs.len().div_ceil(share);
    let task = |index: usize| {
        let (block, part) = (index / parts, index % parts);
        let first = block * rows;
        let of = part * share..jobs.len().min((part + 1) * share);
        // SAFETY: the caller's contract; blocks and groups are disjoint parts of the result.
        unsafe { grouped(jobs, of, shift, first, rows.min(job.count - first)) };
    };
    match blocks * parts {
        tasks if threads == 1 || tasks == 1 => (0..tasks).for_each(task),
        tasks => pool.run(tasks, &task),
    }
}

/// # Safety
/// As [`run_groups`], for the rows and groups given.
unsafe fn grouped(jobs: &[Job], of: Range<usize>, shift: usize, first: usize, count: usize) {
    let mut scratch = SCRATCH.take();
    let step = filled(&jobs[0], first, count, &mut scratch);
    let further = |pointers: &mut [*const f32], bytes: usize| {
        pointers.iter_mut().for_each(|p| *p = p.cast::<u8>().wrapping_add(bytes).cast());
    };
    let Scratch { pointers, out, live, piece, .. } = &mut scratch;
    let pointers = &mut pointers[..jobs[0].taps * step];
    let live = &live[..if jobs[0].skips() { count } else { 0 }];
    further(pointers, of.start * shift);
    for job in &jobs[of] {
        let lot = Lot {
            pointers,
            step,
            out: &out[..step],
            count,
            live,
            before: 0,
            all: count,
            #[cfg(target_arch = "x86_64")]
            even: None,
        };
        for index in 0..job.b.panels.count() {
            // SAFETY: the caller's contract.
            unsafe { panel(job, job.b.panels.get(index), lot, piece) };
        }
        further(pointers, shift);
    }
    SCRATCH.set(scratch);
}

fn block_rows(job: &Job, threads: usize) -> usize {
    let cached = BLOCK_BYTES / job.row_bytes.max(1);
    // Threads have different parts of what is larger: the panels, or the rows, those of the result among them.
    let panels = job.b.panels.count();
    let bytes = job.b.panels.len(job.b.rows).saturating_mul(size_of::<f32>());
    let row = job.row_bytes.saturating_add(job.b.panels.cols * size_of::<f32>());
    let columns = panels >= 2 * threads && bytes > job.count.saturating_mul(row);
    let most = cached.min(MOST_POINTERS / job.taps).clamp(ROW_UNIT, 480);
    let most = if most < 480 { most / ROW_UNIT * ROW_UNIT } else { 480 };
    if threads == 1 || columns { most } else { shared_rows(job.count, most, threads) }
}

/// Rows of a block, at most `most`, such that each of `threads` gets as many blocks, and these follow each other: its rows
/// are then those that it wrote as the job before, which its own cache still holds.
fn shared_rows(count: usize, most: usize, threads: usize) -> usize {
    let blocks = count.div_ceil(most).next_multiple_of(threads);
    count.div_ceil(blocks).max(LEAST_ROWS.min(most))
}

#[derive(Default)]
struct Scratch {
    pointers: Vec<*const f32>,
    out: Vec<usize>,
    spare: Vec<f32>,
    piece: Vec<f32>,
    rows: Vec<f32>,
    live: Vec<u64>,
    /// Rows in the order in which they are multiplied, and a column of a table that is being sorted.
    order: Vec<(u64, usize)>,
    column: Vec<*const f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

fn grow<T: Copy>(v: &mut Vec<T>, len: usize, x: T) -> &mut [T] {
    if v.len() < len {
        v.resize(len, x);
    }
    &mut v[..len]
}

/// Makes the table of `count` rows from `first` on; returns its step.
fn filled(job: &Job, first: usize, count: usize, scratch: &mut Scratch) -> usize {
    let step = count + MOST_ROWS;
    let pointers = grow(&mut scratch.pointers, job.taps * step, std::ptr::null());
    let out = grow(&mut scratch.out, step, 0);
    let spare = grow(&mut scratch.spare, job.rows.spare_len(count), 0.0);
    let skips = job.skips();
    let live = grow(&mut scratch.live, if skips { count } else { 0 }, 0);
    live.fill(u64::MAX >> (MOST_TAPS - job.taps.clamp(1, MOST_TAPS)));
    job.rows.fill(first, count, Table { pointers, step, out, spare, live });
    if skips {
        let table = Table { pointers, step, out, spare: &mut [], live };
        sort(table, job.taps, &mut scratch.order, &mut scratch.column);
    }
    for tap in 0..job.taps {
        let last = pointers[tap * step + count - 1];
        pointers[tap * step + count..(tap + 1) * step].fill(last);
    }
    step
}

/// # Safety
/// As [`run`], for the rows and panels given.
pub(crate) unsafe fn block(job: &Job, first: usize, count: usize, panels: Range<usize>) {
    let mut scratch = SCRATCH.take();
    let step = filled(job, first, count, &mut scratch);
    let (pointers, out) = (&scratch.pointers[..job.taps * step], &scratch.out[..step]);
    let live = &scratch.live[..if job.skips() { count } else { 0 }];
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the caller's contract; the copy outlives the panels, and nothing else on this thread uses the unit.
    let (even, _configured) = unsafe {
        let even = Even::of(job, pointers, step, count, &mut scratch.rows);
        (even, even.map(|e| Configured::for_rows(&e)))
    };
    for index in panels {
        let lot = Lot {
            pointers,
            step,
            out,
            count,
            live,
            before: 0,
            all: count,
            #[cfg(target_arch = "x86_64")]
            even,
        };
        // SAFETY: the caller's contract.
        unsafe { panel(job, job.b.panels.get(index), lot, &mut scratch.piece) };
    }
    SCRATCH.set(scratch);
}

/// Rows of one block that a panel is multiplied with.
#[derive(Clone, Copy)]
pub(crate) struct Lot<'a> {
    /// The pointer of row `i` for tap `t` is at `t · step + i`; [`MOST_ROWS`] more follow the last.
    pointers: &'a [*const f32],
    step: usize,
    /// Their rows of the result, and as many more.
    pub out: &'a [usize],
    /// The taps of each row at which it is not zero, where those may be skipped.
    live: &'a [u64],
    pub count: usize,
    /// Rows of the block before these, and all of it.
    pub before: usize,
    pub all: usize,
    /// All rows of the block, where the tile unit takes them.
    #[cfg(target_arch = "x86_64")]
    even: Option<Even>,
}

impl<'a> Lot<'a> {
    fn part(&self, rows: Range<usize>) -> Lot<'a> {
        let (pointers, out) = (&self.pointers[rows.start..], &self.out[rows.start..]);
        let live = self.live.get(rows.start..).unwrap_or(&[]);
        Lot { pointers, out, live, count: rows.len(), before: self.before + rows.start, ..*self }
    }
}

/// # Safety
/// As [`run`], for the rows of the lot.
unsafe fn panel(job: &Job, panel: Panel, lot: Lot, piece: &mut Vec<f32>) {
    let Some(by) = job.quantized else {
        // SAFETY: the caller's contract.
        return unsafe { values(job, panel, lot) };
    };
    let cols = (panel.width * LANES).min(job.b.panels.cols - panel.col);
    let ends = job.finish.ends_in();
    let (act, finish) = ends.as_ref().map_or((Activation::None, job.finish), |(act, rest)| (*act, rest));
    // Few rows at a time, whose values the first-level cache keeps beside the panel.
    for start in (0..lot.count).step_by(ROW_UNIT) {
        let lot = lot.part(start..lot.count.min(start + ROW_UNIT));
        let out = &lot.out[..lot.count];
        let (first, last) = out.iter().fold((usize::MAX, 0), |(a, b), &o| (a.min(o), b.max(o)));
        let start = grow(piece, (last + 1 - first) * cols, 0.0).as_mut_ptr();
        // Where the result's first row and column would be: only the rows and columns of this piece are touched.
        let c = start.wrapping_sub(first * cols + panel.col);
        let through = Job { c, c_step: cols, quantized: None, finish, ..*job };
        // SAFETY: the piece has room for the rows from `first` to `last`; the rest is the caller's contract, by which no
        // other task writes these columns of these rows.
        unsafe {
            values(&through, panel, lot);
            let (y, step) = (job.c.cast(), job.c_step);
            let piece = Piece { x: start, y, step, rows: out, first, cols, col: panel.col };
            by.activated(job.tier, act, &piece);
        }
    }
}

/// # Safety
/// As [`panel`], for results that are no late bytes.
unsafe fn values(job: &Job, panel: Panel, lot: Lot) {
    let width = panel.width * LANES;
    let Lot { pointers, step, out, live, count, before, all, .. } = lot;
    let cols = width.min(job.b.panels.cols - panel.col);
    #[cfg(target_arch = "x86_64")]
    if let Some(even) = lot.even {
        // SAFETY: the caller's contract; the unit was configured for the block.
        unsafe { even.multiply(job, panel, &lot, cols) };
        return late(job, panel, out, count, cols);
    }
    let tiles = match job.b.cells {
        Cells::Pairs { native } => crate::tile_bf16::of(job.tier, native),
        Cells::One if job.integers.is_some() => Tiles::of_integers(job.tier),
        Cells::One => Tiles::of(job.tier),
    };
    let c = job.c.wrapping_add(panel.col);
    // Integer sums stay in registers: what is stored is not a sum that could be continued.
    let most = if job.integers.is_some() { usize::MAX } else { PANEL_BYTES / (width * size_of::<f32>()) };
    if let Some(len) = narrow_f32::weights(job) {
        // SAFETY: the caller's contract.
        unsafe { narrow_f32::panel(job, panel, cols, (pointers, step), out, count, len) };
        return late(job, panel, out, count, cols);
    }
    let anywhere = if live.is_empty() { u64::MAX } else { live.iter().fold(0, |all, l| all | l) };
    cuts(job.taps, job.depth, most, |cut| {
        let mut row = 0;
        // The next part of the operand follows in memory: the tiles of this one ask for it, each for its share.
        let b = job.b.data.wrapping_add(panel.col * job.b.rows + cut.first * width);
        let row_bytes = width * size_of::<f32>();
        let follows = cut.taps.end - usize::from(cut.offset + cut.depth < job.depth);
        let part = if follows < MOST_TAPS && anywhere >> follows & 1 == 0 && follows < job.taps {
            0 // nobody reads what comes next
        } else {
            cut.taps.len() * cut.depth * row_bytes
        };
        while row < count {
            let (height, f) = tiles.pick(panel.width, count - row);
            let here = match live.get(row..count.min(row + height)) {
                Some(live) if !live.is_empty() => cut.of(live.iter().fold(0, |all, l| all | l), job.depth),
                _ => Some((u64::MAX, cut.first == 0, cut.last)),
            };
            let Some((live, first, last)) = here else {
                row += height;
                continue;
            };
            // One tile of few sums waits for memory alone: what the CPU asks for by itself comes sooner.
            let alone = height >= count && height * panel.width <= FEW_SUMS;
            let asked = (part as u64 * (before + row) as u64 / all as u64) as usize;
            let tile = Tile {
                rows: pointers[cut.taps.start * step + row..].as_ptr(),
                tap_step: step,
                taps: cut.taps.len(),
                live,
                skips: job.skips,
                offset: cut.offset,
                depth: cut.depth,
                b,
                b_step: width,
                ahead: b.cast::<u8>().wrapping_add(part + asked),
                ahead_step: if part == 0 || alone { 0 } else { row_bytes * height.min(count - row) / all },
                c: if job.integers.is_some() { job.c } else { c },
                c_step: job.c_step,
                place: Place {
                    out: out[row..].as_ptr(),
                    live_rows: height.min(count - row),
                    live_cols: cols,
                    col: panel.col,
                },
                first,
                last,
                finish: job.finish,
                integers: job.integers,
            };
            // SAFETY: the caller's contract; rows past the last repeat its pointers.
            unsafe { f(&tile) };
            row += height;
        }
    });
    late(job, panel, out, count, cols);
}

/// What is too costly for registers, over the rows of a panel.
fn late(job: &Job, panel: Panel, out: &[usize], count: usize, cols: usize) {
    let c = job.c.wrapping_add(panel.col);
    if job.finish.is_late() {
        // Rows that are one run in memory are finished as one.
        let joined = cols == job.c_step && job.finish.joins(cols);
        let mut i = 0;
        while i < count {
            let run =
                if joined { (i + 1..count).take_while(|&j| out[j] == out[i] + j - i).count() + 1 } else { 1 };
            // SAFETY: rows of the result, which no other task writes.
            unsafe {
                let piece = std::slice::from_raw_parts_mut(c.add(out[i] * job.c_step), run * cols);
                job.finish.late(piece, out[i], panel.col);
            }
            i += run;
        }
    }
}

/// A part of the sum.
struct Cut {
    taps: Range<usize>,
    /// Where in each tap it starts and how long it is.
    offset: usize,
    depth: usize,
    /// Products before it.
    first: usize,
    last: bool,
}

impl Cut {
    /// For rows that are zero but at the taps of `live`: which of the cut's taps count, and whether it is the first and
    /// the last that does; `None` where it adds nothing.
    fn of(&self, live: u64, depth: usize) -> Option<(u64, bool, bool)> {
        let below = |tap: usize| if tap < MOST_TAPS { (1 << tap) - 1 } else { u64::MAX };
        let here = live & below(self.taps.end) & !below(self.taps.start);
        if here == 0 {
            // Sums of nothing are stored too.
            return (live == 0 && self.last).then_some((0, true, true));
        }
        let first = live & below(self.taps.start) == 0 && self.offset == 0;
        let last = live & !below(self.taps.end) == 0 && self.offset + self.depth == depth;
        Some((here >> self.taps.start, first, last))
    }
}

/// Brings rows that are zero at the same taps together, where enough are zero for tiles of them to be made with fewer.
fn sort(table: Table, taps: usize, order: &mut Vec<(u64, usize)>, column: &mut Vec<*const f32>) {
    let Table { pointers, step, out, live, .. } = table;
    let dead = live.iter().map(|l| taps - l.count_ones() as usize).sum::<usize>();
    if dead * FEW_DEAD < live.len() * taps {
        return;
    }
    order.clear();
    order.extend(live.iter().copied().zip(0..));
    order.sort_unstable();
    for column_of in pointers.chunks_exact_mut(step).take(taps) {
        column.clear();
        column.extend(order.iter().map(|&(_, from)| column_of[from]));
        column_of[..column.len()].copy_from_slice(column);
    }
    // The index of a row has served: it makes place for that of the result's row.
    order.iter_mut().for_each(|(_, from)| *from = out[*from]);
    for ((out, live), row) in out.iter_mut().zip(live).zip(order.iter()) {
        (*live, *out) = *row;
    }
}

/// Cuts a sum of `taps · depth` into parts of about `most` products.
fn cuts(taps: usize, depth: usize, most: usize, mut f: impl FnMut(Cut)) {
    let total = taps * depth;
    if total <= most.saturating_add(most / 2) {
        return f(Cut { taps: 0..taps, offset: 0, depth, first: 0, last: true });
    }
    if depth <= most {
        let share = taps.div_ceil(total.div_ceil(most));
        for start in (0..taps).step_by(share) {
            let end = taps.min(start + share);
            f(Cut { taps: start..end, offset: 0, depth, first: start * depth, last: end == taps });
        }
        return;
    }
    let share = depth.div_ceil(depth.div_ceil(most)).next_multiple_of(4);
    for tap in 0..taps {
        for offset in (0..depth).step_by(share) {
            let end = depth.min(offset + share);
            let last = tap + 1 == taps && end == depth;
            f(Cut { taps: tap..tap + 1, offset, depth: end - offset, first: tap * depth + offset, last });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_end_together() {
        for (count, most) in [(3136, 432), (12544, 480), (784, 480), (196, 480), (49, 480), (5000, 96)] {
            for threads in [2, 3, 8] {
                let rows = shared_rows(count, most, threads);
                assert!(rows <= most);
                let mut busy = vec![0; threads];
                for first in (0..count).step_by(rows) {
                    let next = busy.iter_mut().min().unwrap();
                    *next += rows.min(count - first);
                }
                let share = count.div_ceil(threads);
                let worst = busy.into_iter().max().unwrap();
                assert!(worst <= share + share / 8 + LEAST_ROWS, "{count} {threads}: {rows} {worst}");
            }
        }
    }

    #[test]
    fn cuts_cover_the_sum_in_order() {
        for (taps, depth) in [(1, 0), (1, 7), (1, 5000), (9, 64), (9, 1000), (49, 3), (3, 159), (25, 161)] {
            for width in [16, 32, 48, 64] {
                let (mut next, mut done) = (0, false);
                cuts(taps, depth, PANEL_BYTES / (width * 4), |cut| {
                    assert!(!done);
                    assert_eq!(cut.first, next);
                    assert_eq!(cut.taps.start * depth + cut.offset, next);
                    assert!(cut.taps.len() == 1 || cut.depth == depth);
                    next += cut.taps.len() * cut.depth;
                    done = cut.last;
                });
                assert!(done && next == taps * depth);
            }
        }
    }
}
