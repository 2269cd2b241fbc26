//! Lines that are typed into a terminal, of any length.
//!
//! A terminal that collects lines by itself (canonical mode) cuts them at 4,095 bytes and says nothing. So the terminal hands over
//! every key, and [`Line`] does what it would have done: it shows what is typed, deletes, and ends at Return. What is typed
//! while an answer is written waits for the next prompt. Text that is pasted comes in brackets, where the terminal can do that,
//! and is one message with its line breaks. Ctrl-C stays the terminal's, which makes a signal of it. However the program ends or
//! is stopped, the terminal is left as it was found.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, PipeReader, PipeWriter, Read, Write};
use std::sync::OnceLock;

use paceline::command::signals::{TerminalMode, on_signal, received};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::stdio::{stderr, stdin};
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use super::line::{Line, Step};

/// Asks the terminal to put what is pasted into brackets, and no longer.
const BRACKETS_ON: &[u8] = b"\x1b[?2004h";
const BRACKETS_OFF: &[u8] = b"\x1b[?2004l";

/// Result of waiting for a line.
pub(super) enum Typed {
    /// A line, or several that were pasted.
    Line(Vec<u8>),
    /// So long a line that its end was dropped.
    TooLong,
    /// A signal came, and what was typed is dropped, if anything was.
    Signal {
        /// True if anything was typed.
        begun: bool,
    },
    /// The end of the conversation: Ctrl-D, or a terminal that is gone.
    End,
}

/// A terminal whose keys are read one by one.
pub(super) struct Terminal {
    screen: &'static Screen,
    /// Bytes that were read and belong to later lines.
    ahead: Vec<u8>,
    /// Leaves the terminal when it is dropped, or before a signal ends or stops the program.
    _mode: TerminalMode,
    /// A signal writes here what wakes this thread there.
    wake: PipeWriter,
    signalled: PipeReader,
}

/// Where typed text is shown, and how the terminal is to be left.
struct Screen {
    out: Option<File>,
    found: Termios,
    /// True if the terminal understands more than plain text.
    is_able: bool,
}

/// The terminal as it was found when it was taken over first: what has to be known to leave it where nothing else can be
/// relied on.
static SCREEN: OnceLock<Screen> = OnceLock::new();

impl Screen {
    /// Shows text. A terminal that takes none is told by what is read from it.
    fn show(&self, bytes: &[u8]) {
        let _ = match &self.out {
            Some(tty) => (&mut &*tty).write_all(bytes),
            None => io::stderr().lock().write_all(bytes),
        };
    }

    fn prepare(&self) {
        let mut mode = self.found.clone();
        mode.local_modes -= LocalModes::ICANON | LocalModes::ECHO | LocalModes::ECHONL | LocalModes::IEXTEN;
        (mode.special_codes[SpecialCodeIndex::VMIN], mode.special_codes[SpecialCodeIndex::VTIME]) = (1, 0);
        // At once, and with what was typed already. If it fails the terminal stays as it was: lines come all the same.
        let _ = tcsetattr(stdin(), OptionalActions::Now, &mode);
        if self.is_able {
            self.show(BRACKETS_ON);
        }
    }

    /// May be called inside of a signal handler: it asks for no memory and takes no lock.
    fn restore(&self) {
        let _ = tcsetattr(stdin(), OptionalActions::Now, &self.found);
        if self.is_able {
            // To the same place as what is shown.
            let _ = match &self.out {
                Some(tty) => rustix::io::write(tty, BRACKETS_OFF),
                None => rustix::io::write(stderr(), BRACKETS_OFF),
            };
        }
    }
}

impl Terminal {
    /// Takes over the terminal on standard input, until it is dropped or a signal ends the program.
    ///
    /// # Errors
    /// The system's error, if it is not a terminal or cannot be asked.
    pub(super) fn open() -> io::Result<Self> {
        let found = tcgetattr(stdin())?;
        let is_able = std::env::var_os("TERM").is_some_and(|name| name != "dumb" && !name.is_empty());
        let out = if io::stderr().is_terminal() { None } else { OpenOptions::new().write(true).open("/dev/tty").ok() };
        let (signalled, wake) = io::pipe()?;
        let screen = SCREEN.get_or_init(|| Screen { out, found, is_able });
        let prepare = || SCREEN.get().into_iter().for_each(Screen::prepare);
        let restore = || SCREEN.get().into_iter().for_each(Screen::restore);
        let mode = TerminalMode::enter(prepare, restore);
        Ok(Self { screen, ahead: Vec::new(), _mode: mode, wake, signalled })
    }

    /// Waits for a line, after showing `prompt`.
    ///
    /// # Errors
    /// If the terminal cannot be read.
    pub(super) fn read(&mut self, prompt: &str) -> io::Result<Typed> {
        self.screen.show(prompt.as_bytes());
        let wake = self.wake.try_clone()?;
        let _waking = on_signal(move || drop((&wake).write(b"!")));
        let columns = tcgetwinsize(stdin()).map_or(0, |size| usize::from(size.ws_col));
        let mut line = Line::new(prompt.len(), if columns == 0 { 80 } else { columns }, self.screen.is_able);
        loop {
            let mut shown = Vec::new();
            let (used, step) = line.take(&self.ahead, &mut shown);
            self.ahead.drain(..used);
            self.screen.show(&shown);
            match step {
                Step::More => {}
                Step::Line(text) => return Ok(Typed::Line(text)),
                Step::TooLong => return Ok(Typed::TooLong),
                Step::End => return Ok(Typed::End),
            }
            if self.wait()? {
                self.screen.show(b"\n");
                return Ok(Typed::Signal { begun: !line.is_empty() });
            }
            let mut bytes = [0; 4096];
            match rustix::io::read(stdin(), &mut bytes) {
                // The second is how a terminal reads whose other end is closed.
                Ok(0) | Err(Errno::IO) => return Ok(Typed::End),
                Ok(read) => self.ahead.extend_from_slice(&bytes[..read]),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits for keys; whether a signal came instead.
    fn wait(&mut self) -> io::Result<bool> {
        loop {
            let stdin = stdin();
            let mut fds = [PollFd::new(&stdin, PollFlags::IN), PollFd::new(&self.signalled, PollFlags::IN)];
            match poll(&mut fds, None) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            let [keys, signal] = fds.map(|fd| !fd.revents().is_empty());
            if signal {
                let mut bytes = [0; 64];
                let _ = self.signalled.read(&mut bytes)?;
            }
            if received().is_some() {
                return Ok(true);
            }
            if keys {
                return Ok(false);
            }
        }
    }
}
