//! The allocator's policy for programs that handle whole models.

/// From now on, freed blocks above a quarter of a megabyte go back to the system at once. The C library would keep ever
/// larger ones after each that was freed, which doubles the peak of a search that frees statistics before it runs models.
pub fn return_freed_blocks() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const THRESHOLD: libc::c_int = 256 << 10;
        // SAFETY: mallopt only sets parameters of the allocator, under its own lock; any int is a valid value.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, THRESHOLD);
            libc::mallopt(libc::M_TRIM_THRESHOLD, THRESHOLD);
        }
    }
}
