//! kernel: bytes of what an activation that registers of a tile do not hold makes of rows in scratch memory.

use super::ByColumn;
use crate::dispatch::Tier;
use crate::epilogue::Activation;
use crate::simd::{LANES, Simd, tiered};
use crate::vecmath::{Map, gelu, gelu_tanh, sigmoid, silu, tanh};

/// Columns of rows: values one row after the other, bytes in a result.
pub(crate) struct Piece<'a> {
    /// Where row `first` starts.
    pub x: *const f32,
    /// Where row 0 of the result starts, and how far its rows are apart.
    pub y: *mut u8,
    pub step: usize,
    pub rows: &'a [usize],
    pub first: usize,
    /// Columns, and the first of them.
    pub cols: usize,
    pub col: usize,
}

impl ByColumn {
    /// Quantizes what `act` makes of a piece, by the product with the reciprocal, whose rounding may differ at a tie.
    ///
    /// # Safety
    /// The columns have scales; rows and columns of the piece are valid for reading in `x` and for writing in `y`.
    pub(crate) unsafe fn activated(&self, tier: Tier, act: Activation, piece: &Piece) {
        debug_assert!(piece.col + piece.cols <= self.scale.len());
        // SAFETY: passed on.
        unsafe { activated(tier, self, act, piece) }
    }
}

tiered! {
    /// # Safety
    /// As [`ByColumn::activated`].
    unsafe fn activated(s: S; by: &ByColumn, act: Activation, piece: &Piece) {
        match act {
            Activation::Sigmoid => all(s, by, piece, Sigmoid),
            Activation::Silu => all(s, by, piece, Silu),
            Activation::Tanh => all(s, by, piece, Tanh),
            Activation::GeluErf => all(s, by, piece, GeluErf),
            Activation::GeluTanh => all(s, by, piece, GeluTanh),
            _ => all(s, by, piece, Same),
        }
    }
}

macro_rules! maps {
    ($($name:ident: |$s:ident, $x:ident| $e:expr;)*) => {$(
        #[derive(Clone, Copy)]
        struct $name;

        impl Map for $name {
            #[inline(always)]
            fn map<S: Simd>(self, $s: S, $x: S::F) -> S::F {
                $e
            }
        }
    )*};
}

maps! {
    Sigmoid: |s, x| sigmoid(s, x);
    Silu: |s, x| silu(s, x);
    Tanh: |s, x| tanh(s, x);
    GeluErf: |s, x| gelu(s, x);
    GeluTanh: |s, x| gelu_tanh(s, x);
    Same: |_s, x| x;
}

/// Vectors of columns one after the other, each of all rows, so that nothing but values is read in the loop.
///
/// # Safety
/// As [`ByColumn::activated`].
#[inline(always)]
unsafe fn all<S: Simd, G: Map>(s: S, by: &ByColumn, piece: &Piece, g: G) {
    let mut at = 0;
    while at < piece.cols {
        let live = (piece.cols - at).min(LANES);
        let col = piece.col + at;
        // SAFETY: the caller's contract, for the live columns.
        unsafe {
            let inverse = s.load_up_to(by.inverse.as_ptr().add(col), live);
            let zero = s.load_up_to(by.zero.as_ptr().add(col), live);
            let (low, high) = (s.sub(s.splat(by.low), zero), s.sub(s.splat(by.high), zero));
            let zero = s.to_i(zero);
            for &row in piece.rows {
                let x = piece.x.add((row - piece.first) * piece.cols + at);
                // Whole vectors do not ask which lanes live.
                let x = if live == LANES { s.load(x) } else { s.load_up_to(x, live) };
                let q = s.min(s.max(s.mul(g.map(s, x), inverse), low), high);
                s.store_bytes(piece.y.wrapping_add(row * piece.step + col), s.add_i(s.to_i(q), zero), live);
            }
        }
        at += LANES;
    }
}
