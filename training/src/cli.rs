//! The command line: one subcommand a step.
//!
//! Exit codes: 0 done; 1 it failed, and one sentence on standard error says what and what to do; 2 wrong usage.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// What was typed.
#[derive(Parser)]
#[command(name = "paceline-train", version, about, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {}

/// Runs the command that was typed.
pub fn run() -> ExitCode {
    match Arguments::parse().command {}
}
