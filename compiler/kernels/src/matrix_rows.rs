//! The rows of a matrix as a contraction's left operand.

use crate::indirect::{Rows, Table};

/// Rows of a matrix with adjacent columns.
pub(crate) struct MatrixRows {
    pub a: *const u8,
    /// Bytes between rows.
    pub step: usize,
}

// SAFETY: points into a shared slice that outlives the call; only read.
unsafe impl Sync for MatrixRows {}

impl Rows for MatrixRows {
    fn spare_len(&self, _: usize) -> usize {
        0
    }

    fn fill(&self, first: usize, count: usize, to: Table) {
        for i in 0..count {
            to.pointers[i] = self.a.wrapping_add((first + i) * self.step).cast();
            to.out[i] = first + i;
        }
    }
}
