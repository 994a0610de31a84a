//! `scoregate version`.

use std::process::ExitCode;

/// How to print it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Format {
    /// One line.
    Text,
    /// One JSON object.
    Json,
}

#[expect(clippy::print_stdout, reason = "the command's output")]
#[expect(clippy::unnecessary_wraps, reason = "commands have one shape")]
pub(super) fn run(format: Format) -> anyhow::Result<ExitCode> {
    let version = env!("CARGO_PKG_VERSION");
    match format {
        Format::Text => println!("scoregate {version}"),
        Format::Json => {
            let target = format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS);
            println!("{}", serde_json::json!({ "name": "scoregate", "version": version, "target": target }));
        }
    }
    Ok(ExitCode::SUCCESS)
}
