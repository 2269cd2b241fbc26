//! Ends of a process where it stands, its stop, and what a program wants done before.
//!
//! Where memory runs out or a mapped file was cut short, the process ends at once, maybe inside of a signal handler, and
//! nothing is dropped. A program that would leave something behind, such as a terminal without echo, names here what puts
//! it back ([`before_exit`]).

use std::sync::atomic::{AtomicPtr, Ordering};

/// A `fn()`; null for none.
static BEFORE: AtomicPtr<()> = AtomicPtr::new(std::ptr::null_mut());

/// Has `action` called before this crate ends the process, where [`SystemAllocator`](crate::SystemAllocator) finds no memory and
/// where [`explain_bus_errors`](crate::explain_bus_errors) does, and before an abort (`SIGABRT`), with which Rust ends a process
/// whose stack overflowed or that cannot panic. The latest action counts; `None` takes it back.
///
/// The action runs inside of an allocation or a signal handler. So it asks for no memory, takes no lock and calls nothing
/// but what POSIX allows in handlers, such as `write` and `tcsetattr`.
pub fn before_exit(action: Option<fn()>) {
    let action = action.map_or(std::ptr::null_mut(), |action| action as *mut ());
    BEFORE.store(action, Ordering::SeqCst);
    #[cfg(unix)]
    hear_aborts();
}

/// Has aborts do what the program wants done, if nothing else handles them.
#[cfg(unix)]
fn hear_aborts() {
    extern "C" fn abort(signal: libc::c_int) {
        prepare_exit();
        // SAFETY: as below. The signal waits until this returns, and then ends the process as it does without a handler.
        unsafe {
            let default: libc::sigaction = std::mem::zeroed();
            libc::sigaction(signal, &raw const default, std::ptr::null_mut());
            libc::raise(signal);
        }
    }
    static HEARS: std::sync::Once = std::sync::Once::new();
    // SAFETY: all zeros are a valid `sigaction`, that of the default; the calls get pointers to live values of that type, and
    // a handler of the form that its flags say.
    HEARS.call_once(|| unsafe {
        let mut handler: libc::sigaction = std::mem::zeroed();
        libc::sigaction(libc::SIGABRT, std::ptr::null(), &raw mut handler);
        if handler.sa_sigaction == libc::SIG_DFL {
            let ours: extern "C" fn(libc::c_int) = abort;
            handler.sa_sigaction = ours as libc::sighandler_t;
            handler.sa_flags = libc::SA_ONSTACK;
            libc::sigaction(libc::SIGABRT, &raw const handler, std::ptr::null_mut());
        }
    });
}

/// Does what the program wants done before its end.
pub(crate) fn prepare_exit() {
    let action = BEFORE.load(Ordering::SeqCst);
    if !action.is_null() {
        // SAFETY: `before_exit` alone stores here, and what it stores besides null is a `fn()`.
        let action: fn() = unsafe { std::mem::transmute(action) };
        action();
    }
}

/// Stops the process as Ctrl-Z does where nothing handles its signal (`SIGTSTP`), and returns when it is continued. It returns at
/// once where the system ignores that signal, as no shell is there to continue the process.
///
/// For a program with a handler of that signal, which is left as it was: `raise(SIGSTOP)`, the usual way, would stop a process
/// that nobody can continue too.
#[cfg(unix)]
pub fn stop_process() {
    // SAFETY: all zeros are a valid `sigaction`, that of the default, and a valid `sigset_t` to be emptied; the calls get
    // pointers to live values of these types. The handler that is put back was there before.
    unsafe {
        let default: libc::sigaction = std::mem::zeroed();
        let mut handler = default;
        if libc::sigaction(libc::SIGTSTP, &raw const default, &raw mut handler) != 0 {
            return;
        }
        let mut stop: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut stop);
        libc::sigaddset(&raw mut stop, libc::SIGTSTP);
        let mut mask = stop;
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const stop, &raw mut mask);
        libc::raise(libc::SIGTSTP);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const mask, std::ptr::null_mut());
        libc::sigaction(libc::SIGTSTP, &raw const handler, std::ptr::null_mut());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    static CALLS: AtomicUsize = AtomicUsize::new(0);

    #[test]
    fn the_latest_action_is_called_until_it_is_taken_back() {
        let calls = || CALLS.load(Ordering::SeqCst);
        prepare_exit();
        before_exit(Some(|| panic!("another takes its place")));
        before_exit(Some(|| {
            CALLS.fetch_add(1, Ordering::SeqCst);
        }));
        assert_eq!(calls(), 0);
        prepare_exit();
        prepare_exit();
        assert_eq!(calls(), 2);
        before_exit(None);
        prepare_exit();
        assert_eq!(calls(), 2);
    }
}
