//! Lines that are typed into a terminal, where its keys are not read one by one: the system collects them.

use std::io::{self, Read};

/// The longest line that is taken, in bytes.
pub(super) const LONGEST: usize = 16 << 20;

/// Result of waiting for a line.
pub(super) enum Typed {
    /// A line.
    Line(Vec<u8>),
    /// So long a line that its end was dropped.
    TooLong,
    /// A signal came.
    #[allow(dead_code, reason = "no signal wakes this one")]
    Signal {
        /// True if a line was begun.
        begun: bool,
    },
    /// The end of the conversation.
    End,
}

/// The terminal on standard input.
pub(super) struct Terminal;

impl Terminal {
    /// Takes the terminal as it is.
    ///
    /// # Errors
    /// None here.
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self)
    }

    /// Waits for a line, after showing `prompt`.
    ///
    /// # Errors
    /// If the terminal cannot be read.
    pub(super) fn read(&mut self, prompt: &str) -> io::Result<Typed> {
        paceline::command::output::say(prompt);
        let (mut line, mut is_too_long) = (Vec::new(), false);
        for byte in io::stdin().lock().bytes() {
            match byte? {
                b'\n' if is_too_long => return Ok(Typed::TooLong),
                b'\n' => return Ok(Typed::Line(line)),
                _ if line.len() == LONGEST => is_too_long = true,
                byte => line.push(byte),
            }
        }
        Ok(if line.is_empty() { Typed::End } else { Typed::Line(line) })
    }
}
