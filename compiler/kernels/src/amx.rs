//! kernel: contractions of bytes and of bfloat16 by the tile unit (AMX): sums of 16 rows and up to 64 columns, 64 or 32
//! products of each an instruction.
//!
//! A panel of cells is what the unit takes as its right operand, so packed weights are the same as for vectors. Sums of bytes
//! are exact, so results are the same. Those of bfloat16 are added in another order than by vectors: all rows of a product
//! run here or none, so that they do not depend on how rows are shared out. The left rows have to lie at equal distances:
//! those of a matrix do, windows are copied.

use crate::dispatch::Tier;
use crate::indirect::{Job, Lot};
use crate::pack::{Cells, Panel};
use crate::simd::LANES;
use crate::tile::{Place, Tile, Tiles, tiles};
use std::arch::asm;
use std::arch::x86_64::{
    __cpuid_count, _mm256_maskz_loadu_ps, _mm256_storeu_ps, _mm512_loadu_ps, _mm512_maskz_loadu_ps,
    _mm512_storeu_ps, _xgetbv,
};
use std::ops::Range;
use std::sync::OnceLock;

/// Rows of a tile of the unit, and its cells in a row.
pub(crate) const SIDE: usize = 16;
/// Sums of a row.
pub(crate) const WIDE: usize = 4 * LANES;
/// Rows of sums that the tallest loop below reads past the last.
const SPARE: usize = 8;
/// Sums of the tallest tile and what is read past them.
const ROOM: usize = WIDE * (2 * SIDE + SPARE);
/// Fewer rows wait for their weights, which vectors read as fast.
const LEAST_ROWS: usize = SIDE;
/// Columns up to which rows are read too seldom to be moved to where lines start.
const FEW_COLUMNS: usize = 2 * WIDE;
/// Cells of a sum that make up for its way through memory.
const LEAST_CELLS: usize = 4;

