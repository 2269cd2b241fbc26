//! The command `paceline-train`.

use std::process::ExitCode;

fn main() -> ExitCode {
    paceline_kernels::keep_freed_memory();
    paceline_training::cli::run()
}
