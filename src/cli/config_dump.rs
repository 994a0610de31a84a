//! `scoregate config dump`: the effective configuration.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use crate::control::config::{Source, load};

/// Prints the configuration at `path` (`-`: standard input) as it takes effect: overrides applied, defaults filled in,
/// secrets as references. Problems and warnings go to `err`. Exit code 0, or 1 if the configuration is refused.
///
/// # Errors
/// Writing failed.
pub(super) fn run(path: &Path, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<ExitCode> {
    match load(&Source::path(path)) {
        Ok(loaded) => {
            for warning in &loaded.warnings {
                writeln!(err, "{warning}")?;
            }
            out.write_all(loaded.dump().map_err(io::Error::other)?.as_bytes())?;
            Ok(ExitCode::SUCCESS)
        }
        Err(problems) => {
            writeln!(err, "{problems}")?;
            Ok(ExitCode::FAILURE)
        }
    }
}
