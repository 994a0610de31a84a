//! The process's own log on standard error: text for people on a terminal, JSON lines elsewhere.

use std::io::{IsTerminal as _, stderr};

use tracing_subscriber::EnvFilter;

use crate::control::config::{LogFormat, LogSettings};

/// Starts logging for the rest of the process. A second call is ignored.
///
/// # Errors
/// The level is no filter.
pub(super) fn start(settings: &LogSettings) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&settings.level)?;
    let as_json = match settings.format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !stderr().is_terminal(),
    };
    // An event that cannot be written (standard error is a file on a full disk, or a pipe that nobody reads) is lost, and that
    // is all: told on itself it would go to `eprintln!`, which panics there, and end whichever thread had something to say.
    let lines =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr).log_internal_errors(false);
    // Fails only where logging has been started already.
    let _ = if as_json {
        lines.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init()
    } else {
        lines.with_ansi(stderr().is_terminal()).try_init()
    };
    Ok(())
}