/// From sums in memory to results.
static FINISH: Tiles = tiles! { tile_sums, crate::simd::Avx512::new(), [#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]];
    1: 1 8;
    2: 1 8;
    3: 1 4;
    4: 1 4;
};

/// The same for sums of floats.
static FINISH_FLOATS: Tiles = tiles! { tile_sums_floats, crate::simd::Avx512::new(), [#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]];
    1: 1 8;
    2: 1 8;
    3: 1 4;
    4: 1 4;
};

/// Whether contractions of bytes run here on this tier.
pub(crate) fn usable(tier: Tier) -> bool {
    static USABLE: OnceLock<bool> = OnceLock::new();
    #[cfg(test)]
    if OFF.get() {
        return false;
    }
    tier == Tier::Avx512 && *USABLE.get_or_init(detect)
}

/// Whether contractions of bfloat16 run here on this tier.
pub(crate) fn multiplies_pairs(tier: Tier) -> bool {
    static PAIRS: OnceLock<bool> = OnceLock::new();
    usable(tier) && *PAIRS.get_or_init(|| __cpuid_count(LEAVES, 0).edx >> 22 & 1 == 1)
}

#[cfg(test)]
thread_local! {
    static OFF: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Runs `f` with and without the unit.
#[cfg(test)]
pub(crate) fn both(f: impl Fn()) {
    f();
    OFF.set(true);
    f();
    OFF.set(false);
}

/// Where the CPU says what it has.
const LEAVES: u32 = 7;

/// Whether the CPU has the unit and the system saves its registers; Linux does so on request.
fn detect() -> bool {
    // SAFETY: every CPU of [`Tier::Avx512`] has these leaves and the register of states.
    let (unit, saved) = unsafe { (__cpuid_count(LEAVES, 0).edx >> 24 & 3 == 3, states() >> 17 & 3 == 3) };
    unit && saved && request()
}

#[target_feature(enable = "xsave")]
unsafe fn states() -> u64 {
    // SAFETY: as [`detect`].
    unsafe { _xgetbv(0) }
}

#[cfg(all(target_os = "linux", not(miri)))]
fn request() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const REQUEST: i64 = 0x1023;
    const TILE_DATA: i64 = 18;
    let mut result = ARCH_PRCTL;
    // SAFETY: a system call that changes what the system saves of this process's registers, and nothing in its memory.
    unsafe {
        asm!("syscall", inlateout("rax") result, in("rdi") REQUEST, in("rsi") TILE_DATA, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result == 0
}

#[cfg(not(all(target_os = "linux", not(miri))))]
fn request() -> bool {
    false
}

/// Operands of the loop that tells how fast the unit is: they stay in the first-level cache.
const PROBED: usize = 24;

/// Operations of [`turn`]: a multiplication and an addition of a product are two.
pub(crate) const TURN: usize = 2 * PROBED * SIDE * WIDE * 4 * SIDE;

/// One long sum of each of 16 rows and 64 columns, for measuring; `turns` of them.
///
/// # Safety
/// The unit is [`usable`], and not in use on this thread.
pub(crate) unsafe fn turn(turns: usize) -> i32 {
    let bytes = Sums([0x0101_0101; PROBED * SIDE * LANES + WIDE]);
    let mut sums = Sums([0; WIDE * SIDE]);
    // Rows of the right operand overlap, those of the left one are the same: less memory, as many operations.
    let operands = Operands {
        a: bytes.0.as_ptr().cast(),
        a_step: 0,
        b: bytes.0.as_ptr().cast(),
        b_step: 4 * LANES,
        blocks: PROBED,
        rest: 0,
        sums: sums.0.as_mut_ptr(),
        ahead: std::ptr::null(),
        lines: 0,
    };
    // SAFETY: by the caller; each step reads a line of the left operand and 16 lines, three more for its columns, of the right.
    unsafe {
        let _configured = Configured::new(SIDE, 0);
        (0..turns).for_each(|_| four(&operands));
    }
    sums.0[0]
}

/// The left rows of a block: `rows` of `cells` four-byte cells, `step` bytes apart.
#[derive(Clone, Copy)]
pub(crate) struct Even {
    base: *const u8,
    step: usize,
    rows: usize,
    cells: usize,
    /// Cells are two of bfloat16, not four bytes.
    pairs: bool,
    /// Room for two tiles of sums, [`ROOM`] each: those of one are finished while the next are made.
    sums: *mut i32,
}

impl Even {
    /// The rows that `pointers` lead to, as in [`Lot`]; copied to `copy` where they are not at equal distances.
    ///
    /// # Safety
    /// Pointers are valid for the cells of a tap. The result is valid as long as they and `copy` are.
    pub(crate) unsafe fn of(
        job: &Job,
        pointers: &[*const f32],
        step: usize,
        count: usize,
        copy: &mut Vec<f32>,
    ) -> Option<Even> {
        let cells = job.taps * job.depth;
        let pairs = matches!(job.b.cells, Cells::Pairs { native: true });
        let takes = if pairs {
            job.count >= LEAST_ROWS && multiplies_pairs(job.tier)
        } else {
            job.integers.is_some() && count >= LEAST_ROWS && usable(job.tier)
        };
        if !takes || cells < LEAST_CELLS {
            return None;
        }
        let address = |i: usize| pointers[i] as usize;
        let apart = address(1).wrapping_sub(address(0));
        let straight = |i: usize| address(i).wrapping_sub(address(i - 1)) == apart;
        // Rows that start anywhere are two lines each time they are read.
        let lines = (address(0) | apart).is_multiple_of(64) || job.b.panels.cols <= FEW_COLUMNS;
        let as_they_are = job.taps == 1 && lines && (1..count).all(straight);
        // Rows a multiple of a page apart would share their places in the cache.
        let wide = cells.next_multiple_of(SIDE);
        let wide = if wide.is_multiple_of(256) { wide + SIDE } else { wide };
        // A vector may be written behind the last row; lines start where the first of this memory does or behind it.
        let len = 2 * ROOM + SIDE + if as_they_are { 0 } else { count * wide + SIDE };
        if copy.len() < len {
            copy.resize(len, 0.0);
        }
        let start = copy.as_mut_ptr();
        let sums = start.wrapping_add(start.align_offset(64)).cast::<i32>();
        let even = Even { base: pointers[0].cast(), step: apart, rows: count, cells, pairs, sums };
        if as_they_are {
            return Some(even);
        }
        let to = sums.wrapping_add(2 * ROOM).cast::<f32>();
        // SAFETY: the tier was checked; there is room for all rows and a vector behind them.
        unsafe { gather(pointers, step, (job.taps, job.depth), count, to, wide) };
        Some(Even { base: to.cast(), step: wide * size_of::<f32>(), ..even })
    }

    /// Multiplies the rows of a lot with a panel.
    ///
    /// # Safety
    /// As [`crate::indirect::run`], for the rows of the lot, which lie here from [`Lot::before`] on; the unit is
    /// [`Configured`] for these rows.
    pub(crate) unsafe fn multiply(&self, job: &Job, panel: Panel, lot: &Lot, cols: usize) {
        let b = job.b.data.wrapping_add(panel.col * job.b.rows).cast::<u8>();
        // Two tiles of rows read half as much of the right operand for each product; all registers have one shape then.
        let tall = self.cells.is_multiple_of(SIDE) && self.rows >= 2 * SIDE && panel.width > 1;
        let (mut row, mut made) = (0, None);
        let mut sums = [self.sums, self.sums.wrapping_add(ROOM)];
        while row < lot.count {
            // The last rows start among those before.
            let side = if tall && lot.count - row > SIDE { 2 * SIDE } else { SIDE };
            let at = lot.before + row;
            let first = at.min(self.rows.saturating_sub(side));
            let live = (first + side - at).min(lot.count - row);
            // SAFETY: the rows that the unit is configured for and a panel of the sum's cells are there, and room for the sums.
            unsafe {
                match side > SIDE {
                    true => self.two_tiles(b, panel.width, first, at, lot.all, sums[0]),
                    false => self.one_tile(b, panel.width, first, at, lot.all, sums[0]),
                }
                let made_now = (sums[0].wrapping_add((at - first) * WIDE), row..row + live);
                if let Some((sums, rows)) = made.replace(made_now) {
                    self.finish(job, panel, lot, cols, sums, rows);
                }
            }
            sums.reverse();
            row += live;
        }
        if let Some((sums, rows)) = made {
            // SAFETY: as above.
            unsafe { self.finish(job, panel, lot, cols, sums, rows) };
        }
    }

    /// From the sums of these rows of a lot to results.
    ///
    /// # Safety
    /// As [`Even::multiply`]; the sums are there, and [`SPARE`] rows behind them.
    unsafe fn finish(
        &self,
        job: &Job,
        panel: Panel,
        lot: &Lot,
        cols: usize,
        sums: *const i32,
        rows: Range<usize>,
    ) {
        let (tiles, c) =
            if self.pairs { (&FINISH_FLOATS, job.c.wrapping_add(panel.col)) } else { (&FINISH, job.c) };
        let mut row = rows.start;
        while row < rows.end {
            let (height, f) = tiles.pick(panel.width, rows.end - row);
            let live_rows = height.min(rows.end - row);
            let out = lot.out[row..].as_ptr();
            let tile = Tile {
                rows: std::ptr::null(),
                tap_step: 0,
                taps: 0,
                live: u64::MAX,
                skips: false,
                offset: 0,
                depth: 0,
                b: sums.wrapping_add((row - rows.start) * WIDE).cast(),
                b_step: WIDE,
                ahead: std::ptr::null(),
                ahead_step: 0,
                c,
                c_step: job.c_step,
                place: Place { out, live_rows, live_cols: cols, col: panel.col },
                first: true,
                last: true,
                finish: job.finish,
                integers: job.integers,
            };
            // SAFETY: the sums of these rows, and as many behind them as the loop reads.
            unsafe { f(&tile) };
            row += live_rows;
        }
    }

    /// Sums of the rows from `first` on, at most 16 of them; the rows `at` and on of a block of `all` have their turn.
    ///
    /// # Safety
    /// As [`Even::multiply`]; `sums` has room for 16 rows.
    unsafe fn one_tile(
        &self,
        b: *const u8,
        width: usize,
        first: usize,
        at: usize,
        all: usize,
        sums: *mut i32,
    ) {
        let row_bytes = width * LANES * size_of::<f32>();
        let blocks = self.cells / SIDE;
        // The next panel follows in memory: each tile asks for its share.
        let lines = (row_bytes * SIDE * blocks / 64).div_ceil(blocks.max(1) * all.div_ceil(SIDE));
        let operands = Operands {
            a: self.base.wrapping_add(first * self.step),
            a_step: self.step,
            b,
            b_step: row_bytes,
            blocks,
            rest: self.cells % SIDE,
            sums,
            ahead: b.wrapping_add(row_bytes * self.cells + at / SIDE * blocks * lines * 64),
            lines,
        };
        // SAFETY: by the caller.
        unsafe {
            match (self.pairs, width) {
                (false, 1) => one(&operands),
                (false, 2) => two(&operands),
                (false, 3) => three(&operands),
                (false, _) => four(&operands),
                (true, 1) => one_pair(&operands),
                (true, 2) => two_pairs(&operands),
                (true, 3) => three_pairs(&operands),
                (true, _) => four_pairs(&operands),
            }
        }
    }

    /// Sums of 32 rows from `first` on, two vectors of columns at a time.
    ///
    /// # Safety
    /// As [`Even::multiply`]; cells go by 16, there are 32 rows, and `sums` has room for them.
    unsafe fn two_tiles(
        &self,
        b: *const u8,
        width: usize,
        first: usize,
        at: usize,
        all: usize,
        sums: *mut i32,
    ) {
        const COLUMN: usize = LANES * size_of::<f32>();
        let row_bytes = width * COLUMN;
        let (blocks, passes) = (self.cells / SIDE, width / 2);
        let lines = (row_bytes * self.cells / 64).div_ceil(blocks * passes * all.div_ceil(2 * SIDE));
        let of = |rows: usize, column: usize| Operands {
            a: self.base.wrapping_add((first + rows) * self.step),
            a_step: self.step,
            b: b.wrapping_add(column * COLUMN),
            b_step: row_bytes,
            blocks,
            rest: 0,
            sums: sums.wrapping_add(rows * WIDE + column * LANES),
            ahead: std::ptr::null(),
            lines: 0,
        };
        for pass in 0..passes {
            let turn = at / (2 * SIDE) * passes + pass;
            let ahead = b.wrapping_add(row_bytes * self.cells + turn * blocks * lines * 64);
            let operands = Operands { ahead, lines, ..of(0, 2 * pass) };
            // SAFETY: by the caller.
            unsafe { if self.pairs { square_pairs(&operands) } else { square(&operands) } }
        }
        if width % 2 == 1 {
            for rows in [0, SIDE] {
                let operands = of(rows, width - 1);
                // SAFETY: by the caller.
                unsafe { if self.pairs { one_pair(&operands) } else { one(&operands) } }
            }
        }
    }
}

#[repr(align(64))]
pub(crate) struct Sums<const N: usize>(pub [i32; N]);

/// Copies the taps of each row behind each other.
///
/// # Safety
/// As [`Even::of`]; `to` has room for `count` rows of `wide` cells and one vector.
#[target_feature(enable = "avx512f,avx512vl")]
unsafe fn gather(
    pointers: &[*const f32],
    step: usize,
    (taps, depth): (usize, usize),
    count: usize,
    to: *mut f32,
    wide: usize,
) {
    let (whole, rest) = (depth / LANES * LANES, depth % LANES);
    let (live, live_of_half) = ((1_u16 << rest) - 1, (1_u16 << rest.min(LANES / 2)).wrapping_sub(1) as u8);
    for r in 0..count {
        let mut to = to.wrapping_add(r * wide);
        for tap in 0..taps {
            let from = pointers[tap * step + r];
            // SAFETY: live cells of the tap; what is written behind them is written again or is room.
            unsafe {
                for k in (0..whole).step_by(LANES) {
                    _mm512_storeu_ps(to.add(k), _mm512_loadu_ps(from.add(k)));
                }
                if rest > LANES / 2 {
                    _mm512_storeu_ps(to.add(whole), _mm512_maskz_loadu_ps(live, from.add(whole)));
                } else if rest > 0 {
                    _mm256_storeu_ps(to.add(whole), _mm256_maskz_loadu_ps(live_of_half, from.add(whole)));
                }
            }
            to = to.wrapping_add(depth);
        }
    }
}

/// The registers of the unit, in use until dropped: four of sums, an operand each, and an operand each of the last cells,
/// or of more rows and columns where there are no such cells.
pub(crate) struct Configured;

impl Configured {
    /// # Safety
    /// The unit is [`usable`], and not in use on this thread.
    pub(crate) unsafe fn for_rows(rows: &Even) -> Configured {
        // SAFETY: passed on.
        unsafe { Configured::new(SIDE.min(rows.rows), rows.cells % SIDE) }
    }

    /// For `live` rows, and `rest` cells behind those that go by 16.
    ///
    /// # Safety
    /// As [`Configured::for_rows`]; there are 1 to 16 rows, and fewer than 16 cells.
    pub(crate) unsafe fn new(live: usize, rest: usize) -> Configured {
        #[repr(C, align(64))]
        struct Palette([u8; 64]);
        let mut p = Palette([0; 64]);
        p.0[0] = 1;
        let mut register = |i: usize, rows: usize, bytes: usize| {
            (p.0[16 + 2 * i], p.0[48 + i]) = (bytes as u8, rows as u8);
        };
        (0..5).for_each(|i| register(i, live, 4 * SIDE));
        register(5, SIDE, 4 * SIDE);
        let (row, column) = if rest > 0 { ((live, 4 * rest), rest) } else { ((SIDE, 4 * SIDE), SIDE) };
        register(6, row.0, row.1);
        register(7, column, 4 * SIDE);
        // SAFETY: a palette that every such unit has.
        unsafe { asm!("ldtilecfg [{}]", in(reg) p.0.as_ptr(), options(nostack, readonly, preserves_flags)) };
        Configured
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        // SAFETY: the registers hold nothing that is still read.
        unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) };
    }
}

/// Rows from `a`, a panel from `b`, their sums, [`WIDE`] apart; steps in bytes.
pub(crate) struct Operands {
    pub a: *const u8,
    pub a_step: usize,
    pub b: *const u8,
    pub b_step: usize,
    /// Products in steps of 64, and cells left after them.
    pub blocks: usize,
    pub rest: usize,
    pub sums: *mut i32,
    /// What is asked for meanwhile: so many lines with each step.
    pub ahead: *const u8,
    pub lines: usize,
}

/// What each step asks for: `lines` of what is `ahead`.
macro_rules! asks {
    () => {
        "mov {left}, {lines}
        test {left}, {left}
        jz 4f
        3:
        prefetcht1 [{ahead}]
        add {ahead}, 64
        dec {left}
        jnz 3b
        4:"
    };
}

macro_rules! multiply {
    ($name:ident, $dot:literal, $($sum:literal at $at:literal),*) => {
        /// # Safety
        /// The unit is configured for these rows and cells, which are there.
        pub(crate) unsafe fn $name(o: &Operands) {
            // SAFETY: by the caller; the registers are the unit's own.
            unsafe {
                asm!(
                    $(concat!("tilezero tmm", $sum),)*
                    "test {blocks}, {blocks}",
                    "jz 5f",
                    "2:",
                    asks!(),
                    "tileloadd tmm4, [{a} + {a_step}*1]",
                    $(
                        concat!("tileloadd tmm5, [{b} + {b_step}*1 + ", $at, "]"),
                        concat!($dot, " tmm", $sum, ", tmm4, tmm5"),
                    )*
                    "add {a}, 64",
                    "add {b}, {block}",
                    "dec {blocks}",
                    "jnz 2b",
                    "5:",
                    "test {rest}, {rest}",
                    "jz 6f",
                    "tileloadd tmm6, [{a} + {a_step}*1]",
                    $(
                        concat!("tileloadd tmm7, [{b} + {b_step}*1 + ", $at, "]"),
                        concat!($dot, " tmm", $sum, ", tmm6, tmm7"),
                    )*
                    "6:",
                    "mov {block}, 256",
                    $(concat!("tilestored [{sums} + {block}*1 + ", $at, "], tmm", $sum),)*
                    a = inout(reg) o.a => _,
                    a_step = in(reg) o.a_step,
                    b = inout(reg) o.b => _,
                    b_step = in(reg) o.b_step,
                    block = inout(reg) SIDE * o.b_step => _,
                    blocks = inout(reg) o.blocks => _,
                    rest = in(reg) o.rest,
                    sums = in(reg) o.sums,
                    ahead = inout(reg) o.ahead => _,
                    lines = in(reg) o.lines,
                    left = out(reg) _,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
        }
    };
}

/// 32 rows and two vectors of columns.
macro_rules! square {
    ($name:ident, $dot:literal) => {
        /// # Safety
        /// The unit is configured for 16 rows and no cells behind those that go by 16; 32 rows and two vectors of columns are
        /// there.
        unsafe fn $name(o: &Operands) {
            // SAFETY: by the caller; the registers are the unit's own.
            unsafe {
                asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    "2:",
                    asks!(),
                    "tileloadd tmm4, [{a} + {a_step}*1]",
                    "tileloadd tmm6, [{b} + {b_step}*1]",
                    concat!($dot, " tmm0, tmm4, tmm6"),
                    "tileloadd tmm5, [{below} + {a_step}*1]",
                    concat!($dot, " tmm2, tmm5, tmm6"),
                    "tileloadd tmm7, [{b} + {b_step}*1 + 64]",
                    concat!($dot, " tmm1, tmm4, tmm7"),
                    concat!($dot, " tmm3, tmm5, tmm7"),
                    "add {a}, 64",
                    "add {below}, 64",
                    "add {b}, {block}",
                    "dec {blocks}",
                    "jnz 2b",
                    "mov {block}, 256",
                    "tilestored [{sums} + {block}*1], tmm0",
                    "tilestored [{sums} + {block}*1 + 64], tmm1",
                    "tilestored [{sums} + {block}*1 + 4096], tmm2",
                    "tilestored [{sums} + {block}*1 + 4160], tmm3",
                    a = inout(reg) o.a => _,
                    below = inout(reg) o.a.wrapping_add(SIDE * o.a_step) => _,
                    a_step = in(reg) o.a_step,
                    b = inout(reg) o.b => _,
                    b_step = in(reg) o.b_step,
                    block = inout(reg) SIDE * o.b_step => _,
                    blocks = inout(reg) o.blocks => _,
                    sums = in(reg) o.sums,
                    ahead = inout(reg) o.ahead => _,
                    lines = in(reg) o.lines,
                    left = out(reg) _,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
        }
    };
}

const _: () = assert!(WIDE * size_of::<i32>() == 256 && SIDE * 256 == 4096);

square!(square, "tdpbusd");
square!(square_pairs, "tdpbf16ps");

multiply!(one, "tdpbusd", 0 at 0);
multiply!(two, "tdpbusd", 0 at 0, 1 at 64);
multiply!(three, "tdpbusd", 0 at 0, 1 at 64, 2 at 128);
multiply!(four, "tdpbusd", 0 at 0, 1 at 64, 2 at 128, 3 at 192);
multiply!(one_pair, "tdpbf16ps", 0 at 0);
multiply!(two_pairs, "tdpbf16ps", 0 at 0, 1 at 64);
multiply!(three_pairs, "tdpbf16ps", 0 at 0, 1 at 64, 2 at 128);
multiply!(four_pairs, "tdpbf16ps", 0 at 0, 1 at 64, 2 at 128, 3 at 192);
// Signed bytes on the left, unsigned ones on the right.
multiply!(four_codes, "tdpbsud", 0 at 0, 1 at 64, 2 at 128, 3 at 192);
