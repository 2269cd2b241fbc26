//! Behavior that the commands of this workspace share: how they fail, where their words go, how they show progress.
//!
//! Exit codes: 0 done; 1 it failed, and one sentence on standard error says what and what to do; 2 wrong usage; 128 and its
//! number, a signal ended it ([`signals`]).
//! Programs that use the library need none of this.

pub mod engine;
pub mod fields;
pub mod obtaining;
pub mod output;
pub mod progress;
pub mod signals;
pub mod wording;

use std::panic::{set_hook, take_hook};
use std::process::ExitCode;
use std::sync::OnceLock;

use clap::error::ErrorKind;

use crate::text::panic_is_caught;
use signals::Ended;

/// The command that runs, for the beginning of its messages.
static NAME: OnceLock<&'static str> = OnceLock::new();

/// A failure: what to print, and whether it was the way the program was called.
#[derive(Debug)]
pub struct Failure {
    /// One sentence or several: what is wrong, where, and what to do.
    pub error: anyhow::Error,
    /// True if the way of calling is to blame, which makes the exit code 2 instead of 1.
    pub usage: bool,
}

impl Failure {
    /// A failure that the way of calling is to blame for.
    pub fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self { error: error.into(), usage: true }
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { error: error.into(), usage: false }
    }
}

/// Runs the command `name` on what was typed and makes an exit code of what came out.
pub fn run<Arguments: clap::Parser>(
    name: &'static str,
    command: impl FnOnce(Arguments) -> Result<ExitCode, Failure>,
) -> ExitCode {
    // The first name stands; a process is one command.
    let _ = NAME.set(name);
    // A mapped file that others cut short ends a command with a sentence.
    paceline_kernels::explain_bus_errors(NAME.get().unwrap_or(&name));
    leave_out_caught_panics();
    signals::listen();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return refuse(&error),
    };
    match command(arguments) {
        Ok(code) => code,
        Err(Failure { error, usage }) => {
            output::note(&told(&error));
            match (error.downcast_ref(), signals::received()) {
                (Some(Ended(signal)), _) => signal.exit_code(),
                // A hangup takes the terminal away: then output fails because of it.
                (None, Some(signal)) if error.is::<output::OutputFailed>() => signal.exit_code(),
                _ => ExitCode::from(if usage { 2 } else { 1 }),
            }
        }
    }
}

/// The message of a failure, with its cause where it does not tell it itself.
fn told(error: &anyhow::Error) -> String {
    let (message, cause) = (error.to_string(), error.root_cause().to_string());
    if message.contains(cause.trim_end_matches('.')) {
        return message;
    }
    format!("{} ({}).", message.trim_end_matches('.'), cause.trim_end_matches('.'))
}

/// Panics that become errors are not reported as well. A program may say so for its process; the library may not.
fn leave_out_caught_panics() {
    let report = take_hook();
    set_hook(Box::new(move |panic| {
        if !panic_is_caught() {
            report(panic);
        }
    }));
}

/// Prints help where it was asked for or nothing was typed; says in one sentence, like every other error,
/// what was typed wrong.
fn refuse(error: &clap::Error) -> ExitCode {
    let help = matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    );
    if help {
        // Help that nobody reads is no failure.
        let _ = error.print();
    } else {
        output::note(&usage_sentence(&error.to_string()));
    }
    ExitCode::from(if error.use_stderr() { 2 } else { 0 })
}

/// Clap's message of several paragraphs, without the usage, as one sentence.
fn usage_sentence(message: &str) -> String {
    let message = message.strip_prefix("error: ").unwrap_or(message);
    let what = ["\n\nUsage:", "\n\nFor more information"].iter().filter_map(|end| message.find(end)).min();
    let what = message[..what.unwrap_or(message.len())].replace("\n\n  tip: ", "; ");
    let words: Vec<&str> = what.split_whitespace().collect();
    let mut sentence = words.join(" ");
    // What Rust's own readers of numbers say.
    for (said, meant) in [
        ("invalid digit found in string", "write a whole number from 0 on"),
        ("cannot parse integer from empty string", "write a whole number"),
        ("number too large to fit in target type", "that is more than the program can count to"),
        ("number too small to fit in target type", "write a whole number from 0 on"),
        ("invalid float literal", "write a number, like 0.7"),
        ("cannot parse float from empty string", "write a number, like 0.7"),
    ] {
        sentence = sentence.replace(said, meant);
    }
    format!("{}; try `--help`.", sentence.trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::{told, usage_sentence};

    #[test]
    fn a_cause_is_told_once() {
        let cause = || std::io::Error::other("the disk is gone");
        let error = anyhow::Error::new(cause()).context("The folder x cannot be made; name another");
        assert_eq!(told(&error), "The folder x cannot be made; name another (the disk is gone).");
        let itself =
            anyhow::Error::new(cause()).context("The folder x cannot be made: the disk is gone; name another.");
        assert_eq!(told(&itself), "The folder x cannot be made: the disk is gone; name another.");
        assert_eq!(told(&cause().into()), "the disk is gone");
    }

    #[test]
    fn wrong_usage_is_told_in_one_sentence() {
        for (message, sentence) in [
            (
                "error: unexpected argument '--propmt' found\n\n  tip: a similar argument exists: '--prompt'\n\nUsage: x\n\nFor more information, try '--help'.\n",
                "unexpected argument '--propmt' found; a similar argument exists: '--prompt'; try `--help`.",
            ),
            (
                "error: the following required arguments were not provided:\n  <DIR>\n\nUsage: x\n",
                "the following required arguments were not provided: <DIR>; try `--help`.",
            ),
            (
                "error: invalid value '1.5' for '--threads <N>': invalid digit found in string\n\nFor more information, try '--help'.\n",
                "invalid value '1.5' for '--threads <N>': write a whole number from 0 on; try `--help`.",
            ),
            ("error: `x` is bad.\n\nFor more information, try '--help'.\n", "`x` is bad; try `--help`."),
            ("", "; try `--help`."),
        ] {
            assert_eq!(usage_sentence(message), sentence);
        }
    }
}
