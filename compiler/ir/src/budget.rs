//! The one door for sizes that come from outside: checked products, one limit per tensor, one for all live tensors.

use crate::{DType, Error, Result};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

static TENSOR_LIMIT: AtomicUsize = AtomicUsize::new(2 << 30);
static TOTAL_LIMIT: AtomicUsize = AtomicUsize::new(usize::MAX);
static STEP_LIMIT: AtomicUsize = AtomicUsize::new(1 << 20);
static WORK_LIMIT: AtomicU64 = AtomicU64::new(1 << 36);
static LIVE: AtomicUsize = AtomicUsize::new(0);

/// Highest rank any tensor may have.
pub const MAX_RANK: usize = 64;

/// Sets the largest size in bytes of one tensor (default 2 GiB).
pub fn set_tensor_limit(bytes: usize) {
    TENSOR_LIMIT.store(bytes, Relaxed);
}

/// Sets the largest sum in bytes of all tensors alive at once (default: none).
pub fn set_total_limit(bytes: usize) {
    TOTAL_LIMIT.store(bytes, Relaxed);
}

/// Sets the most iterations of a loop, those of loops inside it included (default 1 048 576).
pub fn set_step_limit(steps: usize) {
    STEP_LIMIT.store(steps, Relaxed);
}

/// An error when a loop that has made `steps` iterations may not make another.
pub fn check_steps(steps: usize) -> Result<()> {
    let limit = STEP_LIMIT.load(Relaxed);
    if steps >= limit {
        return Err(Error::limit(format!("a loop makes more than {limit} iterations")));
    }
    Ok(())
}

thread_local! {
    /// Elements that operators in subgraphs have read and made on this thread.
    static WORK: Cell<u64> = const { Cell::new(0) };
}

/// Sets the most elements that the operators in a loop's body may read and make over all iterations (default 2³⁶).
pub fn set_work_limit(elements: u64) {
    WORK_LIMIT.store(elements, Relaxed);
}

/// Counts what an operator in a subgraph reads and makes.
pub fn add_work(elements: usize) {
    WORK.set(WORK.get().wrapping_add(elements as u64));
}

/// What this thread has counted so far, for [`check_work`].
pub fn work() -> u64 {
    WORK.get()
}

/// An error when the work since the count was at `since` is more than a loop may do.
pub fn check_work(since: u64) -> Result<()> {
    let limit = WORK_LIMIT.load(Relaxed);
    if work().wrapping_sub(since) > limit {
        return Err(Error::limit(format!("the operators in a loop handle more than {limit} elements")));
    }
    Ok(())
}

/// Bytes held by owned tensors right now.
pub fn live() -> usize {
    LIVE.load(Relaxed)
}

/// Number of elements of `shape`, or an error when the product overflows or the rank is out of bounds.
pub fn elements(shape: &[usize]) -> Result<usize> {
    if shape.len() > MAX_RANK {
        return Err(Error::limit(format!("rank {} is above the limit of {MAX_RANK}", shape.len())));
    }
    if shape.contains(&0) {
        return Ok(0);
    }
    shape
        .iter()
        .try_fold(1usize, |n, &d| n.checked_mul(d))
        .filter(|&n| n <= isize::MAX as usize / 16)
        .ok_or_else(|| Error::limit(format!("shape {shape:?} has too many elements")))
}

/// Bytes of a tensor of `dtype` and `shape`, checked against the per-tensor limit.
pub fn bytes(dtype: DType, shape: &[usize]) -> Result<usize> {
    let n = dtype.storage_bytes(elements(shape)?);
    check(n)
        .map_err(|e| Error { message: format!("{dtype} tensor of shape {shape:?}: {}", e.message), ..e })?;
    Ok(n)
}

/// Checks a byte count against the per-tensor limit and what is left of the total.
pub fn check(bytes: usize) -> Result<()> {
    let limit = TENSOR_LIMIT.load(Relaxed);
    if bytes > limit {
        return Err(Error::limit(format!("needs {bytes} bytes, the limit for one tensor is {limit}")));
    }
    check_total(bytes)
}

/// What a string takes beside its letters: where it is, how long it is, and what an allocation costs.
const TEXT: usize = 64;

/// As [`check`] for `n` strings.
pub fn check_texts(n: usize) -> Result<()> {
    check(n.saturating_mul(TEXT))
}

/// Checks a byte count against what is left of the total only: for memory that several tensors share.
pub fn check_total(bytes: usize) -> Result<()> {
    let (total, live) = (TOTAL_LIMIT.load(Relaxed), live());
    if live.saturating_add(bytes) > total {
        return Err(Error::limit(format!(
            "needs {bytes} bytes on top of {live} in use, the limit is {total}"
        )));
    }
    Ok(())
}

/// An empty vector with room for `n` elements, checked and reserved fallibly.
pub fn vec<T>(n: usize) -> Result<Vec<T>> {
    let bytes =
        n.checked_mul(size_of::<T>()).ok_or_else(|| Error::limit(format!("{n} elements overflow")))?;
    check(bytes)?;
    let mut v = Vec::new();
    v.try_reserve_exact(n).map_err(|_| Error::limit(format!("cannot allocate {bytes} bytes")))?;
    Ok(v)
}

/// `n` copies of `x`, checked and reserved fallibly.
pub fn filled<T: Clone>(n: usize, x: T) -> Result<Vec<T>> {
    let mut v = vec(n)?;
    v.resize(n, x);
    Ok(v)
}

/// `n` zeros, checked. Large ones are pages that the system has not made yet: nothing is written.
pub fn zeros<T: Copy + Default>(n: usize) -> Result<Vec<T>> {
    // The allocation that may fail is tried first: the one that gives zeros cannot report it.
    drop(vec::<T>(n)?);
    Ok(vec![T::default(); n])
}

/// A share of the live total, given back on drop.
pub struct Charge(usize);

impl Charge {
    /// Takes `bytes` of the total, which its holder has allocated.
    pub fn new(bytes: usize) -> Self {
        LIVE.fetch_add(bytes, Relaxed);
        Charge(bytes)
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        LIVE.fetch_sub(self.0, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overflow_and_limits_are_errors() {
        assert!(elements(&[1 << 40, 1 << 40]).is_err());
        assert_eq!(elements(&[1 << 40, 0, 1 << 40]).unwrap(), 0);
        assert!(elements(&[1; 65]).is_err());
        assert!(bytes(DType::F32, &[1 << 40]).is_err());
        assert!(vec::<u64>(usize::MAX).is_err());
    }
}
