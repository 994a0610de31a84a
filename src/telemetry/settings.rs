//! What the configuration says of records, their privacy, and the exporters.

use std::path::PathBuf;
use std::time::Duration;

use super::collect::CollectorSettings;
use super::export::insights::ConnectionString;

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
    /// Azure Application Insights.
    pub insights: Option<InsightsSettings>,
    /// Where inputs and outputs of calls go; `None`: they are not collected, whatever services say.
    pub collector: Option<CollectorSettings>,
}

/// Azure Application Insights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InsightsSettings {
    /// Where to send, and as whom.
    pub connection: ConnectionString,
    /// Where records wait.
    pub spool: SpoolSettings,
}

/// The spool of an exporter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolSettings {
    /// Each exporter has a folder of its own in this one. Not used in memory.
    pub path: PathBuf,
    /// Where records wait, and how safe they are there.
    pub mode: SpoolMode,
    /// Most bytes that wait; at least a MiB. The oldest records are dropped to keep it.
    pub size: u64,
    /// Records that wait longer are dropped.
    pub age: Duration,
}

/// Where records wait for an exporter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SpoolMode {
    /// In memory only.
    Memory,
    /// On the disk, synced once a second.
    #[default]
    WriteBehind,
    /// On the disk, synced before they count as spooled.
    WriteAhead,
}

impl SpoolMode {
    /// As the configuration writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::WriteBehind => "write_behind",
            Self::WriteAhead => "write_ahead",
        }
    }
}
