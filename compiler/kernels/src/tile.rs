//! kernel: the register tile of a contraction: up to 12 rows × 4 vectors of sums, finished and stored.
//!
//! A row of the left operand is a list of pointers, one for each tap: a matrix has one tap, a convolution one for
//! each position of its window, so both run through this loop without a copy of the input.

use crate::dispatch::Tier;
use crate::epilogue::Finish;
use crate::hint::{near, prefetch, prefetch_outer, prefetch_to_write};
use crate::integers::Integers;
use crate::simd::{LANES, Simd};

/// One call of a register tile.
pub(crate) struct Tile<'a> {
    /// Row `r` of tap `t` starts at `rows[t · tap_step + r]`, plus `offset`.
    pub rows: *const *const f32,
    pub tap_step: usize,
    pub taps: usize,
    /// A bit for each of the first 64 taps: products of those without are left out, as all rows are zero there.
    pub live: u64,
    /// Whether products may be left out of any tile of the result: where all were below the smallest number, what is left
    /// out decides about the sign of zero, so all tiles give the positive one.
    pub skips: bool,
    pub offset: usize,
    /// Products summed for each tap.
    pub depth: usize,
    /// The right operand: `taps · depth` rows of vectors, `b_step` apart.
    pub b: *const f32,
    pub b_step: usize,
    /// What of the right operand is asked for meanwhile, and how many bytes of it with each product of the sum; 0 for none.
    pub ahead: *const u8,
    pub ahead_step: usize,
    /// Row `r` is stored at `c + out[r] · c_step`.
    pub c: *mut f32,
    pub c_step: usize,
    pub place: Place,
    /// Sums start at zero instead of at what `c` holds.
    pub first: bool,
    /// Sums are complete: run the epilogue.
    pub last: bool,
    pub finish: &'a Finish,
    /// For the tiles of [`crate::tile_i8`].
    pub integers: Option<&'a Integers>,
}

/// Which part of the result a tile makes.
pub(crate) struct Place {
    /// The result's row for each row of the tile.
    pub out: *const usize,
    /// Rows stored; pointers of the others are read but their sums dropped.
    pub live_rows: usize,
    /// Columns stored.
    pub live_cols: usize,
    /// The first column, for the epilogue's operands.
    pub col: usize,
}

/// A compiled tile.
///
/// # Safety
/// Every pointer of the [`Tile`] is valid for the extents its sizes give; the CPU has the tier of the table.
pub(crate) type TileFn = unsafe fn(&Tile);

/// The shapes of one tier: `by_width[v - 1]` lists `(rows, kernel)` for tiles of `v` vectors, rows ascending.
pub(crate) struct Tiles {
    by_width: &'static [&'static [(usize, TileFn)]],
}

impl Tiles {
    pub(crate) fn of(tier: Tier) -> &'static Tiles {
        match tier {
            #[cfg(target_arch = "x86_64")]
            Tier::Avx512 => &crate::avx512::TILES,
            #[cfg(target_arch = "x86_64")]
            Tier::Avx2 => &crate::avx2::TILES,
            _ => &crate::portable::TILES,
        }
    }

    /// The tiles whose cells are four 8-bit integers; they have the shapes of [`Tiles::of`].
    pub(crate) fn of_integers(tier: Tier) -> &'static Tiles {
        match tier {
            #[cfg(target_arch = "x86_64")]
            Tier::Avx512 => &crate::avx512::TILES_I8,
            #[cfg(target_arch = "x86_64")]
            Tier::Avx2 if is_x86_feature_detected!("avxvnni") => &crate::avx2::TILES_I8_VNNI,
            #[cfg(target_arch = "x86_64")]
            Tier::Avx2 => &crate::avx2::TILES_I8,
            _ => &crate::portable::TILES_I8,
        }
    }

    pub(crate) const fn new(by_width: &'static [&'static [(usize, TileFn)]]) -> Tiles {
        Tiles { by_width }
    }

    /// Vectors of the widest tile.
    pub(crate) fn widest(&self) -> usize {
        self.by_width.len()
    }

    /// The tile of `width` vectors for the next of `rows` remaining rows: its height and kernel.
    #[inline]
    pub(crate) fn pick(&self, width: usize, rows: usize) -> (usize, TileFn) {
        let list = self.by_width[width - 1];
        // Two tiles alike instead of a tall one and a rest that waits for its operands.
        let tallest = list[list.len() - 1].0;
        let rows = if rows > tallest && rows < 2 * tallest { rows.div_ceil(2) } else { rows };
        for &(height, f) in list {
            if height >= rows {
                return (height, f);
            }
        }
        list[list.len() - 1]
    }
}

/// Rows that any tile may read past the last.
pub(crate) const MOST_ROWS: usize = 16;

/// Sums of a tile whose products leave time to ask for a line.
pub(crate) const LONG_ENOUGH: usize = 12;
/// Bytes of a cache line.
const LINE: usize = 64;

/// Asks for what follows in the right operand: where few rows share it, they wait for memory, so that each product asks
/// for all that is read in its time.
#[inline(always)]
pub(crate) fn ask<const R: usize, const V: usize>(ahead: *const u8, step: usize) -> *const u8 {
    if R * V < LONG_ENOUGH || step == 0 {
        return ahead;
    }
    prefetch_outer(ahead);
    if step > LINE {
        (1..V).filter(|v| v * LINE < step).for_each(|v| prefetch_outer(ahead.wrapping_add(v * LINE)));
    }
    ahead.wrapping_add(step)
}

