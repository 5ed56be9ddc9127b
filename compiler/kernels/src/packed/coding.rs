//! kernel: from packed vectors to bytes that dot products take.

use super::entries::Entries;
use crate::simd::Simd;

/// How a vector of packed weights becomes bytes.
///
/// A vector holds 16 outputs; each lane holds the codes of [`Coding::QUADS`] times four inputs.
pub(super) trait Coding<S: Simd>: Copy {
    /// Times four inputs in a lane.
    const QUADS: usize;
    /// Bytes of a weight.
    const PARTS: usize;

    /// Codes of quad `q`, one a byte.
    fn codes(self, s: S, packed: S::I, q: usize) -> S::I;

    /// Byte `part` of what the codes stand for.
    fn part(self, s: S, codes: S::I, part: usize) -> S::I;
}

/// Two codes a byte: in the low halves the first four inputs, in the high halves the next.
#[inline(always)]
fn nibbles<S: Simd>(s: S, packed: S::I, q: usize) -> S::I {
    let shifted = if q == 0 { packed } else { s.sar_i::<4>(packed) };
    s.and_i(shifted, s.splat_i(0x0f0f_0f0f))
}

/// Integers of four bits.
#[derive(Clone, Copy)]
pub(super) struct Nibbles;

impl<S: Simd> Coding<S> for Nibbles {
    const QUADS: usize = 2;
    const PARTS: usize = 1;
    #[inline(always)]
    fn codes(self, s: S, packed: S::I, q: usize) -> S::I {
        nibbles(s, packed, q)
    }
    #[inline(always)]
    fn part(self, _: S, codes: S::I, _: usize) -> S::I {
        codes
    }
}

/// Integers of eight bits.
#[derive(Clone, Copy)]
pub(super) struct Bytes;

impl<S: Simd> Coding<S> for Bytes {
    const QUADS: usize = 1;
    const PARTS: usize = 1;
    #[inline(always)]
    fn codes(self, _: S, packed: S::I, _: usize) -> S::I {
        packed
    }
    #[inline(always)]
    fn part(self, _: S, codes: S::I, _: usize) -> S::I {
        codes
    }
}

/// Four-bit codes of entries with `P` bytes.
#[derive(Clone, Copy)]
pub(super) struct Table16<S: Simd, const P: usize>([S::I; P]);

impl<S: Simd, const P: usize> Table16<S, P> {
    #[inline(always)]
    pub(super) fn new(s: S, entries: &Entries) -> Self {
        let mut tables = [s.splat_i(0); P];
        for (p, t) in tables.iter_mut().enumerate() {
            *t = s.four_times(entries.part(p));
        }
        Table16(tables)
    }
}

impl<S: Simd, const P: usize> Coding<S> for Table16<S, P> {
    const QUADS: usize = 2;
    const PARTS: usize = P;
    #[inline(always)]
    fn codes(self, s: S, packed: S::I, q: usize) -> S::I {
        nibbles(s, packed, q)
    }
    #[inline(always)]
    fn part(self, s: S, codes: S::I, part: usize) -> S::I {
        s.lookup(self.0[part], codes)
    }
}

/// Eight-bit codes of entries with `P` bytes.
#[derive(Clone, Copy)]
pub(super) struct Table256<S: Simd, const P: usize>([[S::I; 4]; P]);

impl<S: Simd, const P: usize> Table256<S, P> {
    #[inline(always)]
    pub(super) fn new(s: S, entries: &Entries) -> Self {
        let mut tables = [[s.splat_i(0); 4]; P];
        for (p, t) in tables.iter_mut().enumerate() {
            for (quarter, t) in entries.part(p).chunks_exact(64).zip(t) {
                // SAFETY: a quarter holds 64 bytes.
                *t = unsafe { s.load_i(quarter.as_ptr().cast()) };
            }
        }
        Table256(tables)
    }
}

impl<S: Simd, const P: usize> Coding<S> for Table256<S, P> {
    const QUADS: usize = 1;
    const PARTS: usize = P;
    #[inline(always)]
    fn codes(self, _: S, packed: S::I, _: usize) -> S::I {
        packed
    }
    #[inline(always)]
    fn part(self, s: S, codes: S::I, part: usize) -> S::I {
        s.lookup_wide(self.0[part], codes)
    }
}
