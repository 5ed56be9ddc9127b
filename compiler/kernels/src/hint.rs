//! What the compiler and the cache are told.

use std::sync::OnceLock;

/// Asks for the cache line at `p`, which need not exist.
#[inline(always)]
pub(crate) fn prefetch(p: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch does not fault.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(p.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = p;
}

/// How many floats ahead of its products a tile asks for its weights to be in the first-level cache; 0 for not at all.
/// CPUs that make two vectors of products in a cycle wait for the second level otherwise (mnist-cnn 0.30 to 0.27 ms on one of
/// Intel's); it was measured on no others.
#[inline(always)]
pub(crate) fn near() -> usize {
    const AHEAD: usize = 2048 / size_of::<f32>();
    static NEAR: OnceLock<usize> = OnceLock::new();
    *NEAR.get_or_init(|| if crate::dispatch::is_intel() { AHEAD } else { 0 })
}

/// Asks for the cache line at `p`, which need not exist, to be in the second-level cache.
#[inline(always)]
pub(crate) fn prefetch_outer(p: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch does not fault.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(p.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = p;
}

/// Asks for the cache line at `p`, which need not exist, to write to it.
#[inline(always)]
pub(crate) fn prefetch_to_write(p: *mut f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch does not fault.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_ET0 }>(p.cast_const().cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = p;
}

/// `p`, of which the compiler may no longer assume how it was computed: it would otherwise derive the addresses of a
/// tile from each other, one after the other.
#[inline(always)]
pub(crate) fn opaque(mut p: *const f32) -> *const f32 {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    #[allow(clippy::pointers_in_nomem_asm_block)] // nothing is read through it
    // SAFETY: no instruction.
    unsafe {
        std::arch::asm!("/* {0} */", inout(reg) p, options(pure, nomem, nostack, preserves_flags));
    }
    p
}
