//! The signal by which the system says that a mapped file lacks what is read of it, turned into a sentence.
//!
//! Nothing can go on where a load instruction has nothing to load. So the handler does what the program wants done before its
//! end ([`before_exit`](crate::before_exit)), writes which file it was and ends the process with exit code 1; it uses nothing
//! itself but atomic loads and the calls `write` and `_exit`, which are allowed in handlers. Every other bus error is left to
//! the handler that was there before.

#[cfg(target_os = "linux")]
pub(crate) use linux::Explained;
#[cfg(target_os = "linux")]
pub use linux::explain_bus_errors;
#[cfg(not(target_os = "linux"))]
pub(crate) use other::Explained;
#[cfg(not(target_os = "linux"))]
pub use other::explain_bus_errors;

#[cfg(target_os = "linux")]
mod linux {
    use std::path::Path;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

    use crate::ending::prepare_exit;

    /// Mapped files that are known by name at a time; of more, the others are not explained.
    const MOST_FILES: usize = 4096;
    /// An address that no mapping has, for a place that is being filled.
    const TAKEN: usize = 1;

    /// A mapping's place in memory, and what to say of it.
    struct Slot {
        /// Its first address; 0 where there is none.
        start: AtomicUsize,
        end: AtomicUsize,
        sentence: AtomicPtr<u8>,
        length: AtomicUsize,
    }

    static SLOTS: [Slot; MOST_FILES] = [const {
        Slot {
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            sentence: AtomicPtr::new(std::ptr::null_mut()),
            length: AtomicUsize::new(0),
        }
    }; MOST_FILES];

    /// The program's name, which begins its sentences, and what was done before about the signal.
    static INSTALLED: OnceLock<(&'static str, libc::sigaction)> = OnceLock::new();

    /// An entry among the mappings that are explained, as long as it lives; it has to go before the mapping does.
    #[derive(Debug)]
    pub(crate) struct Explained {
        /// Its place among the slots, and its sentence, which has to stay where it is.
        entry: Option<(usize, Box<[u8]>)>,
    }

    impl Explained {
        pub(crate) fn new(bytes: &[u8], path: &Path) -> Self {
            let start = bytes.as_ptr().addr();
            let free =
                |slot: &Slot| slot.start.compare_exchange(0, TAKEN, Ordering::Acquire, Ordering::Relaxed).is_ok();
            let entry = SLOTS.iter().position(free).map(|place| {
                let sentence = sentence(path);
                let slot = &SLOTS[place];
                slot.sentence.store(sentence.as_ptr().cast_mut(), Ordering::Relaxed);
                slot.length.store(sentence.len(), Ordering::Relaxed);
                slot.end.store(start + bytes.len(), Ordering::Relaxed);
                slot.start.store(start.max(TAKEN), Ordering::Release);
                (place, sentence)
            });
            Self { entry }
        }
    }

    impl Drop for Explained {
        fn drop(&mut self) {
            if let Some((place, _)) = self.entry {
                SLOTS[place].start.store(0, Ordering::Release);
            }
        }
    }

    fn sentence(path: &Path) -> Box<[u8]> {
        let name: String = path
            .to_string_lossy()
            .chars()
            .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
            .collect();
        let sentence = format!(
            "The file {name} can no longer be read, as it was cut short while it was in use or its disk failed: put the whole file back and run the command again.\n"
        );
        sentence.into_bytes().into_boxed_slice()
    }

    /// Ends this process with a sentence behind `name` and a colon, and exit code 1, where a mapped file turns out to lack what is read of
    /// it, instead of by a signal without a word. This takes the process's handler of `SIGBUS`, and passes on to the one before
    /// what has nothing to do with mapped files. For programs, at their start; further calls change nothing.
    pub fn explain_bus_errors(name: &'static str) {
        // SAFETY: all zeros are a valid `sigaction`, and the calls get pointers to live values of that type.
        unsafe {
            let mut before: libc::sigaction = std::mem::zeroed();
            if INSTALLED.get().is_some() || libc::sigaction(libc::SIGBUS, std::ptr::null(), &raw mut before) != 0 {
                return;
            }
            if INSTALLED.set((name, before)).is_err() {
                return;
            }
            let mut ours: libc::sigaction = std::mem::zeroed();
            let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = explain;
            ours.sa_sigaction = handler as libc::sighandler_t;
            ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigemptyset(&raw mut ours.sa_mask);
            libc::sigaction(libc::SIGBUS, &raw const ours, std::ptr::null_mut());
        }
    }

    extern "C" fn explain(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
        // SAFETY: the system calls this with a valid `info`. A sentence whose mapping has the address is alive, as the thread
        // that was stopped here is reading through the value that owns both.
        unsafe {
            let address = (*info).si_addr().addr();
            for slot in &SLOTS {
                let start = slot.start.load(Ordering::Acquire);
                if start > TAKEN && (start..slot.end.load(Ordering::Relaxed)).contains(&address) {
                    prepare_exit();
                    if let Some((name, _)) = INSTALLED.get() {
                        write(name.as_ptr(), name.len());
                    }
                    write(b": ".as_ptr(), 2);
                    write(slot.sentence.load(Ordering::Relaxed), slot.length.load(Ordering::Relaxed));
                    libc::_exit(1);
                }
            }
            pass_on(signal, info, context);
        }
    }

    /// Writes to standard error; where that fails there is nowhere to say so.
    ///
    /// # Safety
    /// So many bytes have to be there.
    unsafe fn write(bytes: *const u8, length: usize) {
        // SAFETY: by what is asked of the caller.
        let _ = unsafe { libc::write(libc::STDERR_FILENO, bytes.cast(), length) };
    }

    /// Does what would have been done without us.
    ///
    /// # Safety
    /// Only for a handler, with what it was called with.
    unsafe fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
        let before = INSTALLED.get().map(|(_, before)| before);
        // SAFETY: what was installed as a handler is one, of the form that its flags say; all zeros are a valid `sigaction`.
        unsafe {
            match before {
                Some(before) if ![libc::SIG_DFL, libc::SIG_IGN].contains(&before.sa_sigaction) => {
                    if before.sa_flags & libc::SA_SIGINFO != 0 {
                        let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                            std::mem::transmute(before.sa_sigaction);
                        handler(signal, info, context);
                    } else {
                        let handler: extern "C" fn(libc::c_int) = std::mem::transmute(before.sa_sigaction);
                        handler(signal);
                    }
                }
                // The instruction is tried again, and the system ends the process.
                _ => {
                    let default: libc::sigaction = std::mem::zeroed();
                    libc::sigaction(signal, &raw const default, std::ptr::null_mut());
                }
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod other {
    use std::path::Path;

    /// Nothing: other systems are not known.
    #[derive(Debug)]
    pub(crate) struct Explained;

    impl Explained {
        pub(crate) fn new(_bytes: &[u8], _path: &Path) -> Self {
            Self
        }
    }

    /// Does nothing on this system.
    pub fn explain_bus_errors(_name: &'static str) {}
}
