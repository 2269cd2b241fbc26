//! Tells whether the process was started without a standard output.
//!
//! Rust's runtime opens `/dev/null` in the place of a standard output that is closed (`program >&-`) before `main` runs,
//! so that what is written is lost without an error. Whoever promises to say when output cannot be written has to look
//! before that.

/// True if standard output was closed when the process was started; `false` where the system is not asked.
pub fn was_closed() -> bool {
    #[cfg(target_os = "linux")]
    {
        at_start::CLOSED.load(std::sync::atomic::Ordering::Relaxed)
    }
    #[cfg(not(target_os = "linux"))]
    {
        false
    }
}

#[cfg(target_os = "linux")]
mod at_start {
    use std::sync::atomic::{AtomicBool, Ordering};

    pub(super) static CLOSED: AtomicBool = AtomicBool::new(false);

    extern "C" fn look() {
        // SAFETY: `fcntl` with F_GETFD takes any number as descriptor, changes nothing, and needs nothing that the
        // runtime sets up.
        let flags = unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_GETFD) };
        CLOSED.store(flags == -1, Ordering::Relaxed);
    }

    /// The loader calls what stands in this section before `main`.
    // SAFETY: the section holds pointers to functions that take no arguments that they need and return nothing;
    // `look` is one, neither unwinds nor uses what the runtime sets up.
    #[used]
    #[unsafe(link_section = ".init_array")]
    static LOOK: extern "C" fn() = look;
}
