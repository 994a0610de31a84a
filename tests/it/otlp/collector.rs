//! An OpenTelemetry collector that plays a script, over HTTP/1.1 and over gRPC alike, and takes everything after it.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use bytes::{BufMut as _, Bytes};
use http::{HeaderMap, Response};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tokio::io::AsyncWriteExt as _;

use crate::harness::{H2Request, H2Respond, Upstream, read_request};

/// What the collector does with one request.
#[derive(Clone, Copy, Debug)]
pub enum Play {
    /// Breaks the connection or the stream off without an answer.
    Cut,
    /// Answers after the gateway has given up.
    Late,
    /// 503, or UNAVAILABLE: after so many seconds again.
    Unavailable(u64),
    /// 429, or RESOURCE_EXHAUSTED: after so many seconds again; 0: says nothing of it.
    Exhausted(u64),
    /// 400, or INVALID_ARGUMENT.
    Refuse,
    /// Takes all but so many.
    Partly(usize),
}

/// How messages come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http,
    Grpc,
}

/// What came: shared with the server's tasks.
#[derive(Clone)]
pub struct Collector(Arc<Mutex<State>>);

#[derive(Default)]
pub struct State {
    script: Vec<Play>,
    /// How often the log record of each request id was taken.
    pub logs: BTreeMap<String, usize>,
    pub spans: Vec<Span>,
    /// The last metrics by name.
    pub metrics: BTreeMap<String, Metric>,
    /// When each request came, the script's among them.
    pub times: Vec<Instant>,
    /// Header fields of the last request.
    pub headers: HeaderMap,
    /// Every message, uncompressed.
    pub bytes: Vec<u8>,
    is_dead: bool,
}

/// An answer, in terms of both protocols.
struct Answer {
    http: u16,
    grpc: u16,
    again: u64,
    rejected: usize,
    delay: Duration,
}

impl Protocol {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http/protobuf",
            Self::Grpc => "grpc",
        }
    }
}

impl Collector {
    pub async fn start(protocol: Protocol, script: &[Play]) -> (Self, Upstream) {
        let collector = Self::playing(script);
        let server = match protocol {
            Protocol::Http => collector.clone().serve_http().await,
            Protocol::Grpc => collector.clone().serve_grpc(None).await,
        };
        (collector, server)
    }

    /// Over gRPC and TLS.
    pub async fn start_tls(tls: Arc<rustls::ServerConfig>) -> (Self, Upstream) {
        let collector = Self::playing(&[]);
        let server = collector.clone().serve_grpc(Some(tls)).await;
        (collector, server)
    }

    fn playing(script: &[Play]) -> Self {
        let script = script.iter().rev().copied().collect();
        Self(Arc::new(Mutex::new(State { script, ..State::default() })))
    }

    async fn serve_http(self) -> Upstream {
        Upstream::serving(move |mut tcp, connection, _| {
            let collector = self.clone();
            async move {
                let mut buffer = Vec::new();
                while let Some(seen) = read_request(&mut tcp, &mut buffer, connection).await {
                    let mut words = seen.line().split(' ');
                    assert_eq!(
                        (words.next(), seen.header("content-type")),
                        (Some("POST"), "application/x-protobuf")
                    );
                    assert_eq!(seen.header("content-encoding"), "gzip");
                    let mut headers = HeaderMap::new();
                    headers.insert("x-tenant", seen.header("x-tenant").parse().unwrap());
                    let path = words.next().unwrap();
                    let Some(answer) = collector.answer(path, headers, &unzipped(&seen.body)) else { return };
                    tokio::time::sleep(answer.delay).await;
                    if tcp.write_all(&answer.over_http()).await.is_err() {
                        return;
                    }
                }
            }
        })
        .await
    }

    async fn serve_grpc(self, tls: Option<Arc<rustls::ServerConfig>>) -> Upstream {
        Upstream::h2(tls, move |request, respond| self.clone().talk(request, respond)).await
    }

    async fn talk(self, request: H2Request, mut respond: H2Respond) {
        let (head, mut body) = request.into_parts();
        assert_eq!(head.headers["content-type"], "application/grpc");
        assert_eq!(head.headers["te"], "trailers");
        assert_eq!(head.headers["grpc-encoding"], "gzip");
        let mut framed = Vec::new();
        while let Some(Ok(data)) = body.data().await {
            body.flow_control().release_capacity(data.len()).unwrap();
            framed.extend_from_slice(&data);
        }
        let length = u32::from_be_bytes(framed[1..5].try_into().unwrap()) as usize;
        assert_eq!((framed[0], length), (1, framed.len() - 5));
        let Some(answer) = self.answer(head.uri.path(), head.headers.clone(), &unzipped(&framed[5..])) else {
            return respond.send_reset(h2::Reason::INTERNAL_ERROR);
        };
        tokio::time::sleep(answer.delay).await;
        let head = Response::builder().header("content-type", "application/grpc");
        if answer.grpc != 0 {
            let mut head = head.body(()).unwrap();
            head.headers_mut().extend(answer.trailers());
            let _ = respond.send_response(head, true);
            return;
        }
        if let Ok(mut stream) = respond.send_response(head.body(()).unwrap(), false) {
            let _ = stream.send_data(answer.message(), false);
            let _ = stream.send_trailers(answer.trailers());
        }
    }

