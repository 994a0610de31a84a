//! The `scoregate` command: arguments in, exit code out.

use std::process::ExitCode;

use clap::Parser as _;

/// Gives memory back after a burst, which glibc's does not; see the drain and idle figures in load-tests/.
#[cfg(not(target_env = "msvc"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    scoregate::cli::Cli::parse().run()
}
