//! Kernels compiled for AVX2 and FMA.

use crate::simd::Avx2;
use crate::tile::{Tiles, tiles};

/// A vector is two registers: 12 of 16 hold sums.
pub(crate) static TILES: Tiles = tiles! { Avx2::new(), "avx2,fma,f16c";
    1: 1 2 3 4 6;
};
