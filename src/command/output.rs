//! Where words go: answers to standard output, which may close at any time, everything else to standard error.

use std::io::{self, Write};

use super::progress;

/// Nobody takes the output any more: the reader has gone, or the disk is full.
#[derive(Debug, thiserror::Error)]
#[error(
    "Standard output cannot be written to any more ({0}), so the work was ended early: give it a reader or a place with room."
)]
pub struct OutputFailed(#[from] io::Error);

/// Writes to standard output at once.
///
/// # Errors
/// When nobody takes it.
pub fn print(text: &str) -> Result<(), OutputFailed> {
    let mut out = io::stdout().lock();
    Ok(out.write_all(text.as_bytes()).and_then(|()| out.flush())?)
}

/// Writes a line to standard output.
///
/// # Errors
/// When nobody takes it.
pub fn print_line(line: &str) -> Result<(), OutputFailed> {
    print(&format!("{line}\n"))
}

/// Writes to standard error as it is. If that fails, there is nowhere to say so.
pub fn say(text: &str) {
    let mut err = io::stderr().lock();
    let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
}

/// Writes a message as one line to standard error, whatever the names in it hold.
pub fn note(message: &str) {
    progress::clear();
    let mut line = format!("{}: ", super::NAME.get().unwrap_or(&"paceline"));
    for c in message.chars() {
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line.push('\n');
    say(&line);
}
