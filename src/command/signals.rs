//! Signals that ask a program to end: an interrupt (Ctrl-C), a termination, a hangup; and those that would leave a terminal
//! in a mode of the program's own behind ([`TerminalMode`]).
//!
//! Where a signal finds work of which something is worth keeping ([`Keeping`]), the first one asks for an early end, and the
//! program goes on to save what there is. A second one, or the first anywhere else, ends the program at once: every file
//! is written so that it is whole at any moment. Either way the exit code is 128 and the signal's number: 130, 143 or 129.
//! Ctrl-\ (SIGQUIT) and Ctrl-Z (SIGTSTP) do what they always do, after the terminal was put back.
//!
//! A thread waits for signals, so nothing here runs inside a signal handler. Signals that the program was told to
//! ignore when it was started (`nohup`, jobs in the background of a script) stay ignored.

use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A signal that asks the program to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// The terminal is gone (SIGHUP).
    Hangup,
    /// Ctrl-C (SIGINT).
    Interrupt,
    /// SIGTERM.
    Terminate,
}

impl Signal {
    /// Its number, as POSIX has it.
    fn number(self) -> u8 {
        match self {
            Self::Hangup => 1,
            Self::Interrupt => 2,
            Self::Terminate => 15,
        }
    }

    /// The exit code of a program that it ended.
    pub fn exit_code(self) -> ExitCode {
        ExitCode::from(128 + self.number())
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hangup => "SIGHUP",
            Self::Interrupt => "SIGINT (Ctrl-C)",
            Self::Terminate => "SIGTERM",
        }
    }
}

/// A signal ended the work early, and what there was is kept.
#[derive(Debug, thiserror::Error)]
#[error("The work was ended early by {}; what was done is kept, and the same command goes on from there.", .0.name())]
pub struct Ended(pub Signal);

type Action = Box<dyn Fn() + Send>;

/// Program state known to the thread that waits for signals.
struct State {
    /// True if the first signal asks for an early end instead of ending the program.
    keeping: bool,
    /// The signal that asked.
    received: Option<Signal>,
    /// Each ends a piece of work that goes on.
    cancel: Vec<(u64, Action)>,
    /// Pieces of work so far.
    begun: u64,
    /// The terminal's mode, while it is one of the program's own.
    mode: Option<Mode>,
}

/// Functions that enter and leave a mode of the terminal.
#[derive(Clone, Copy)]
struct Mode {
    enter: fn(),
    leave: fn(),
}

static STATE: Mutex<State> =
    Mutex::new(State { keeping: false, received: None, cancel: Vec::new(), begun: 0, mode: None });

fn state() -> MutexGuard<'static, State> {
    // Nothing that runs under the lock leaves it half-changed.
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The signal that asked for an early end of [`Keeping`] work, if one did.
pub fn received() -> Option<Signal> {
    state().received
}

/// Work of which something is worth keeping goes on while this lives: the first signal asks for its end and does not force
/// it. One at a time.
#[must_use = "signals end the program at once again when it is dropped"]
pub struct Keeping(());

impl Keeping {
    /// Begins such work.
    pub fn begin() -> Self {
        state().keeping = true;
        Self(())
    }

    /// An error if a signal asked for the end. To be called at safe points of long work.
    ///
    /// # Errors
    /// [`Ended`], which [`run`](super::run) turns into the signal's exit code.
    pub fn check(&self) -> Result<(), Ended> {
        received().map_or(Ok(()), |signal| Err(Ended(signal)))
    }

    /// Takes the signal as answered: what it asked for has ended, and the program goes on.
    pub fn answered(&self) -> Option<Signal> {
        state().received.take()
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        state().keeping = false;
    }
}

/// A signal calls an action while this lives.
#[must_use = "the action is forgotten when it is dropped"]
pub struct OnSignal(u64);

/// Has the first signal call `cancel`, from another thread; at once if one came already.
pub fn on_signal(cancel: impl Fn() + Send + 'static) -> OnSignal {
    let mut state = state();
    if state.received.is_some() {
        cancel();
    }
    state.begun += 1;
    let number = state.begun;
    state.cancel.push((number, Box::new(cancel)));
    OnSignal(number)
}

