//! `scoregate version`.

use std::io::{self, Write};
use std::process::ExitCode;

/// How to print it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Format {
    /// One line.
    Text,
    /// One JSON object.
    Json,
}

/// Writes name and version to `out`; as JSON also the target it was built for.
///
/// # Errors
/// Writing failed.
pub(super) fn run(format: Format, out: &mut dyn Write) -> io::Result<ExitCode> {
    let version = env!("CARGO_PKG_VERSION");
    match format {
        Format::Text => writeln!(out, "scoregate {version}")?,
        Format::Json => {
            let target = format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS);
            let json = serde_json::json!({ "name": "scoregate", "version": version, "target": target });
            writeln!(out, "{json}")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
