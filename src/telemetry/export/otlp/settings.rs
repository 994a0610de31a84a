//! What the configuration and the environment say of the export to OpenTelemetry.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use url::Url;

use crate::telemetry::export::http::is_plain;
use crate::telemetry::settings::SpoolSettings;
use crate::telemetry::trace::SampleRatio;

/// Export to OpenTelemetry collectors; a signal that is `None` is not exported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtlpSettings {
    /// Attributes of the resource, which say who sends.
    pub resource: Vec<(String, String)>,
    /// Whether what an answer says of its making is exported.
    pub gen_ai: GenAi,
    /// Spans.
    pub traces: Option<TracesSettings>,
    /// Records as logs.
    pub logs: Option<LogsSettings>,
    /// Metrics.
    pub metrics: Option<MetricsSettings>,
}

/// Whether spans and logs have `gen_ai.*` attributes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GenAi {
    /// They have none.
    #[default]
    LeftOut,
    /// Model and token usage, where an answer tells them.
    Shown,
}

/// Export of spans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TracesSettings {
    /// Where to.
    pub collector: CollectorSettings,
    /// Which.
    pub sampling: SamplingSettings,
    /// Where records wait.
    pub spool: SpoolSettings,
}

/// Export of records as logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogsSettings {
    /// Where to.
    pub collector: CollectorSettings,
    /// Where records wait.
    pub spool: SpoolSettings,
}

/// Export of metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsSettings {
    /// Where to.
    pub collector: CollectorSettings,
    /// From one export to the next, 1 s to 1 h.
    pub interval: Duration,
}

/// Which calls' spans are exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SamplingSettings {
    /// Of the calls whose caller has decided nothing.
    pub ratio: SampleRatio,
    /// What is done with those that failed.
    pub failed: Failed,
    /// Calls that took longer are exported always.
    pub slower_than: Option<Duration>,
}

/// Whether a failed call counts as every other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// It is exported always.
    Kept,
    /// It is sampled as others are.
    Sampled,
}

/// Where and how one signal is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectorSettings {
    /// Where to post: with the signal's path for [`OtlpProtocol::Http`]; the collector's own address for gRPC.
    pub endpoint: Url,
    /// How messages are carried.
    pub protocol: OtlpProtocol,
    /// Sent along with every request.
    pub headers: OtlpHeaders,
    /// PEM bundle of the authorities that the collector's certificate is of, in place of the system's.
    pub ca: Option<PathBuf>,
    /// Of one request, from its first byte to the last of the answer.
    pub timeout: Duration,
    /// Of what is sent.
    pub compression: OtlpCompression,
}

/// How messages are carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtlpProtocol {
    /// Unary calls over HTTP/2.
    Grpc,
    /// Binary Protobuf over HTTP/1.1.
    Http,
}

/// What is done with a message before it is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OtlpCompression {
    /// Compressed: collectors must take it. Costs more than all else about a message.
    Gzip,
    /// Sent as it is: the specification's default.
    #[default]
    None,
}

/// Header fields that may hold a secret: their values are never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct OtlpHeaders(Vec<(HeaderName, HeaderValue)>);

impl OtlpHeaders {
    /// Sets a field.
    pub fn set(&mut self, name: HeaderName, mut value: HeaderValue) {
        value.set_sensitive(true);
        self.0.retain(|(known, _)| *known != name);
        self.0.push((name, value));
    }

    /// The fields.
    pub fn iter(&self) -> impl Iterator<Item = &(HeaderName, HeaderValue)> {
        self.0.iter()
    }
}

impl fmt::Debug for OtlpHeaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

impl OtlpSettings {
    /// That of spans and that of logs are the same, in folders of their own; `None`: neither is exported.
    #[must_use]
    pub fn spool(&self) -> Option<&SpoolSettings> {
        let traces = self.traces.as_ref().map(|traces| &traces.spool);
        traces.or(self.logs.as_ref().map(|logs| &logs.spool))
    }
}

impl CollectorSettings {
    /// Whether what is sent crosses the network unencrypted.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        is_plain(&self.endpoint)
    }
}
