//! The command line: reads what was typed, hands it to the library, prints what comes back.
//!
//! Exit codes: 0 done; 1 it failed, and one sentence on standard error says what and what to do; 2 wrong
//! usage; 130, 143 or 129, a signal ended it. Answers go to standard output, everything else to standard error.

mod bench;
mod converse;
mod endings;
mod flags;
mod generate;
mod gguf;
mod inspect;
#[cfg(unix)]
mod line;
mod models;
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
  paceline generate --prompt 'Work out 319 + 577.'              an answer of the model that ships
  paceline models                                               the models that are on this machine
  paceline inspect MODEL                                        what a model holds
  paceline generate --model MODEL --prompt 'Once upon a time'   an answer, as it comes
  paceline generate --model MODEL                               a conversation
  paceline inspect MODEL --search-skip                          how it could draft for itself
  paceline bench --model MODEL --prompt 'Once upon a time'      its costs here, with every drafter
  paceline stats --period 24h                                   what was adapted and saved in a day
  paceline generate --help                                      all settings, with more examples

MODEL is a GGUF file, a directory in the Hugging Face layout (config.json, model.safetensors,
tokenizer.json), org/name or org/name:FILE.gguf of the Hugging Face hub, which are downloaded
where they are not in its cache (unless HF_HUB_OFFLINE is set), or name:tag of Ollama.
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
    /// Show what a model holds, and which drafters it has.
    Inspect(flags::InspectFlags),
    /// List the models that are on this machine, and which of them could draft for which.
    Models(models::ModelsFlags),
    /// Show what was adapted and saved in answers so far, and what it cost in quality, from the journal.
    Stats(stats::StatsFlags),
}

/// Runs the command that was typed.
pub(crate) fn run() -> ExitCode {
    command::run("paceline", |arguments: Arguments| match arguments.command {
        Command::Generate(flags) => generate::generate(&flags),
        Command::Bench(flags) => bench::bench(&flags),
        Command::Inspect(flags) => inspect::inspect(&flags),
        Command::Models(flags) => models::models(&flags),
        Command::Stats(flags) => stats::stats(&flags),
    })
}
