//! The command `paceline-train`.

use std::process::ExitCode;

fn main() -> ExitCode {
    paceline_training::cli::run()
}
