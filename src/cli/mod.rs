//! The command line: reads what was typed, hands it to the library, prints what comes back.
//!
//! Exit codes: 0 done; 1 it failed, and one sentence on standard error says what and what to do; 2 wrong usage. Answers go to standard output,
//! everything else to standard error.

mod flags;
mod generate;
mod inspect;
mod progress;
mod prompts;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Fast text generation that prints the very tokens of plain decoding.
#[derive(Parser)]
#[command(name = "paceline", version, about, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Answer prompts with a model.
    Generate(Box<flags::GenerateFlags>),
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
    // clap prints its own errors and help, with exit code 2 for wrong usage.
    let arguments = Arguments::parse();
    let result = match arguments.command {
        Command::Generate(flags) => generate::generate(&flags),
        Command::Inspect(flags) => inspect::inspect(&flags),
    };
    match result {
        Ok(code) => code,
        Err(Failure { error, usage }) => {
            progress::clear();
            eprintln!("paceline: {error:#}");
            ExitCode::from(if usage { 2 } else { 1 })
        }
    }
}
