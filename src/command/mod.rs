//! What the commands of this workspace share: how they fail, where their words go, how they show progress.
//!
//! Exit codes: 0 done; 1 it failed, and one sentence on standard error says what and what to do; 2 wrong usage.
//! Programs that use the library need none of this.

pub mod fields;
pub mod output;
pub mod progress;

use std::process::ExitCode;
use std::sync::OnceLock;

use clap::error::ErrorKind;

/// The command that runs, for the beginning of its messages.
static NAME: OnceLock<&'static str> = OnceLock::new();

/// A failure: what to print, and whether it was the way the program was called.
#[derive(Debug)]
pub struct Failure {
    /// One sentence or several: what is wrong, where, and what to do.
    pub error: anyhow::Error,
    /// Whether the way of calling is to blame, which makes the exit code 2 instead of 1.
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
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return refuse(&error),
    };
    match command(arguments) {
        Ok(code) => code,
        Err(Failure { error, usage }) => {
            output::note(&error.to_string());
            ExitCode::from(if usage { 2 } else { 1 })
        }
    }
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

/// What clap says in several paragraphs, without the usage, as one sentence.
fn usage_sentence(message: &str) -> String {
    let message = message.strip_prefix("error: ").unwrap_or(message);
    let what = ["\n\nUsage:", "\n\nFor more information"].iter().filter_map(|end| message.find(end)).min();
    let what = message[..what.unwrap_or(message.len())].replace("\n\n  tip: ", "; ");
    let words: Vec<&str> = what.split_whitespace().collect();
    format!("{}; try `--help`.", words.join(" ").trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::usage_sentence;

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
            ("error: `x` is bad.\n\nFor more information, try '--help'.\n", "`x` is bad; try `--help`."),
            ("", "; try `--help`."),
        ] {
            assert_eq!(usage_sentence(message), sentence);
        }
    }
}
