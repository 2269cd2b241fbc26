//! The command `paceline-eval`.

use std::process::ExitCode;

fn main() -> ExitCode {
    paceline_eval::cli::run()
}
