//! gRPC as far as a gateway has to know it: which calls are such, how long they wait, and how they are refused
//! (doc/PROTOCOL-HTTP2.md of gRPC).

use std::time::Duration;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, Version};

use crate::error::Error;
use crate::upstream::Special;
use crate::wire::Body;

use super::{headers, respond};

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The statuses of gRPC that the gateway gives by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GrpcStatus {
    Cancelled = 1,
    DeadlineExceeded = 4,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    Unauthenticated = 16,
}

/// Whether a request is a gRPC call, which goes over HTTP/2 only. gRPC-Web is not: its messages have another form, and its
/// clients read trailers in the body.
pub(super) fn is_call(version: Version, headers: &HeaderMap) -> bool {
    version == Version::HTTP_2
        && headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.as_bytes().strip_prefix(b"application/grpc"))
            .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// Makes a call's fields those that a gRPC server wants, and reads what the replica's leg must know of it.
pub(super) fn prepare(headers: &mut HeaderMap) -> Special {
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    Special::Grpc { timeout: headers.get(TIMEOUT).and_then(|value| timeout(value.as_bytes())) }
}

/// Up to eight digits and a unit. What is none is left to the server to refuse.
fn timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if !(1..=8).contains(&digits.len()) {
        return None;
    }
    let count = digits
        .iter()
        .try_fold(0, |sum: u64, byte| byte.is_ascii_digit().then(|| sum * 10 + u64::from(byte - b'0')))?;
    match unit {
        b'H' => Some(Duration::from_secs(count * 60 * 60)),
        b'M' => Some(Duration::from_secs(count * 60)),
        b'S' => Some(Duration::from_secs(count)),
        b'm' => Some(Duration::from_millis(count)),
        b'u' => Some(Duration::from_micros(count)),
        b'n' => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

/// Whether the fields of an answer, or those behind it, say that the call failed at the replica.
pub(super) fn says_failed(fields: &HeaderMap) -> bool {
    fields.get(STATUS).is_some_and(|status| status != "0")
}

/// A refusal in gRPC's own words: an answer that is only a head (its trailers-only form), HTTP status 200.
pub(super) fn refusal(error: &Error, status: GrpcStatus) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    fields.insert(STATUS, HeaderValue::from(status as u16));
    fields.insert(MESSAGE, message(&error.message));
    fields.insert(headers::REASON, HeaderValue::from_static(error.reason().as_str()));
    respond::explain(fields, error);
    response
}

/// Text as `grpc-message` has it: what is not printable ASCII, and the percent sign, in percent-encoding.
fn message(text: &str) -> HeaderValue {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'%' => encoded.push_str("%25"),
            b' '..=b'~' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    HeaderValue::try_from(encoded).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_is_told_by_its_content_type_over_http2() {
        let is = |version, content_type: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
            is_call(version, &headers)
        };
        for yes in ["application/grpc", "application/grpc+proto", "application/grpc;charset=x"] {
            assert!(is(Version::HTTP_2, yes), "{yes}");
            assert!(!is(Version::HTTP_11, yes), "{yes}");
        }
        for no in
            ["application/grpc-web", "application/grpc-web+proto", "application/json", "application/grp"]
        {
            assert!(!is(Version::HTTP_2, no), "{no}");
        }
        assert!(!is_call(Version::HTTP_2, &HeaderMap::new()));
    }

    #[test]
    fn timeouts_are_read_in_every_unit_and_nothing_else_is() {
        for (text, expected) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("99999999S", Some(Duration::from_secs(99_999_999))),
            ("5m", Some(Duration::from_millis(5))),
            ("7u", Some(Duration::from_micros(7))),
            ("0n", Some(Duration::ZERO)),
            ("100000000S", None),
            ("S", None),
            ("", None),
            ("5", None),
            ("5s", None),
            ("-5S", None),
            ("5.0S", None),
        ] {
            assert_eq!(timeout(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn messages_are_percent_encoded() {
        assert_eq!(message("100 % of \u{e9}\n"), "100 %25 of %C3%A9%0A");
    }
}
