//! Binding a thread to one processor.

use std::io;

/// Binds the calling thread to the processor that is number `index` (in turns) of those it may run on.
///
/// # Errors
/// The system's error; `Unsupported` where there is no way to ask it.
#[cfg(target_os = "linux")]
pub(crate) fn bind_to(index: usize) -> io::Result<()> {
    let check = |result| if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    let size = size_of::<libc::cpu_set_t>();
    // SAFETY: the set is plain bits, for which zeros are a value.
    let mut allowed: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the system writes at most `size` bytes to the set; 0 is the calling thread.
    check(unsafe { libc::sched_getaffinity(0, size, &raw mut allowed) })?;
    // SAFETY: the numbers are below the set's size in bits, here and below.
    let processors = (0..8 * size).filter(|processor| unsafe { libc::CPU_ISSET(*processor, &allowed) });
    let processors: Vec<usize> = processors.collect();
    let Some(chosen) = processors.get(index % processors.len().max(1)) else { return Ok(()) };
    // SAFETY: as above.
    let mut only: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    unsafe { libc::CPU_SET(*chosen, &mut only) };
    // SAFETY: the system reads `size` bytes of the set.
    check(unsafe { libc::sched_setaffinity(0, size, &raw const only) })
}

/// As above.
#[cfg(not(target_os = "linux"))]
pub(crate) fn bind_to(_: usize) -> io::Result<()> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "threads cannot be pinned on this system"))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// The processors that the calling thread may run on, as the system writes them.
    fn allowed() -> String {
        let status = std::fs::read_to_string("/proc/thread-self/status").expect("Linux has it");
        let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        line.expect("Linux has it").trim().to_owned()
    }

    #[test]
    fn a_bound_thread_has_one_processor_and_others_keep_theirs() {
        let before = allowed();
        for index in [0, 1, 5, usize::MAX] {
            let bound =
                std::thread::spawn(move || bind_to(index).map(|()| allowed())).join().expect("it does not panic");
            let bound = bound.expect("the first processors that are allowed can be chosen");
            assert!(bound.parse::<usize>().is_ok(), "{bound} is more than one processor");
        }
        assert_eq!(allowed(), before);
    }
}
