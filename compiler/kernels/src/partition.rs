//! Work cut into ranges, and a slice cut into the disjoint parts that tasks write.

use crate::parallel::Pool;
use std::ops::Range;

/// Scalars below which a task is not worth handing over.
pub(crate) const GRAIN: usize = 16 * 1024;

/// Runs `f` over consecutive ranges that cover `0..n`, of about `grain` items or more and as many for every thread.
pub(crate) fn ranges(pool: &dyn Pool, n: usize, grain: usize, f: &(dyn Fn(Range<usize>) + Sync)) {
    if n == 0 {
        return;
    }
    let most = pool.threads().max(1).saturating_mul(4);
    let tasks = if pool.threads() <= 1 { 1 } else { n.div_ceil(grain.max(1)).clamp(1, most) };
    if tasks == 1 {
        return f(0..n);
    }
    let size = n.div_ceil(tasks.next_multiple_of(pool.threads()));
    pool.run(n.div_ceil(size), &|t| f(t * size..n.min((t + 1) * size)));
}

/// A mutable slice whose parts are handed to tasks.
pub(crate) struct Parts<'a, T> {
    start: *mut T,
    len: usize,
    life: std::marker::PhantomData<&'a mut [T]>,
}

// SAFETY: access goes through `part`, whose caller vouches that no two tasks share an element.
unsafe impl<T: Send> Sync for Parts<'_, T> {}

impl<'a, T> Parts<'a, T> {
    pub(crate) fn of(slice: &'a mut [T]) -> Self {
        Parts { start: slice.as_mut_ptr(), len: slice.len(), life: std::marker::PhantomData }
    }

    /// # Safety
    /// No other part in use meets `range`.
    #[allow(clippy::mut_from_ref)] // disjoint parts, which the caller vouches for
    pub(crate) unsafe fn part(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: inside the slice, which is borrowed for 'a; disjointness is the caller's.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }

    /// The whole, for kernels that write elements other than a range.
    pub(crate) fn as_mut_ptr(&self) -> *mut T {
        self.start
    }
}

/// Runs `f(first_row, rows_of_out)` over groups of whole rows of `width` elements.
pub(crate) fn rows<T: Send>(
    pool: &dyn Pool,
    out: &mut [T],
    width: usize,
    f: &(dyn Fn(usize, &mut [T]) + Sync),
) {
    if width == 0 {
        return;
    }
    let count = out.len() / width;
    let parts = Parts::of(out);
    ranges(pool, count, GRAIN.div_ceil(width), &|r| {
        // SAFETY: ranges are disjoint.
        f(r.start, unsafe { parts.part(r.start * width..r.end * width) })
    });
}
