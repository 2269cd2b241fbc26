//! The command line: one subcommand a step.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use paceline::command;

use crate::certify::{self, CertifyFlags};

/// What was typed.
#[derive(Parser)]
#[command(name = "paceline-eval", version, about, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Certify lossy plans for quality floors, by their losses on calibration prompts
    Certify(CertifyFlags),
}

/// Runs the command that was typed.
pub fn run() -> ExitCode {
    command::run("paceline-eval", |arguments: Arguments| match arguments.command {
        Command::Certify(flags) => certify::certify(&flags),
    })
}
