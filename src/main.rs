//! The command `paceline`.

mod cli;

use std::process::ExitCode;

use paceline_kernels::SystemAllocator;

#[global_allocator]
static ALLOCATOR: SystemAllocator = SystemAllocator::of("paceline");

fn main() -> ExitCode {
    cli::run()
}
