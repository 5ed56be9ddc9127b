//! Kernels compiled for AVX2 and FMA.

use crate::simd::Avx2;
use crate::tile::{Tiles, tiles};

/// A vector is two registers: 12 of 16 hold sums.
pub(crate) static TILES: Tiles = tiles! { tile, Avx2::new(), [#[target_feature(enable = "avx2,fma,f16c")]];
    1: 1 2 3 4 6;
};

/// Fewer sums: the exact 8-bit product needs registers of its own.
pub(crate) static TILES_I8: Tiles = tiles! { tile_i8, Avx2::new(), [#[target_feature(enable = "avx2,fma,f16c")]];
    1: 1 2 3 4;
};

/// The same where one instruction multiplies and adds bytes.
pub(crate) static TILES_I8_VNNI: Tiles = tiles! { tile_i8, Avx2::with_vnni(), [#[target_feature(enable = "avx2,fma,f16c,avxvnni")]];
    1: 1 2 3 4;
};
