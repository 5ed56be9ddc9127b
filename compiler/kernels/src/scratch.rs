//! Working memory of one task, kept by its thread from call to call.

use std::cell::Cell;

thread_local! {
    static KEPT: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Calls `f` with `len` elements of unspecified values, aligned to a cache line.
pub(crate) fn with<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    const LINE: usize = 16;
    let mut kept = KEPT.take();
    if kept.len() < len + LINE {
        kept.resize(len + LINE, 0.0);
    }
    let start = kept.as_ptr().align_offset(64).min(LINE);
    let result = f(&mut kept[start..start + len]);
    KEPT.set(kept);
    result
}
