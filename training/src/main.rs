//! The command `paceline-train`.

use std::process::ExitCode;

use paceline_kernels::SystemAllocator;

#[global_allocator]
static ALLOCATOR: SystemAllocator = SystemAllocator::of("paceline-train");

fn main() -> ExitCode {
    paceline_kernels::keep_freed_memory();
    paceline_training::cli::run()
}
