//! What the compiler and the cache are told.

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
