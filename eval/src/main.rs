//! The command `paceline-eval`.

use std::process::ExitCode;

use paceline_kernels::SystemAllocator;

#[global_allocator]
static ALLOCATOR: SystemAllocator = SystemAllocator::of("paceline-eval");

fn main() -> ExitCode {
    paceline_eval::cli::run()
}
