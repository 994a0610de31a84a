//! Posts items to the ingestion endpoint's `/v2.1/track`, follows where that has moved, and says what became of them.

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderName, HeaderValue, StatusCode, header};
use url::Url;

use super::super::exporter::{Again, Outcome};
use super::super::http::HttpClient;
use super::{NAME, redirect, reply};
use crate::telemetry::InsightsSettings;
use crate::telemetry::spool::BatchSize;
use crate::tls::ClientTlsSource;

/// Below what Azure's own exporters send at once, in items (512) and in bytes.
pub(super) const BATCH: BatchSize = BatchSize { records: 512, bytes: 512 * 1024 };
/// Redirects of one send (Azure's exporters: 10).
pub(super) const MOST_REDIRECTS: usize = 10;

/// One connection to the collector.
pub(super) struct Sender {
    /// Where to send; a permanent redirect changes it.
    track: Url,
    client: HttpClient,
}

impl Sender {
    pub(super) fn new(settings: &InsightsSettings) -> Self {
        let trust = ClientTlsSource { ca: settings.ca.clone(), ..ClientTlsSource::default() };
        Self { track: settings.connection.track(), client: HttpClient::new(trust) }
    }

    /// Sends the items once, in bounded time.
    pub(super) async fn post(&mut self, items: &[Vec<u8>]) -> Outcome {
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
