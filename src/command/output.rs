//! Where words go: answers to standard output, which may close at any time, everything else to standard error.
//!
//! Words for a terminal are made [`visible`] first; files and pipes get every byte as it is.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

use super::progress;
use crate::visible;

/// Nobody takes the output any more: the reader has gone, or the disk is full.
#[derive(Debug, thiserror::Error)]
#[error(
    "Standard output can no longer be written to ({0}), so the work was ended early: give it a reader or a place with room."
)]
pub struct OutputFailed(#[from] io::Error);

/// Writes to standard output at once.
///
/// # Errors
/// When nobody takes it.
pub fn print(text: &str) -> Result<(), OutputFailed> {
    write(text, visible::text)
}

/// Writes a line to standard output.
///
/// # Errors
/// When nobody takes it.
pub fn print_line(line: &str) -> Result<(), OutputFailed> {
    print(&format!("{line}\n"))
}

/// Writes a value in JSON to standard output, as a line.
///
/// # Errors
/// When nobody takes it.
pub fn print_json(json: &str) -> Result<(), OutputFailed> {
    write(&format!("{json}\n"), visible::json)
}

fn write(text: &str, shown: fn(&str) -> Cow<'_, str>) -> Result<(), OutputFailed> {
    if paceline_kernels::standard_output::was_closed() {
        return Err(io::Error::other("it was closed when the program was started").into());
    }
    let mut out = io::stdout().lock();
    let text = if out.is_terminal() { shown(text) } else { Cow::Borrowed(text) };
    Ok(out.write_all(text.as_bytes()).and_then(|()| out.flush())?)
}

/// Writes to standard error. If that fails, there is nowhere to say so.
pub fn say(text: &str) {
    let is_terminal = io::stderr().is_terminal();
    say_raw(&if is_terminal { visible::text(text) } else { Cow::Borrowed(text) });
}

/// Writes to standard error, orders to the terminal included.
pub(super) fn say_raw(text: &str) {
    let mut err = io::stderr().lock();
    let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
}

/// Writes a message as one line to standard error, whatever the names in it hold.
pub fn note(message: &str) {
    progress::clear();
    say_raw(&format!("{}: {}\n", super::NAME.get().unwrap_or(&"paceline"), visible::line(message)));
}
