//! The command line: one subcommand a step.
//!
//! Exit codes: 0 done; 1 it failed, and one sentence on standard error says what and what to do; 2 wrong usage.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::tasks;

/// What was typed.
#[derive(Parser)]
#[command(name = "paceline-train", version, about, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write task sets with checkable answers
    Tasks(tasks::TasksFlags),
}

/// Runs the command that was typed.
pub fn run() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Tasks(flags) => tasks::run(&flags),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("paceline-train: {error:#}");
            ExitCode::FAILURE
        }
    }
}
