//! Handling of freed memory, and of running out of memory.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::ending::prepare_exit;

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

/// Memory that was asked for and cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{bytes} bytes of memory cannot be had")]
pub struct OutOfMemory {
    /// Bytes that were asked for.
    pub bytes: usize,
}

/// The system's allocator for a program: where memory runs out, the program ends with a sentence and exit code 1 instead of the
/// abort that Rust has for it, after what [`before_exit`](crate::before_exit) names. Those who ask whether memory can be had
/// ([`may_fail`]) are told.
///
/// ```
/// # use paceline_kernels::SystemAllocator;
/// #[global_allocator]
/// static ALLOCATOR: SystemAllocator = SystemAllocator::of("my-program");
/// ```
pub struct SystemAllocator {
    program: &'static str,
}

thread_local! {
    /// True while this thread asks for memory that it can do without.
    static MAY_FAIL: Cell<bool> = const { Cell::new(false) };
}

/// Calls `ask`, whose requests for memory may fail: under [`SystemAllocator`] the program goes on.
pub fn may_fail<T>(ask: impl FnOnce() -> T) -> T {
    /// Puts back what was before, however `ask` ends.
    struct Before(bool);
    impl Drop for Before {
        fn drop(&mut self) {
            MAY_FAIL.set(self.0);
        }
    }
    let _before = Before(MAY_FAIL.replace(true));
    ask()
}

impl SystemAllocator {
    /// The allocator of a program with this name, which begins its last sentence.
    #[must_use]
    pub const fn of(program: &'static str) -> Self {
        Self { program }
    }

    /// `memory` if there is some, or if its want was asked about.
    fn checked(&self, memory: *mut u8, bytes: usize) -> *mut u8 {
        if memory.is_null() && !MAY_FAIL.try_with(Cell::get).unwrap_or(true) {
            self.end(bytes);
        }
        memory
    }

    /// Ends the program. Nothing in here asks for memory.
    #[cold]
    fn end(&self, bytes: usize) -> ! {
        static ENDING: AtomicBool = AtomicBool::new(false);
        let mut text = [0_u8; 400];
        let mut rest = &mut text[..];
        // What does not fit is left out.
        let _ = writeln!(
            rest,
            "{}: Memory ran out: {bytes} bytes more cannot be had; take a smaller model, a lower precision or fewer tokens, or give the program more memory.",
            self.program
        );
        let left = rest.len();
        let text = &text[..text.len() - left];
        // Of several threads the first speaks, and ends the others.
        if ENDING.swap(true, Ordering::SeqCst) {
            loop {
                std::thread::sleep(std::time::Duration::from_secs(1));
            }
        }
        prepare_exit();
        leave(text)
    }
}

/// Writes to standard error, without locks that a thread may hold that waits here too, and ends the process at once.
#[cfg(target_os = "linux")]
fn leave(text: &[u8]) -> ! {
    // SAFETY: the bytes of a slice that lives on.
    let _ = unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
    // SAFETY: it ends the process; nothing of it is used afterwards.
    unsafe { libc::_exit(1) }
}

/// Writes to standard error and ends the process.
#[cfg(not(target_os = "linux"))]
fn leave(text: &[u8]) -> ! {
    let _ = std::io::stderr().write_all(text);
    std::process::exit(1)
}

// SAFETY: all memory is the system allocator's, which keeps the contract.
unsafe impl GlobalAlloc for SystemAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract, which is the same.
        self.checked(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        self.checked(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        self.checked(unsafe { System.realloc(memory, layout, size) }, size)
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[global_allocator]
    static ALLOCATOR: SystemAllocator = SystemAllocator::of("tests");

    /// More than any machine has.
    const IMPOSSIBLE: usize = 1 << 60;

    #[test]
    fn who_asks_whether_there_is_memory_is_told() {
        assert!(may_fail(|| Vec::<u8>::new().try_reserve_exact(IMPOSSIBLE).is_err()));
        assert!(may_fail(|| Vec::<u8>::new().try_reserve_exact(1 << 10).is_ok()));
        let panic = std::panic::catch_unwind(|| may_fail(|| panic!("as it happens")));
        assert!(panic.is_err() && !MAY_FAIL.get(), "a panic leaves nothing behind");
    }

    /// Run by the next test in a process of its own.
    #[test]
    #[ignore = "it ends the process"]
    fn one_who_cannot_do_without_memory() {
        crate::before_exit(Some(|| drop(std::io::stderr().write_all(b"put back\n"))));
        let _ = Vec::<u8>::new().try_reserve_exact(IMPOSSIBLE);
    }

    #[test]
    fn a_program_without_memory_ends_with_a_sentence() {
        let mut again = std::process::Command::new(std::env::current_exe().expect("it runs"));
        again.args(["--ignored", "--exact", "allocator::tests::one_who_cannot_do_without_memory", "--nocapture"]);
        let output = again.output().expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        let sentence = format!("tests: Memory ran out: {IMPOSSIBLE} bytes more cannot be had; take a smaller");
        let told = said.lines().position(|line| line.starts_with(&sentence) && line.ends_with('.'));
        let before = said.lines().position(|line| line == "put back");
        assert!(told.is_some() && before.is_some() && before < told, "{said}");
    }
}
