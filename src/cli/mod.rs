//! The command line: reads what was typed, hands it to the library, prints what comes back.
//!
//! Exit codes: 0 done; 1 it failed, and one sentence on standard error says what and what to do; 2 wrong
//! usage. Answers go to standard output, everything else to standard error.

mod bench;
mod flags;
mod generate;
mod inspect;
mod prompts;
mod shipped;
mod skip_search;
mod stats;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use paceline::command;

const EXAMPLES: &str = "\
Examples:
  paceline generate --prompt 'Sort these words: pear fig apple'   an answer of the small model that ships
  paceline inspect DIR                                            what a model directory holds
  paceline generate --model DIR --prompt 'Once upon a time'       an answer, as it comes
  paceline generate --model DIR                                   a conversation
  paceline inspect DIR --search-skip                              how it could draft for itself
  paceline bench --model DIR --prompt 'Once upon a time'          what it costs here, with every drafter
  paceline stats --period 24h                                     what was adapted and saved in the last day
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
