//! kernel: where packed vectors come from: memory as it is, or a bitmap and what is not zero.

use super::PackedCodes;
use crate::hint::{prefetch, prefetch_outer};
use crate::simd::{LANES, Simd};

/// Bytes from which on lines are asked for to be in the first-level cache: few fetches of that cache are under way at once.
const NEAR: usize = 1024;

/// Bytes of a vector.
pub(super) const VECTOR: usize = 64;

/// A stream of packed vectors.
pub(super) trait Source<S: Simd>: Copy {
    /// At the first vector of the panel at `col`.
    fn at(s: S, w: &PackedCodes, col: usize) -> Self;

    /// The next vector; `AHEAD` bytes beyond it are asked for.
    ///
    /// # Safety
    /// The panel has a next vector.
    unsafe fn next<const AHEAD: usize>(&mut self, s: S) -> S::I;
}

/// Every vector lies in memory.
#[derive(Clone, Copy)]
pub(super) struct Dense(*const u8);

impl<S: Simd> Source<S> for Dense {
    #[inline(always)]
    fn at(_: S, w: &PackedCodes, col: usize) -> Self {
        Dense(w.data.as_ptr().cast::<u8>().wrapping_add(col / LANES * w.vectors() * VECTOR))
    }
    #[inline(always)]
    unsafe fn next<const AHEAD: usize>(&mut self, s: S) -> S::I {
        prefetch_outer(self.0.wrapping_add(AHEAD));
        prefetch(self.0.wrapping_add(NEAR).cast());
        // SAFETY: the caller's contract.
        let x = unsafe { s.load_i(self.0.cast()) };
        self.0 = self.0.wrapping_add(VECTOR);
        x
    }
}

/// Bytes that are not zero, and a bit for each byte.
#[derive(Clone, Default)]
pub(super) struct Kept {
    pub masks: Vec<u64>,
    /// In the order of the masks, with a vector to spare.
    pub values: Vec<u8>,
    /// Where the values of each 16 outputs' first panel start.
    pub starts: Vec<usize>,
}

/// Vectors put together from a bitmap.
#[derive(Clone, Copy)]
pub(super) struct Sparse<S: Simd> {
    mask: *const u64,
    value: *const u8,
    zero: S::I,
}

impl<S: Simd> Source<S> for Sparse<S> {
    #[inline(always)]
    fn at(s: S, w: &PackedCodes, col: usize) -> Self {
        let zero = s.splat_i(i32::from_ne_bytes([w.zero as u8; 4]));
        let Some(kept) = &w.kept else {
            return Sparse { mask: std::ptr::null(), value: std::ptr::null(), zero };
        };
        Sparse {
            mask: kept.masks.as_ptr().wrapping_add(col / LANES * w.vectors()),
            value: kept.values.as_ptr().wrapping_add(kept.starts[col / LANES]),
            zero,
        }
    }
    #[inline(always)]
    unsafe fn next<const AHEAD: usize>(&mut self, s: S) -> S::I {
        // SAFETY: the caller's contract; values have a vector to spare.
        unsafe {
            let mask = *self.mask;
            prefetch(self.value.wrapping_add(AHEAD / 2).cast());
            let x = s.expand(mask, self.value, self.zero);
            self.mask = self.mask.add(1);
            self.value = self.value.add(mask.count_ones() as usize);
            x
        }
    }
}