impl Drop for OnSignal {
    fn drop(&mut self) {
        state().cancel.retain(|(number, _)| *number != self.0);
    }
}

/// The terminal is in a mode of the program's own while this lives.
#[must_use = "the mode is left when it is dropped"]
pub struct TerminalMode(());

impl TerminalMode {
    /// Enters a mode. It is left when this is dropped, and before the program is ended by a signal, by memory that runs out, by
    /// a mapped file that was cut short or by an abort; a stop leaves it, and the end of the stop enters it again. One at a
    /// time.
    ///
    /// `leave` may be called inside of a signal handler, at any time: see [`before_exit`](paceline_kernels::before_exit).
    pub fn enter(enter: fn(), leave: fn()) -> Self {
        let mut state = state();
        state.mode = Some(Mode { enter, leave });
        paceline_kernels::before_exit(Some(leave));
        enter();
        Self(())
    }
}

impl Drop for TerminalMode {
    fn drop(&mut self) {
        // Under the lock, so that no signal enters the mode again afterwards.
        let mut state = state();
        state.mode.take().iter().for_each(|mode| (mode.leave)());
        paceline_kernels::before_exit(None);
    }
}

/// Starts to wait for signals, once a process. Where that cannot be, they end the program as they always do.
pub(super) fn listen() {
    #[cfg(unix)]
    thread::listen();
}

#[cfg(unix)]
mod thread {
    use std::sync::{Once, mpsc};
    use std::time::Duration;

    use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP};
    use signal_hook::iterator::Signals;
    use signal_hook::low_level::{emulate_default_handler, exit};

    use super::{Signal, state};
    use crate::command::output::note;

    /// Longer than a sentence takes to be written, if somebody takes it.
    const PATIENCE: Duration = Duration::from_millis(200);

    pub(super) fn listen() {
        static LISTENS: Once = Once::new();
        LISTENS.call_once(|| {
            let (listens, heard) = mpsc::channel::<()>();
            // The thread takes the signals itself: where there can be none, they do what they always do.
            let thread = std::thread::Builder::new().name("paceline-signals".into()).spawn(move || {
                let heeded = [SIGHUP, SIGINT, SIGTERM, SIGQUIT, SIGTSTP];
                let ignored = ignored();
                let heeded = heeded.into_iter().filter(|signal| ignored >> (signal - 1) & 1 == 0);
                let Ok(mut signals) = Signals::new(heeded.chain([SIGCONT])) else { return };
                drop(listens);
                signals.forever().for_each(heed);
            });
            if thread.is_ok() {
                // Until the thread listens, or has ended: then the other end is dropped.
                let _ = heard.recv();
            }
        });
    }

    fn heed(signal: i32) {
        match signal {
            SIGHUP => end(Signal::Hangup),
            SIGINT => end(Signal::Interrupt),
            SIGTERM => end(Signal::Terminate),
            SIGQUIT => {
                let state = state();
                state.mode.iter().for_each(|mode| (mode.leave)());
                // It ends the process, while the lock keeps the terminal as it is.
                let _ = emulate_default_handler(signal);
            }
            SIGTSTP => {
                let state = state();
                state.mode.iter().for_each(|mode| (mode.leave)());
                paceline_kernels::stop_process();
                state.mode.iter().for_each(|mode| (mode.enter)());
            }
            // After a stop that no handler can see (SIGSTOP), too.
            _ => state().mode.iter().for_each(|mode| (mode.enter)()),
        }
    }

    /// The signals that the process ignores, a bit each from 1 on. Linux alone tells.
    fn ignored() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        line.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok()).unwrap_or(0)
    }

    fn end(signal: Signal) {
        let mut state = state();
        let is_second = state.received.is_some();
        if state.keeping && !is_second {
            state.received = Some(signal);
            state.cancel.iter().for_each(|(_, cancel)| cancel());
            return;
        }
        state.mode.iter().for_each(|mode| (mode.leave)());
        if !is_second {
            // Where nobody reads standard error, the sentence must not keep the program.
            let told = std::thread::spawn(move || note(&format!("Ended by {}.", signal.name())));
            let started = std::time::Instant::now();
            while !told.is_finished() && started.elapsed() < PATIENCE {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        exit(i32::from(128 + signal.number()));
    }
}
