//! The allocator's policy for programs that handle whole models.

/// From now on, all threads share one heap that grows by a megabyte at a time and keeps what is freed, blocks of up to two
/// megabytes too: where one model is opened and run, which is what starts soonest. (The C library would give each thread a
/// heap that asks the system for every page by itself, and freed blocks of 128 kB and more back to it.)
pub fn one_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const BLOCK: libc::c_int = 2 << 20;
        const STEP: libc::c_int = 1 << 20;
        const TOP: libc::c_int = 16 << 20;
        // SAFETY: as below.
        unsafe {
            libc::mallopt(libc::M_ARENA_MAX, 1);
            libc::mallopt(libc::M_TOP_PAD, STEP);
            libc::mallopt(libc::M_MMAP_THRESHOLD, BLOCK);
            libc::mallopt(libc::M_TRIM_THRESHOLD, TOP);
        }
    }
}

/// From now on, freed blocks of two megabytes and more go back to the system at once. The C library would keep ever larger
/// ones after each that was freed, which doubles the peak of a search that frees statistics before it runs models; weights
/// of usual layers are below, as a search makes and drops thousands of that size.
pub fn return_freed_blocks() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const BLOCK: libc::c_int = 2 << 20;
        const TOP: libc::c_int = 4 << 20;
        // SAFETY: mallopt only sets parameters of the allocator, under its own lock; any int is a valid value.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, BLOCK);
            libc::mallopt(libc::M_TRIM_THRESHOLD, TOP);
        }
    }
}
