//! The packed right operand of a bfloat16 contraction: cells of two weights in the panels of [`crate::pack`].

use crate::bf16;
use crate::dispatch::Tier;
use crate::error::{Error, product};
use crate::pack::{Cells, PackedB, PackedRef, Strides};
use crate::stored::{Reader, Stored, Writer};

/// Weights rounded to bfloat16 and packed once, for one tier.
#[derive(Clone)]
pub struct PackedBf16 {
    cells: PackedB,
    /// Products of a tap; its cells are half as many, rounded up.
    pub(crate) tap: usize,
    pub(crate) taps: usize,
    native: bool,
}

/// Which instruction multiplies is a matter of the CPU that reads.
impl Stored for PackedBf16 {
    fn put<'a>(&'a self, out: &mut Writer<'a>) {
        self.cells.put(out);
        self.tap.put(out);
        self.taps.put(out);
    }
    fn take(from: &mut Reader) -> Option<PackedBf16> {
        let (cells, tap, taps) = <(PackedB, usize, usize)>::take(from)?;
        let fits = tap.div_ceil(2).checked_mul(taps) == Some(cells.k()) && tap.checked_mul(taps).is_some();
        let native = cells.tier() == Tier::Avx512 && bf16::native();
        fits.then_some(PackedBf16 { native, cells, tap, taps })
    }
}

impl PackedBf16 {
    /// Packs an operand of `k × n` elements at `strides`.
    pub fn from_strided(
        tier: Tier,
        b: &[f32],
        strides: Strides,
        k: usize,
        n: usize,
    ) -> Result<PackedBf16, Error> {
        strides.check("B", b.len(), k, n)?;
        PackedBf16::new(tier, 1, k, n, |_, row, col| b[row * strides.row + col * strides.col])
    }

    /// Packs the elements `f(tap, product of the tap, column)`.
    pub(crate) fn new(
        tier: Tier,
        taps: usize,
        tap: usize,
        n: usize,
        f: impl Fn(usize, usize, usize) -> f32,
    ) -> Result<PackedBf16, Error> {
        let cells = tap.div_ceil(2);
        let rows = product("the weights leave the address space", &[taps, cells])?;
        let cells = PackedB::from_fn(tier, rows, n, |row, col| {
            let (t, first) = (row / cells, row % cells * 2);
            let second = if first + 1 < tap { f(t, first + 1, col) } else { 0.0 };
            bf16::cell(f(t, first, col), second)
        })?;
        Ok(PackedBf16 { native: cells.tier() == Tier::Avx512 && bf16::native(), cells, tap, taps })
    }

    /// The same for CPUs without instructions for bfloat16.
    #[cfg(test)]
    pub(crate) fn widened(self) -> PackedBf16 {
        PackedBf16 { native: false, ..self }
    }

    /// Products of a sum.
    pub fn k(&self) -> usize {
        self.tap * self.taps
    }

    /// Columns of the result.
    pub fn n(&self) -> usize {
        self.cells.n()
    }

    /// The tier the layout is made for.
    pub fn tier(&self) -> Tier {
        self.cells.tier()
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.cells.bytes()
    }

    /// Whether products run on the CPU's own instruction.
    pub fn is_native(&self) -> bool {
        self.native
    }

    pub(crate) fn view(&self) -> PackedRef {
        PackedRef { cells: Cells::Pairs { native: self.native }, ..self.cells.view() }
    }
}
