//! The command line: reads what was typed, hands it to the library, prints what comes back.
//!
//! Exit codes: 0 done; 1 it failed, and one sentence on standard error says what and what to do; 2 wrong
//! usage. Answers go to standard output, everything else to standard error.

mod bench;
mod flags;
mod generate;
mod inspect;
mod output;
mod progress;
mod prompts;
mod skip_search;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

const EXAMPLES: &str = "\
Examples:
  paceline inspect DIR                                            what a model directory holds
  paceline generate --model DIR --prompt 'Once upon a time'       an answer, as it comes
  paceline generate --model DIR                                   a conversation
  paceline inspect DIR --search-skip                              how it could draft for itself
  paceline bench --model DIR --prompt 'Once upon a time'          what it costs here, with every drafter
  paceline generate --help                                        all settings, with more examples

DIR is a model in the Hugging Face layout: config.json, model.safetensors, tokenizer.json.
Exit codes: 0 done, 1 failed (one sentence says why), 2 wrong usage.";

/// What was typed.
#[derive(Parser)]
#[command(name = "paceline", version, about, arg_required_else_help = true, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Answer prompts with a model: one, a file of them, standard input, or a conversation on a terminal.
    Generate(Box<flags::GenerateFlags>),
    /// Time a model on this machine: steps by their number of rows, and plain decoding against every drafter.
    Bench(bench::BenchFlags),
    /// Show what a model directory holds, and which drafters it has.
    Inspect(flags::InspectFlags),
}

/// A failure: what to print, and whether it was the way the program was called.
struct Failure {
    error: anyhow::Error,
    usage: bool,
}

impl Failure {
    fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self { error: error.into(), usage: true }
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { error: error.into(), usage: false }
    }
}

/// Runs the command that was typed.
pub(crate) fn run() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return refuse(&error),
    };
    let result = match arguments.command {
        Command::Generate(flags) => generate::generate(&flags),
        Command::Bench(flags) => bench::bench(&flags),
        Command::Inspect(flags) => inspect::inspect(&flags),
    };
    match result {
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
