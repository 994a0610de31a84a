//! Message heads written.

use bytes::BytesMut;
use http::{HeaderMap, Method, StatusCode, Version};

use super::fields::is_hop_by_hop;
use crate::wire::framing::Framing;

/// The interim answer that asks a client for the body it announced with `Expect: 100-continue`.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What an answer tells its recipient about the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionHeader {
    /// Another request may follow.
    KeepAlive,
    /// This is the last answer.
    Close,
    /// The connection is a WebSocket from here on; goes with a 101 alone.
    WebSocket,
}

/// What tells a server, or a client in a 101, that the connection is to be a WebSocket (RFC 6455 4.1, 4.2.2).
const UPGRADE_FIELDS: &[u8] = b"connection: upgrade\r\nupgrade: websocket\r\n";

/// Appends an HTTP/1.1 request head to `out`.
///
/// The framing field comes from `framing` alone, and fields of `headers` that frame a message or belong to a connection
/// are not written. A request cannot use [`Framing::UntilClose`]; it would be written as one without a body.
pub fn encode_request(
    out: &mut BytesMut,
    method: &Method,
    target: &[u8],
    headers: &HeaderMap,
    framing: Framing,
) {
    encode_request_line(out, method, target);
    encode_fields(out, headers);
    encode_framing(out, framing);
    out.extend_from_slice(b"\r\n");
}

/// Appends the head of a WebSocket handshake to `out`, as [`encode_request`] does any other's: a GET without a body,
/// with the upgrade fields written here and never copied.
pub fn encode_websocket_request(out: &mut BytesMut, target: &[u8], headers: &HeaderMap) {
    encode_request_line(out, &Method::GET, target);
    encode_fields(out, headers);
    out.extend_from_slice(UPGRADE_FIELDS);
    out.extend_from_slice(b"\r\n");
}

fn encode_request_line(out: &mut BytesMut, method: &Method, target: &[u8]) {
    out.extend_from_slice(method.as_str().as_bytes());
    out.extend_from_slice(b" ");
    out.extend_from_slice(target);
    out.extend_from_slice(b" HTTP/1.1\r\n");
}

/// An answer's head to be written.
#[derive(Clone, Copy, Debug)]
pub struct AnswerHead<'a> {
    /// What the client spoke.
    pub version: Version,
    /// Final status.
    pub status: StatusCode,
    /// End-to-end fields.
    pub headers: &'a HeaderMap,
    /// How the body is delimited.
    pub framing: Framing,
    /// What the client is told about the connection.
    pub connection: ConnectionHeader,
}

/// Appends an answer's head to `out`, for a client that spoke `version`.
///
/// The framing field comes from `framing` alone, and fields of `headers` that frame a message or belong to a connection
/// are not written. The status line always says HTTP/1.1, as RFC 9110 2.5 has it; towards HTTP/1.0 that means: no
/// [`Framing::Chunked`], and staying open is said expressly. [`Framing::UntilClose`] closes whatever `connection` says.
pub fn encode_response(out: &mut BytesMut, answer: &AnswerHead<'_>) {
    let AnswerHead { version, status, headers, framing, connection } = *answer;
    debug_assert!(version != Version::HTTP_10 || framing != Framing::Chunked);
    encode_status_line(out, status);
    encode_fields(out, headers);
    encode_framing(out, framing);
    if connection == ConnectionHeader::WebSocket {
        out.extend_from_slice(UPGRADE_FIELDS);
    } else if connection == ConnectionHeader::Close || framing == Framing::UntilClose {
        out.extend_from_slice(b"connection: close\r\n");
    } else if version == Version::HTTP_10 {
        out.extend_from_slice(b"connection: keep-alive\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends an interim answer (RFC 9110 15.2) to `out`; only for clients that speak HTTP/1.1. Fields that frame a message or
/// belong to a connection are not written.
pub fn encode_interim(out: &mut BytesMut, status: StatusCode, headers: &HeaderMap) {
    debug_assert!(status.is_informational());
    encode_status_line(out, status);
    encode_fields(out, headers);
    out.extend_from_slice(b"\r\n");
}

fn encode_status_line(out: &mut BytesMut, status: StatusCode) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.extend_from_slice(b" ");
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Appends field lines to `out`, without those that concern the connection or the framing.
pub(in crate::wire) fn encode_fields(out: &mut BytesMut, headers: &HeaderMap) {
    for (name, value) in headers {
        if is_hop_by_hop(name.as_str()) {
            continue;
        }
        out.reserve(name.as_str().len() + value.len() + 4);
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

fn encode_framing(out: &mut BytesMut, framing: Framing) {
    match framing {
        Framing::None | Framing::UntilClose => {}
        Framing::Length(length) => {
            out.extend_from_slice(b"content-length: ");
            out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
}
