//! Azure Application Insights: each record becomes a request telemetry item (`RequestData`), posted in batches to the
//! ingestion endpoint's `/v2.1/track` as the Azure Monitor exporters do.

mod connection;
mod envelope;
mod event;
mod line;
mod redirect;
mod reply;

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderName, HeaderValue, StatusCode, header};
use url::Url;

pub use connection::{ConnectionError, ConnectionString};

use super::exporter::{Again, Exporter, Outcome, Untranslatable};
use super::http::HttpClient;
use crate::telemetry::InsightsSettings;
use crate::telemetry::spool::{BatchSize, Entry, EntryKind};
use crate::tls::ClientTlsSource;
use envelope::Envelopes;

/// As in the configuration.
pub(in crate::telemetry) const NAME: &str = "application_insights";
/// Below what Azure's own exporters send at once, in items (512) and in bytes.
const BATCH: BatchSize = BatchSize { records: 512, bytes: 512 * 1024 };
/// Redirects of one send (Azure's exporters: 10).
const MOST_REDIRECTS: usize = 10;

/// Sends to one Application Insights resource.
pub(in crate::telemetry) struct Insights {
    envelopes: Envelopes,
    /// Where to send; a permanent redirect changes it.
    track: Url,
    client: HttpClient,
}

impl Insights {
    pub(in crate::telemetry) fn new(settings: &InsightsSettings) -> Self {
        let connection = &settings.connection;
        let (envelopes, track) = (Envelopes::new(connection.key().clone()), connection.track());
        let trust = ClientTlsSource { ca: settings.ca.clone(), ..ClientTlsSource::default() };
        Self { envelopes, track, client: HttpClient::new(trust) }
    }

    async fn post(&mut self, items: &[Vec<u8>]) -> Outcome {
        let body = match gzipped(items) {
            Ok(body) => Bytes::from(body),
            Err(error) => return later(format!("the batch cannot be compressed: {error}")),
        };
        let headers = [
            (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (header::CONTENT_ENCODING, HeaderValue::from_static("gzip")),
            (HeaderName::from_static("x-ms-client-request-id"), request_id()),
        ];
        for _ in 0..=MOST_REDIRECTS {
            let answer = match self.client.post(&self.track, &headers, body.clone()).await {
                Ok(answer) => answer,
                Err(error) => return later(error.to_string()),
            };
            if !matches!(answer.status, StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT) {
                return reply::outcome(&answer, items.len());
            }
            match redirect::target(&self.track, answer.headers.get(header::LOCATION)) {
                Ok(target) => {
                    tracing::info!(exporter = NAME, host = target.host_str(), "the collector has moved");
                    self.track = target;
                }
                Err(problem) => return later(format!("status {}: {problem}", answer.status.as_u16())),
            }
        }
        later(format!("more than {MOST_REDIRECTS} redirects"))
    }
}

impl Exporter for Insights {
    fn name(&self) -> &'static str {
        NAME
    }

    fn batch(&self) -> BatchSize {
        BATCH
    }

    fn translate(&self, entry: Entry<'_>) -> Result<Vec<u8>, Untranslatable> {
        match entry.kind {
            EntryKind::Record => self.envelopes.translate(entry.line),
            EntryKind::Event => event::translate(&self.envelopes, entry.line),
        }
    }

    async fn send(&mut self, items: &[Vec<u8>]) -> Outcome {
        self.post(items).await
    }
}

/// A JSON array of the items. Fast rather than small: the text repeats itself so much that more effort gains little.
fn gzipped(items: &[Vec<u8>]) -> std::io::Result<Vec<u8>> {
    let size: usize = items.iter().map(Vec::len).sum();
    let mut body = GzEncoder::new(Vec::with_capacity(size / 8), Compression::fast());
    for (place, item) in items.iter().enumerate() {
        body.write_all(if place == 0 { b"[" } else { b"," })?;
        body.write_all(item)?;
    }
    body.write_all(b"]")?;
    body.finish()
}

fn request_id() -> HeaderValue {
    let id = uuid::Uuid::new_v4().to_string();
    // Digits and hyphens: a header takes them.
    HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static(""))
}

fn later(cause: String) -> Outcome {
    Outcome::Later(Again { cause, after: None })
}

#[cfg(test)]
mod tests;
