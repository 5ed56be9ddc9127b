//! Kernels in plain Rust.

use crate::simd::Portable;
use crate::tile::{Tiles, tiles};

pub(crate) static TILES: Tiles = tiles! { tile, Portable, [];
    1: 1 2;
};

/// The same over 8-bit integers.
pub(crate) static TILES_I8: Tiles = tiles! { tile_i8, Portable, [];
    1: 1 2;
};