    /// `None`: there is none, and the connection or stream is broken off.
    fn answer(&self, path: &str, headers: HeaderMap, message: &[u8]) -> Option<Answer> {
        let mut state = self.0.lock().unwrap();
        state.times.push(Instant::now());
        state.headers = headers;
        state.bytes.extend_from_slice(message);
        if state.is_dead {
            return None;
        }
        let taken = Answer { http: 200, grpc: 0, again: 0, rejected: 0, delay: Duration::ZERO };
        let answer = match state.script.pop() {
            Some(Play::Cut) => return None,
            Some(Play::Late) => Answer { delay: Duration::from_secs(2), ..taken },
            Some(Play::Unavailable(again)) => Answer { http: 503, grpc: 14, again, ..taken },
            Some(Play::Exhausted(again)) => Answer { http: 429, grpc: 8, again, ..taken },
            Some(Play::Refuse) => Answer { http: 400, grpc: 3, ..taken },
            Some(Play::Partly(rejected)) => Answer { rejected, ..taken },
            None => taken,
        };
        if answer.http == 200 && answer.delay.is_zero() {
            state.take(path, message, answer.rejected);
        }
        Some(answer)
    }

    pub fn dies(&self) {
        self.0.lock().unwrap().is_dead = true;
    }

    pub fn is_back(&self) {
        self.0.lock().unwrap().is_dead = false;
    }

    pub fn requests(&self) -> usize {
        self.look(|state| state.times.len())
    }

    pub fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.0.lock().unwrap())
    }
}

impl State {
    pub fn is_played(&self) -> bool {
        self.script.is_empty()
    }

    fn take(&mut self, path: &str, message: &[u8], rejected: usize) {
        match path {
            "/v1/logs" | "/opentelemetry.proto.collector.logs.v1.LogsService/Export" => {
                let message = ExportLogsServiceRequest::decode(message).unwrap();
                let groups = message.resource_logs.into_iter().flat_map(|group| group.scope_logs);
                for log in groups.flat_map(|scope| scope.log_records).skip(rejected) {
                    assert_eq!(log.event_name, "scoregate.record");
                    *self.logs.entry(text(&log.attributes, "scoregate.request.id").unwrap()).or_default() +=
                        1;
                }
            }
            "/v1/traces" | "/opentelemetry.proto.collector.trace.v1.TraceService/Export" => {
                let message = ExportTraceServiceRequest::decode(message).unwrap();
                let groups = message.resource_spans.into_iter().flat_map(|group| group.scope_spans);
                self.spans.extend(groups.flat_map(|scope| scope.spans).skip(rejected));
            }
            "/v1/metrics" | "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export" => {
                let message = ExportMetricsServiceRequest::decode(message).unwrap();
                let groups = message.resource_metrics.into_iter().flat_map(|group| group.scope_metrics);
                for metric in groups.flat_map(|scope| scope.metrics) {
                    self.metrics.insert(metric.name.clone(), metric);
                }
            }
            other => panic!("nobody is at {other}"),
        }
    }
}

impl Answer {
    fn partial(&self) -> Vec<u8> {
        let partial = (self.rejected > 0).then(|| ExportLogsPartialSuccess {
            rejected_log_records: self.rejected as i64,
            error_message: "as the script says".to_owned(),
        });
        ExportLogsServiceResponse { partial_success: partial }.encode_to_vec()
    }

    fn over_http(&self) -> Vec<u8> {
        let body = if self.http == 200 { self.partial() } else { Vec::new() };
        let again = if self.again > 0 { format!("Retry-After: {}\r\n", self.again) } else { String::new() };
        let head = format!(
            "HTTP/1.1 {} Played\r\nContent-Type: application/x-protobuf\r\n{again}Content-Length: {}\r\n\r\n",
            self.http,
            body.len()
        );
        [head.into_bytes(), body].concat()
    }

    fn message(&self) -> Bytes {
        let body = self.partial();
        let mut framed = vec![0];
        framed.put_u32(body.len() as u32);
        framed.extend_from_slice(&body);
        framed.into()
    }

    fn trailers(&self) -> HeaderMap {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", self.grpc.into());
        if self.again > 0 {
            // google.rpc.Status { details: [Any { RetryInfo { Duration { seconds } } }] }, each with its tags.
            let delay = nested(1, &[8, self.again as u8]);
            let any = [nested(1, b"type.googleapis.com/google.rpc.RetryInfo"), nested(2, &delay)].concat();
            let status = [vec![8, self.grpc as u8], nested(3, &any)].concat();
            let text = base64::engine::general_purpose::STANDARD_NO_PAD.encode(status);
            trailers.insert("grpc-status-details-bin", text.parse().unwrap());
        }
        trailers
    }
}

fn nested(field: u8, bytes: &[u8]) -> Vec<u8> {
    [&[field << 3 | 2, u8::try_from(bytes.len()).unwrap()], bytes].concat()
}

fn unzipped(bytes: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    flate2::read::GzDecoder::new(bytes).read_to_end(&mut message).unwrap();
    message
}

/// The attribute's value as text.
pub fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    let pair = attributes.iter().find(|pair| pair.key == key)?;
    Some(match pair.value.as_ref()?.value.as_ref()? {
        any_value::Value::StringValue(text) => text.clone(),
        any_value::Value::IntValue(number) => number.to_string(),
        other => format!("{other:?}"),
    })
}
