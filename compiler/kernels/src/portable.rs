//! Kernels in plain Rust.

use crate::simd::Portable;
use crate::tile::{Tiles, tiles};

pub(crate) static TILES: Tiles = tiles! { Portable;
    1: 1 2;
};
