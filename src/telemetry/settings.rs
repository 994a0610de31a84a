//! What the configuration says of records, their privacy, and the exporters.

use std::path::PathBuf;
use std::time::Duration;

use super::collect::CollectionSettings;
use super::disclosure::MaskedNames;
use super::export::insights::ConnectionString;
use super::export::otlp::settings::OtlpSettings;
use super::trace::Tracing;

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
    /// Query parameters that are masked beside those that everybody knows. May change while running.
    pub masked: MaskedNames,
    /// JSON lines appended to this file.
    pub record_file: Option<PathBuf>,
    /// JSON lines on standard output.
    pub record_stdout: bool,
    /// When file and standard output get a record.
    pub record_order: WriteOrder,
    /// Azure Application Insights.
    pub insights: Option<InsightsSettings>,
    /// OpenTelemetry.
    pub otlp: Option<OtlpSettings>,
    /// How calls take part in traces; `None`: a caller's trace passes through untouched.
    pub tracing: Option<Tracing>,
    /// Whether events of the activity log go to the exporters as well.
    pub activity: Activity,
    /// Where inputs and outputs of calls go; `None`: they are not collected, whatever services say.
    pub collection: Option<CollectionSettings>,
}

impl TelemetrySettings {
    /// Those of all exporters.
    #[must_use]
    pub fn spools(&self) -> Vec<&SpoolSettings> {
        let insights = self.insights.as_ref().map(|insights| &insights.spool);
        insights.into_iter().chain(self.otlp.as_ref().and_then(OtlpSettings::spool)).collect()
    }
}

/// Whether events of the activity log go to the exporters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activity {
    /// They do.
    #[default]
    Exported,
    /// They stay in the store.
    Kept,
}

/// When a record is written, seen from its call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WriteOrder {
    /// Within some 20 ms after the answer; a disk that is slow slows no call.
    #[default]
    Behind,
    /// Before the last byte of the answer is handed over: a killed process takes no record of a call that is over.
    Ahead,
}

/// Azure Application Insights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InsightsSettings {
    /// Where to send, and as whom.
    pub connection: ConnectionString,
    /// PEM bundle of the authorities that the collector's certificate is of, in place of the system's.
    pub ca: Option<PathBuf>,
    /// How often the gateway's metrics are sent as well; `None`: never.
    pub metrics_interval: Option<Duration>,
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
    /// Of what waits on the disk.
    pub encryption: SpoolEncryption,
}

/// Whether what waits on the disk can be read by whoever has the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SpoolEncryption {
    /// Not encrypted.
    #[default]
    None,
    /// Under a key that the store keeps with its secrets.
    Store,
}

/// Where records wait for an exporter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SpoolMode {
    /// In memory only.
    Memory,
    /// On the disk, synced once a second.
    #[default]
    WriteBehind,
    /// The same, and written before the last byte of a call's answer is handed over.
    WriteAhead,
}

impl SpoolEncryption {
    /// As the configuration writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Store => "store",
        }
    }
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
