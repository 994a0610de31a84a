//! What the configuration says of records and their privacy.

use std::path::PathBuf;

/// How much of the caller a record holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Privacy {
    /// All fields; known secrets in the query are masked.
    #[default]
    Standard,
    /// No query, user agent, client address or subject (Azure's high-business-impact switch).
    High,
}

/// Where records go and what they hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TelemetrySettings {
    /// How much of the caller a record holds.
    pub privacy: Privacy,
    /// JSON lines appended to this file.
    pub record_file: Option<PathBuf>,
    /// JSON lines on standard output.
    pub record_stdout: bool,
}
