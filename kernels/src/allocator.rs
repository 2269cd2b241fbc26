//! What the C library does with memory that is freed.

/// Keeps freed memory in the process instead of returning it to the system, where the C library is glibc; elsewhere it does
/// nothing. A training step frees and takes the same few hundred megabytes again, and pages that come new from the system
/// have to be cleared: an eighth of a step. For a whole program to decide, once, at its beginning.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: these settings are numbers alone, and the C library takes them at any time.
    unsafe {
        libc::mallopt(libc::M_MMAP_MAX, 0); // no allocation gets a mapping of its own, which would go when it is freed
        libc::mallopt(libc::M_TRIM_THRESHOLD, libc::c_int::MAX);
        libc::mallopt(libc::M_TOP_PAD, 256 << 20);
    }
}
