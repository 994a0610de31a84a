//! What an answer of a collector means (<https://opentelemetry.io/docs/specs/otlp/>): OTLP/HTTP's statuses and OTLP/gRPC's
//! codes, with the collector's wish for a pause.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use http::{HeaderMap, StatusCode};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsPartialSuccess, ExportLogsServiceResponse};
use prost::Message as _;

use super::super::exporter::Again;
use super::super::http::{Answer, echo};

/// What became of a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// The collector took it, but for so many of its spans, log records or points, which it will never take.
    Taken { rejected: u64, message: String },
    /// It will never be taken.
    Refused { cause: String },
    /// It may be taken later.
    Later(Again),
}

/// `google.rpc.Status`
#[derive(Clone, PartialEq, prost::Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.protobuf.Any`
#[derive(Clone, PartialEq, prost::Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `google.rpc.RetryInfo`
#[derive(Clone, PartialEq, prost::Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<Delay>,
}

/// `google.protobuf.Duration`
#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Delay {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

/// Codes of gRPC that have a meaning of their own here.
mod code {
    pub const OK: u16 = 0;
    pub const CANCELLED: u16 = 1;
    pub const UNKNOWN: u16 = 2;
    pub const DEADLINE_EXCEEDED: u16 = 4;
    pub const PERMISSION_DENIED: u16 = 7;
    pub const RESOURCE_EXHAUSTED: u16 = 8;
    pub const ABORTED: u16 = 10;
    pub const OUT_OF_RANGE: u16 = 11;
    pub const UNIMPLEMENTED: u16 = 12;
    pub const INTERNAL: u16 = 13;
    pub const UNAVAILABLE: u16 = 14;
    pub const DATA_LOSS: u16 = 15;
    pub const UNAUTHENTICATED: u16 = 16;
}

/// Reads an answer of OTLP/HTTP.
pub(super) fn of_http(answer: &Answer) -> Reply {
    if answer.status.is_success() {
        return taken(&answer.body);
    }
    let told = match Status::decode(&answer.body[..]) {
        Ok(status) if !status.message.is_empty() => status.message,
        _ => String::from_utf8_lossy(&answer.body).into_owned(),
    };
    let cause = format!("status {}: {}", answer.status.as_u16(), echo(&told));
    match answer.status {
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Reply::Later(Again { cause, after: answer.retry_after() }),
        _ => Reply::Refused { cause },
    }
}

/// Reads an answer of OTLP/gRPC. An answer without a body has its status among the headers.
pub(super) fn of_grpc(answer: &Answer) -> Reply {
    let field = |name: &str| answer.trailers.get(name).or_else(|| answer.headers.get(name));
    let code = match field("grpc-status").map(|value| value.to_str().ok().and_then(|code| code.parse().ok()))
    {
        Some(code) => code.unwrap_or(code::UNKNOWN),
        None => code_of(answer.status),
    };
    if code == code::OK {
        return message(&answer.body)
            .map_or_else(|| Reply::Taken { rejected: 0, message: String::new() }, taken);
    }
    let told = field("grpc-message").map(|text| String::from_utf8_lossy(text.as_bytes()).into_owned());
    let cause = format!("gRPC status {code}: {}", echo(&told.unwrap_or_default()));
    let after = retry_delay(&answer.trailers).or_else(|| retry_delay(&answer.headers));
    let may_be_taken = match code {
        code::CANCELLED
        | code::DEADLINE_EXCEEDED
        | code::ABORTED
        | code::OUT_OF_RANGE
        | code::UNAVAILABLE
        | code::DATA_LOSS => true,
        code::RESOURCE_EXHAUSTED => after.is_some(),
        _ => false,
    };
    if may_be_taken { Reply::Later(Again { cause, after }) } else { Reply::Refused { cause } }
}

/// What took it may have left out a part. The responses of the three signals are the same on the wire.
fn taken(body: &[u8]) -> Reply {
    let partial = ExportLogsServiceResponse::decode(body).ok().and_then(|response| response.partial_success);
    let ExportLogsPartialSuccess { rejected_log_records, error_message } = partial.unwrap_or_default();
    Reply::Taken { rejected: u64::try_from(rejected_log_records).unwrap_or(0), message: echo(&error_message) }
}

/// The one message of an answer: behind a byte that says it is not compressed, which we did not allow, and its length.
fn message(body: &[u8]) -> Option<&[u8]> {
    let (prefix, message) = body.split_at_checked(5)?;
    let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]);
    (prefix[0] == 0).then(|| message.get(..length as usize)).flatten()
}

/// An answer without a gRPC status is of somebody on the way (gRPC's http-grpc-status-mapping.md).
fn code_of(status: StatusCode) -> u16 {
    match status.as_u16() {
        400 => code::INTERNAL,
        401 => code::UNAUTHENTICATED,
        403 => code::PERMISSION_DENIED,
        404 => code::UNIMPLEMENTED,
        429 | 502..=504 => code::UNAVAILABLE,
        _ => code::UNKNOWN,
    }
}