/// The loop itself, compiled for each tier and shape by [`tiles!`].
///
/// # Safety
/// As [`TileFn`].
#[inline(always)]
pub(crate) unsafe fn tile<S: Simd, const R: usize, const V: usize>(s: S, t: &Tile) {
    let place = &t.place;
    // SAFETY: the contract of `TileFn`; partial vectors are read by their live lanes.
    unsafe {
        let mut acc = [[s.splat(0.0); V]; R];
        if !t.first {
            for r in 0..R {
                if r < place.live_rows {
                    let c = t.c.add(*place.out.add(r) * t.c_step);
                    for v in 0..V {
                        acc[r][v] = load(s, c, v, place.live_cols);
                    }
                }
            }
        }
        if t.first {
            // Where the sums go is asked for while they are made: short ones would wait for it.
            for r in 0..R {
                let c = t.c.wrapping_add(*place.out.add(r) * t.c_step);
                (0..V).for_each(|v| prefetch_to_write(c.wrapping_add(v * LANES)));
            }
        }
        let (mut b, mut ahead, near) = (t.b, t.ahead, near());
        for tap in 0..t.taps {
            if tap < 64 && t.live >> tap & 1 == 0 {
                b = b.add(t.depth * t.b_step);
                continue;
            }
            let rows = t.rows.add(tap * t.tap_step);
            let mut a = [std::ptr::null::<f32>(); R];
            for r in 0..R {
                a[r] = (*rows.add(r)).add(t.offset);
            }
            for k in 0..t.depth {
                let mut bv = [s.splat(0.0); V];
                for v in 0..V {
                    bv[v] = s.load(b.add(v * LANES));
                }
                if R * V >= LONG_ENOUGH && near > 0 {
                    (0..V).for_each(|v| prefetch(b.wrapping_add(near + v * LANES)));
                }
                ahead = ask::<R, V>(ahead, t.ahead_step);
                for r in 0..R {
                    let x = s.splat(*a[r].add(k));
                    for v in 0..V {
                        acc[r][v] = s.fma(x, bv[v], acc[r][v]);
                    }
                }
                b = b.add(t.b_step);
            }
        }
        if t.last {
            if t.skips {
                for r in 0..R {
                    for v in 0..V {
                        acc[r][v] = s.add(acc[r][v], s.splat(0.0));
                    }
                }
            }
            t.finish.sums(s, &mut acc, place);
        }
        store_rows(s, &acc, t.c, t.c_step, place);
    }
}

/// Stores the live part of a tile.
///
/// # Safety
/// `c + out[r] · c_step` is valid for writing `live_cols` elements for each live row.
#[inline(always)]
pub(crate) unsafe fn store_rows<S: Simd, const R: usize, const V: usize>(
    s: S,
    acc: &[[S::F; V]; R],
    c: *mut f32,
    c_step: usize,
    place: &Place,
) {
    for r in 0..R {
        if r < place.live_rows {
            // SAFETY: the caller's contract.
            unsafe {
                let c = c.add(*place.out.add(r) * c_step);
                for v in 0..V {
                    store(s, c, v, acc[r][v], place.live_cols);
                }
            }
        }
    }
}

/// Vector `v` of a row of `live` columns; zero where the row has ended.
#[inline(always)]
pub(crate) unsafe fn load<S: Simd>(s: S, row: *const f32, v: usize, live: usize) -> S::F {
    // SAFETY: the row holds `live` elements.
    unsafe {
        if live >= (v + 1) * LANES {
            s.load(row.add(v * LANES))
        } else if live > v * LANES {
            s.load_head(row.add(v * LANES), live - v * LANES)
        } else {
            s.splat(0.0)
        }
    }
}

#[inline(always)]
unsafe fn store<S: Simd>(s: S, row: *mut f32, v: usize, x: S::F, live: usize) {
    // SAFETY: the row holds `live` elements.
    unsafe {
        if live >= (v + 1) * LANES {
            s.store(row.add(v * LANES), x);
        } else if live > v * LANES {
            s.store_head(row.add(v * LANES), x, live - v * LANES);
        }
    }
}

/// The table of a tier: for each width in vectors, the heights in rows, of the loop in module `$loop`. The bracket holds
/// the attributes under which it is compiled.
macro_rules! tiles {
    ($loop:ident, $simd:expr, $attributes:tt; $($v:literal: $($r:literal)*;)*) => {
        $crate::tile::Tiles::new(&[$(&[$(($r, tiles!(@one $loop, $simd, $r, $v, $attributes)),)*],)*])
    };
    (@one $loop:ident, $simd:expr, $r:literal, $v:literal, [$($attribute:tt)*]) => {{
        $($attribute)*
        unsafe fn shape(t: &$crate::tile::Tile) {
            // SAFETY: the contract of `TileFn`.
            unsafe { $crate::$loop::tile::<_, $r, $v>($simd, t) }
        }
        shape as $crate::tile::TileFn
    }};
}
pub(crate) use tiles;
