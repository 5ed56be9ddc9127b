//! Kernels compiled for AVX-512.

use crate::simd::Avx512;
use crate::tile::{Tiles, tiles};

/// 24 sums in registers leave room for the operands; fewer rows serve the last rows of a matrix.
pub(crate) static TILES: Tiles = tiles! { tile, Avx512::new(), [#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]];
    1: 1 2 4 8 12;
    2: 1 2 4 6 8;
    3: 1 2 4 6 8;
    4: 1 2 3 4 5 6;
};

/// The same shapes over 8-bit integers.
pub(crate) static TILES_I8: Tiles = tiles! { tile_i8, Avx512::new(), [#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]];
    1: 1 2 4 8 12;
    2: 1 2 4 6 8;
    3: 1 2 4 6 8;
    4: 1 2 3 4 5 6;
};
