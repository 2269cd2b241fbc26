//! The command line: reads what was typed, hands it to the library, prints what comes back.
//!
//! Exit codes: 0 done; 1 it failed, and one sentence on standard error says what and what to do; 2 wrong
//! usage; 130, 143 or 129, a signal ended it. Answers go to standard output, everything else to standard error.

mod bench;
mod converse;
mod endings;
mod flags;
mod generate;
mod inspect;
#[cfg(unix)]
mod line;
mod prompts;
mod settings;
mod shipped;
mod skip_search;
mod stats;
#[cfg_attr(not(unix), path = "terminal_elsewhere.rs")]
mod terminal;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use paceline::command;

const EXAMPLES: &str = "\
Examples:
  paceline generate --prompt 'Work out 319 + 577.'            an answer of the small model that ships
  paceline inspect DIR                                        what a model directory holds
  paceline generate --model DIR --prompt 'Once upon a time'   an answer, as it comes
  paceline generate --model DIR                               a conversation
  paceline inspect DIR --search-skip                          how it could draft for itself
  paceline bench --model DIR --prompt 'Once upon a time'      its costs here, with every drafter
  paceline stats --period 24h                                 what was adapted and saved in a day
  paceline generate --help                                    all settings, with more examples

DIR is a model in the Hugging Face layout: config.json, model.safetensors, tokenizer.json.
Exit codes: 0 done, 1 failed (one sentence says why), 2 wrong usage, 130 or 143 ended by Ctrl-C
or SIGTERM: the first ends the answer, which is printed, the second the program.";

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
    /// Show what was adapted and saved in answers so far, and what it cost in quality, from the journal.
    Stats(stats::StatsFlags),
}

/// Runs the command that was typed.
pub(crate) fn run() -> ExitCode {
    command::run("paceline", |arguments: Arguments| match arguments.command {
        Command::Generate(flags) => generate::generate(&flags),
        Command::Bench(flags) => bench::bench(&flags),
        Command::Inspect(flags) => inspect::inspect(&flags),
        Command::Stats(flags) => stats::stats(&flags),
    })
}
