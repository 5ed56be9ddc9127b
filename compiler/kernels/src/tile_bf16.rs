//! kernel: the register tile of a bfloat16 contraction: each cell of the operands is two of them, whose products are
//! added to a float32 sum.

use crate::dispatch::Tier;
use crate::simd::{LANES, Simd};
use crate::tile::{Tile, Tiles, store_rows, tiles};

/// How a lane of cells is multiplied and added.
trait Pairs<S: Simd> {
    fn add(s: S, acc: S::F, a: S::I, b: S::I) -> S::F;
}

/// The halves as float32, which every CPU has: products are exact, each is added with one rounding.
struct Widened;

impl<S: Simd> Pairs<S> for Widened {
    #[inline(always)]
    fn add(s: S, acc: S::F, a: S::I, b: S::I) -> S::F {
        let low = |x: S::I| s.of_bits(s.shl_i::<16>(x));
        let high = |x: S::I| s.of_bits(s.and_i(x, s.splat_i(-0x1_0000)));
        s.fma(low(a), low(b), s.fma(high(a), high(b), acc))
    }
}

/// # Safety
/// As [`crate::tile::TileFn`].
#[inline(always)]
unsafe fn run<S: Simd, P: Pairs<S>, const R: usize, const V: usize>(s: S, t: &Tile) {
    let place = &t.place;
    // SAFETY: the contract of `TileFn`; cells have the size of floats.
    unsafe {
        let mut acc = [[s.splat(0.0); V]; R];
        if !t.first {
            for r in 0..R {
                if r < place.live_rows {
                    let c = t.c.add(*place.out.add(r) * t.c_step);
                    for v in 0..V {
                        acc[r][v] = crate::tile::load(s, c, v, place.live_cols);
                    }
                }
            }
        }
        let mut b = t.b;
        for tap in 0..t.taps {
            let rows = t.rows.add(tap * t.tap_step);
            let mut a = [std::ptr::null::<i32>(); R];
            for r in 0..R {
                a[r] = (*rows.add(r)).add(t.offset).cast();
            }
            for k in 0..t.depth {
                let mut bv = [s.splat_i(0); V];
                for v in 0..V {
                    bv[v] = s.bits(s.load(b.add(v * LANES)));
                }
                for r in 0..R {
                    let x = s.splat_i(*a[r].add(k));
                    for v in 0..V {
                        acc[r][v] = P::add(s, acc[r][v], x, bv[v]);
                    }
                }
                b = b.add(t.b_step);
            }
        }
        if t.last {
            t.finish.sums(s, &mut acc, place);
        }
        store_rows(s, &acc, t.c, t.c_step, place);
    }
}

/// The loop for CPUs without the instruction.
///
/// # Safety
/// As [`crate::tile::TileFn`].
#[inline(always)]
pub(crate) unsafe fn tile<S: Simd, const R: usize, const V: usize>(s: S, t: &Tile) {
    // SAFETY: the caller's contract.
    unsafe { run::<S, Widened, R, V>(s, t) }
}

/// The loop around `vdpbf16ps`.
#[cfg(target_arch = "x86_64")]
pub(crate) mod native {
    use super::*;
    use crate::simd::Avx512;
    use std::arch::x86_64::*;

    struct Dot;

    impl Pairs<Avx512> for Dot {
        #[inline(always)]
        fn add(_: Avx512, acc: __m512, a: __m512i, b: __m512i) -> __m512 {
            // SAFETY: this runs inside the functions of `TILES`, which `of` gives only where the CPU has AVX512-BF16;
            // registers only.
            unsafe {
                let cells = |x: __m512i| std::mem::transmute::<__m512i, __m512bh>(x);
                _mm512_dpbf16_ps(acc, cells(a), cells(b))
            }
        }
    }

    /// # Safety
    /// As [`crate::tile::TileFn`]; the CPU has AVX512-BF16.
    #[inline(always)]
    pub(crate) unsafe fn tile<S: Into<Avx512>, const R: usize, const V: usize>(s: S, t: &Tile) {
        // SAFETY: the caller's contract.
        unsafe { run::<Avx512, Dot, R, V>(s.into(), t) }
    }

    pub(super) static TILES: Tiles = tiles! { tile_bf16_native, Avx512::new(), [#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]];
        1: 1 2 4 8 12;
        2: 1 2 4 6 8;
        3: 1 2 4 6 8;
        4: 1 2 3 4 5 6;
    };
}

/// Fewer sums than over floats: the halves of an operand take registers of their own.
#[cfg(target_arch = "x86_64")]
static TILES_AVX512: Tiles = tiles! { tile_bf16, crate::simd::Avx512::new(), [#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]];
    1: 1 2 4 8;
    2: 1 2 4 6;
    3: 1 2 4;
    4: 1 2 3;
};

#[cfg(target_arch = "x86_64")]
static TILES_AVX2: Tiles = tiles! { tile_bf16, crate::simd::Avx2::new(), [#[target_feature(enable = "avx2,fma,f16c")]];
    1: 1 2 3 4;
};

static TILES_PORTABLE: Tiles = tiles! { tile_bf16, crate::simd::Portable, [];
    1: 1 2;
};

/// The tiles of a tier, with the instruction where `native` and the tier's CPUs may have it.
pub(crate) fn of(tier: Tier, native: bool) -> &'static Tiles {
    let _ = native;
    match tier {
        #[cfg(target_arch = "x86_64")]
        Tier::Avx512 if native && crate::bf16::native() => &native::TILES,
        #[cfg(target_arch = "x86_64")]
        Tier::Avx512 => &TILES_AVX512,
        #[cfg(target_arch = "x86_64")]
        Tier::Avx2 => &TILES_AVX2,
        _ => &TILES_PORTABLE,
    }
}
