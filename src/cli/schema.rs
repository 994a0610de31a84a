//! `scoregate schema`: the JSON Schema of the configuration, for editors and validators.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::control::config::json_schema;

/// Prints the schema as JSON.
///
/// # Errors
/// Writing failed.
pub(super) fn run(out: &mut dyn Write) -> io::Result<ExitCode> {
    serde_json::to_writer_pretty(&mut *out, &json_schema())?;
    writeln!(out)?;
    Ok(ExitCode::SUCCESS)
}
