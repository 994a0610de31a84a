//! Sends the messages of one signal to its collector: OTLP/HTTP with binary Protobuf, or OTLP/gRPC as what it is on the wire, a
//! POST over HTTP/2 with a prefix of five bytes.

use std::io::Write as _;
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderName, HeaderValue, header};
use url::Url;

use super::super::exporter::Again;
use super::super::http::HttpClient;
use super::reply::{self, Reply};
use super::settings::{CollectorSettings, OtlpCompression, OtlpProtocol};
use crate::tls::{ClientAlpn, ClientTlsSource};

/// What is exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    Traces,
    Logs,
    Metrics,
}

/// The way of one signal.
pub(super) struct Sender {
    url: Url,
    protocol: OtlpProtocol,
    compression: OtlpCompression,
    headers: Vec<(HeaderName, HeaderValue)>,
    timeout: Duration,
    client: HttpClient,
}

impl Signal {
    /// The method that takes it (the collector's `*_service.proto`).
    const fn method(self) -> &'static str {
        match self {
            Self::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            Self::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
            Self::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        }
    }
}

impl Sender {
    pub(super) fn new(signal: Signal, collector: &CollectorSettings) -> Self {
        let mut url = collector.endpoint.clone();
        let alpn = match collector.protocol {
            OtlpProtocol::Grpc => {
                url.set_path(signal.method());
                ClientAlpn::Http2
            }
            OtlpProtocol::Http => ClientAlpn::Http1,
        };
        let trust = ClientTlsSource { ca: collector.ca.clone(), certificate: None, alpn };
        Self {
            url,
            protocol: collector.protocol,
            compression: collector.compression,
            headers: headers(collector),
            timeout: collector.timeout,
            client: HttpClient::new(trust),
        }
    }

    /// Sends a message once, in bounded time.
    pub(super) async fn send(&mut self, message: &[u8]) -> Reply {
        let body = match self.body(message) {
            Ok(body) => Bytes::from(body),
            Err(error) => return later(format!("the message cannot be compressed: {error}")),
        };
        let posting = self.client.post(&self.url, &self.headers, body);
        match tokio::time::timeout(self.timeout, posting).await {
            Ok(Ok(answer)) => match self.protocol {
                OtlpProtocol::Http => reply::of_http(&answer),
                OtlpProtocol::Grpc => reply::of_grpc(&answer),
            },
            Ok(Err(error)) => later(error.to_string()),
            Err(_) => later(format!("no answer within {:?}", self.timeout)),
        }
    }

    fn body(&self, message: &[u8]) -> std::io::Result<Vec<u8>> {
        let (prefix, room): (&[u8], _) = match self.protocol {
            OtlpProtocol::Http => (&[], 0),
            // Filled in when the length is known.
            OtlpProtocol::Grpc => (&[0; 5], 5),
        };
        let mut body = prefix.to_vec();
        match self.compression {
            OtlpCompression::None => body.extend_from_slice(message),
            // Fast rather than small: the text repeats itself so much that more effort gains little.
            OtlpCompression::Gzip => {
                let mut gzip = GzEncoder::new(body, Compression::fast());
                gzip.write_all(message)?;
                body = gzip.finish()?;
            }
        }
        if self.protocol == OtlpProtocol::Grpc {
            let length = u32::try_from(body.len() - room).map_err(std::io::Error::other)?;
            body[0] = u8::from(self.compression == OtlpCompression::Gzip);
            body[1..room].copy_from_slice(&length.to_be_bytes());
        }
        Ok(body)
    }
}

/// The collector's own fields stand behind those that say what the message is: of two, the first is the one that counts.
fn headers(collector: &CollectorSettings) -> Vec<(HeaderName, HeaderValue)> {
    let value = HeaderValue::from_static;
    let mut headers = Vec::new();
    match collector.protocol {
        OtlpProtocol::Http => headers.push((header::CONTENT_TYPE, value("application/x-protobuf"))),
        OtlpProtocol::Grpc => {
            headers.push((header::CONTENT_TYPE, value("application/grpc")));
            headers.push((header::TE, value("trailers")));
            headers.push((HeaderName::from_static("grpc-accept-encoding"), value("identity")));
            let millis = collector.timeout.as_millis().min(99_999_999).to_string();
            if let Ok(timeout) = HeaderValue::try_from(format!("{millis}m")) {
                headers.push((HeaderName::from_static("grpc-timeout"), timeout));
            }
        }
    }
    if collector.compression == OtlpCompression::Gzip {
        let name = match collector.protocol {
            OtlpProtocol::Http => header::CONTENT_ENCODING,
            OtlpProtocol::Grpc => HeaderName::from_static("grpc-encoding"),
        };
        headers.push((name, value("gzip")));
    }
    headers.extend(collector.headers.iter().cloned());
    headers
}

fn later(cause: String) -> Reply {
    Reply::Later(Again { cause, after: None })
}