fn retry_delay(headers: &HeaderMap) -> Option<Duration> {
    let details = headers.get("grpc-status-details-bin")?.as_bytes();
    let padding = details.iter().rev().take_while(|byte| **byte == b'=').count();
    let details = STANDARD_NO_PAD.decode(&details[..details.len() - padding]).ok()?;
    let details = Status::decode(&details[..]).ok()?.details;
    let info = details.iter().find(|detail| detail.type_url.ends_with("/google.rpc.RetryInfo"))?;
    let delay = RetryInfo::decode(&info.value[..]).ok()?.retry_delay?;
    Some(Duration::new(u64::try_from(delay.seconds).ok()?, u32::try_from(delay.nanos).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http::HeaderValue;

    fn answer(status: u16, body: impl Into<Bytes>) -> Answer {
        let (headers, trailers) = (HeaderMap::new(), HeaderMap::new());
        Answer { status: StatusCode::from_u16(status).unwrap(), headers, body: body.into(), trailers }
    }

    fn grpc(code: &'static str, retry: Option<Duration>) -> Reply {
        let mut answer = answer(200, "");
        answer.trailers.insert("grpc-status", HeaderValue::from_static(code));
        answer.trailers.insert("grpc-message", HeaderValue::from_static("told"));
        if let Some(retry) = retry {
            let delay = Delay { seconds: retry.as_secs() as i64, nanos: retry.subsec_nanos() as i32 };
            let info = RetryInfo { retry_delay: Some(delay) }.encode_to_vec();
            let others =
                Any { type_url: "type.googleapis.com/google.rpc.DebugInfo".to_owned(), value: vec![1] };
            let info = Any { type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(), value: info };
            let status = Status { code: 8, message: String::new(), details: vec![others, info] };
            let details = base64::engine::general_purpose::STANDARD.encode(status.encode_to_vec());
            answer.trailers.insert("grpc-status-details-bin", details.parse().unwrap());
        }
        of_grpc(&answer)
    }

    fn later(cause: &str, after: Option<Duration>) -> Reply {
        Reply::Later(Again { cause: cause.to_owned(), after })
    }

    #[test]
    fn over_http_four_statuses_may_be_tried_again() {
        for status in [429, 502, 503, 504] {
            assert_eq!(of_http(&answer(status, "busy")), later(&format!("status {status}: busy"), None));
        }
        for status in [301, 400, 401, 404, 408, 413, 500] {
            assert!(matches!(of_http(&answer(status, "")), Reply::Refused { .. }), "{status}");
        }
        let mut busy =
            answer(503, Status { code: 14, message: "full".to_owned(), details: vec![] }.encode_to_vec());
        busy.headers.insert("retry-after", HeaderValue::from_static("7"));
        assert_eq!(of_http(&busy), later("status 503: full", Some(Duration::from_secs(7))));
    }

    #[test]
    fn over_grpc_exhaustion_may_be_tried_again_only_if_the_collector_says_when() {
        let retry = Some(Duration::from_millis(1500));
        for code in ["1", "4", "10", "11", "14", "15"] {
            assert_eq!(grpc(code, None), later(&format!("gRPC status {code}: told"), None));
            assert_eq!(grpc(code, retry), later(&format!("gRPC status {code}: told"), retry));
        }
        assert_eq!(grpc("8", retry), later("gRPC status 8: told", retry));
        for code in ["2", "3", "5", "7", "8", "12", "13", "16", "99", "x"] {
            assert!(matches!(grpc(code, None), Reply::Refused { .. }), "{code}");
        }
    }

    #[test]
    fn an_answer_of_somebody_on_the_way_is_read_by_its_http_status() {
        for (status, again) in
            [(503, true), (429, true), (502, true), (404, false), (401, false), (200, false)]
        {
            assert_eq!(matches!(of_grpc(&answer(status, "")), Reply::Later(_)), again, "{status}");
        }
    }

    #[test]
    fn a_part_that_is_rejected_is_told() {
        let partial =
            ExportLogsPartialSuccess { rejected_log_records: 3, error_message: "too\nold".to_owned() };
        let body = ExportLogsServiceResponse { partial_success: Some(partial) }.encode_to_vec();
        let expected = Reply::Taken { rejected: 3, message: "tooold".to_owned() };
        assert_eq!(of_http(&answer(200, body.clone())), expected);
        let mut framed = vec![0, 0, 0, 0, body.len() as u8];
        framed.extend_from_slice(&body);
        let mut over_grpc = answer(200, framed);
        over_grpc.trailers.insert("grpc-status", HeaderValue::from_static("0"));
        assert_eq!(of_grpc(&over_grpc), expected);
        let all = Reply::Taken { rejected: 0, message: String::new() };
        assert_eq!(
            (of_http(&answer(200, "")), of_http(&answer(200, "no message"))),
            (all, Reply::Taken { rejected: 0, message: String::new() })
        );
    }
}
