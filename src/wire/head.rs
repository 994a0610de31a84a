//! HTTP/1.1 message heads as bytes: the strict reader and the writer of both legs.
//!
//! RFC 9112 gives a recipient leave to repair much of what is malformed, and every repair is a chance for two
//! recipients to see two different messages. This reader repairs nothing but one empty line before a request. What
//! frames a message or belongs to the connection alone is read into the head's own fields and taken out of `headers`,
//! so that nobody can copy it onward; the writer writes its own.

mod encode;
mod fields;
mod target;

use std::fmt;
use std::mem::MaybeUninit;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode, Version, header};
use memchr::{memchr, memchr2, memmem};

use super::framing::Framing;
use fields::{Fields, Span, value};
use target::split_target;

pub use encode::{
    AnswerHead, CONTINUE, ConnectionHeader, encode_interim, encode_request, encode_response,
    encode_websocket_request,
};

pub(super) use encode::encode_fields;
pub(super) use fields::is_hop_by_hop;

/// Most fields a head can have, whatever [`HeadLimits::fields`] says.
pub const MAX_FIELDS: usize = 128;

/// Longest method that is read; the longest registered one has 17 letters.
const MAX_METHOD: usize = 32;

/// A partial head up to this long is simply parsed again when more of it has come. Beyond, the end of the head is
/// searched for first, which is some ten times faster: bytes that drip in then cost less than the reads that bring them.
const REPARSE_BYTES: usize = 2048;

/// Bounds of a message head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes of the whole head, start line and final empty line included; below 4 GiB.
    pub bytes: usize,
    /// Field lines; [`MAX_FIELDS`] is the upper bound.
    pub fields: usize,
    /// Bytes of the request target.
    pub target: usize,
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self { bytes: 64 * 1024, fields: 100, target: 16 * 1024 }
    }
}

/// Why a head was refused. The connection cannot be used any further: nobody knows where the next message starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadError {
    /// The request target is longer than `limit` bytes.
    TargetTooLong {
        /// [`HeadLimits::target`].
        limit: usize,
    },
    /// The head is longer than `limit` bytes.
    TooLarge {
        /// [`HeadLimits::bytes`].
        limit: usize,
    },
    /// The head has more than `limit` fields.
    TooManyFields {
        /// [`HeadLimits::fields`].
        limit: usize,
    },
    /// The head is not HTTP/1.1, or can be read in two ways; says where, and what is wrong in words fit for the sender.
    Malformed(Flaw, &'static str),
}

/// Where a malformed head is wrong. A closed list: it is counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// The request or status line, the target apart.
    StartLine,
    /// The request target.
    Target,
    /// What ends a line.
    LineEnd,
    /// The name or value of a field.
    Field,
    /// The host: missing, repeated or not one.
    Host,
    /// What delimits the body.
    Framing,
}

impl Flaw {
    /// All of them, in the order of their declaration.
    pub const ALL: [Self; 6] =
        [Self::StartLine, Self::Target, Self::LineEnd, Self::Field, Self::Host, Self::Framing];

    /// The word it is counted under.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::StartLine => "start_line",
            Self::Target => "target",
            Self::LineEnd => "line_end",
            Self::Field => "field",
            Self::Host => "host",
            Self::Framing => "framing",
        }
    }
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TargetTooLong { limit } => {
                write!(f, "the request target is over {limit} bytes")
            }
            Self::TooLarge { limit } => write!(f, "the head is over {limit} bytes"),
            Self::TooManyFields { limit } => write!(f, "the head has more than {limit} fields"),
            Self::Malformed(_, what) => f.write_str(what),
        }
    }
}

impl std::error::Error for HeadError {}

/// A request's head.
#[derive(Debug)]
pub struct RequestHead {
    /// Any token; case matters.
    pub method: Method,
    /// Path and query, `*` for OPTIONS, or `host:port` for CONNECT: ASCII without blanks, control bytes and `#`.
    pub target: Bytes,
    /// The `host[:port]` of an absolute-form target. It overrides the client's `Host` (RFC 9112 3.2.2), and `headers`
    /// already says so.
    pub authority: Option<Bytes>,
    /// HTTP/1.0 or HTTP/1.1.
    pub version: Version,
    /// End-to-end fields only; at most one `Host`, and exactly one in HTTP/1.1.
    pub headers: HeaderMap,
    /// How the body is delimited; never [`Framing::UntilClose`].
    pub framing: Framing,
    /// Whether the client means to send another request on this connection.
    pub keep_alive: bool,
    /// Whether the client waits for [`CONTINUE`] (or a final answer) before it sends the body.
    pub expect_continue: bool,
    /// Whether this is the head of a WebSocket handshake: a GET by HTTP/1.1 without a body, whose `Upgrade` says
    /// `websocket` alone and whose `Connection` says that it is meant (RFC 6455 4.1).
    pub websocket: bool,
    /// Bytes that the head took on the connection.
    pub head_bytes: usize,
}

/// An answer's head; one with a 1xx status is an interim one, and another head follows.
#[derive(Debug)]
pub struct ResponseHead {
    /// 100 to 999.
    pub status: StatusCode,
    /// HTTP/1.0 or HTTP/1.1.
    pub version: Version,
    /// End-to-end fields only.
    pub headers: HeaderMap,
    /// How the body is delimited.
    pub framing: Framing,
    /// Whether the connection can carry another request after this answer.
    pub keep_alive: bool,
    /// Whether `Upgrade` says `websocket` alone and `Connection` says that it is meant.
    pub websocket: bool,
    /// For how long the sender says that it keeps the connection idle (`Keep-Alive: timeout=N`).
    pub kept_idle: Option<Duration>,
}

/// Reads a request's head from the start of `buf`.
///
/// `None`: more bytes are needed, and `buf` is as it was. Otherwise the head's bytes are split off `buf`, whose first
/// byte is now the body's; the returned target and field values share those bytes.
///
/// # Errors
/// [`HeadError`] for anything over a limit, malformed or ambiguous; `buf` is then of no further use.
pub fn parse_request(buf: &mut BytesMut, limits: &HeadLimits) -> Result<Option<RequestHead>, HeadError> {
    let skipped = match buf.as_ref() {
        [] | [b'\r'] => return Ok(None),
        [b'\r', b'\n', ..] => 2,
        _ => 0,
    };
    let bytes = &buf[skipped..];
    if matches!(bytes.first(), Some(b'\r' | b'\n')) {
        return Err(HeadError::Malformed(Flaw::LineEnd, "empty lines before the request line"));
    }
    if bytes.is_empty() || !may_be_complete(bytes) {
        return incomplete_request(bytes, limits);
    }
    let mut slots = [const { MaybeUninit::<httparse::Header<'_>>::uninit() }; MAX_FIELDS];
    let slots = &mut slots[..limits.fields.min(MAX_FIELDS)];
    let mut request = httparse::Request::new(&mut []);
    let length = match request.parse_with_uninit_headers(bytes, slots) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return incomplete_request(bytes, limits),
        Err(error) => return Err(refusal(error, limits)),
    };
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version) else {
        return Err(HeadError::Malformed(Flaw::StartLine, "invalid request line"));
    };
    if target.len() > limits.target {
        return Err(HeadError::TargetTooLong { limit: limits.target });
    }
    if length > limits.bytes {
        return Err(HeadError::TooLarge { limit: limits.bytes });
    }
    if method.len() > MAX_METHOD {
        return Err(HeadError::Malformed(Flaw::StartLine, "the method is too long"));
    }
    let method = Method::from_bytes(method.as_bytes())
        .map_err(|_| HeadError::Malformed(Flaw::StartLine, "invalid method"))?;
    let target = Span::of(bytes, target.as_bytes());
    let mut fields = Fields::new();
    fields.locate(&bytes[..length], request.headers)?;

    buf.advance(skipped);
    let head = buf.split_to(length).freeze();
    let (mut headers, meaning) = fields.read(&head)?;
    let version = version(minor);
    meaning.check_host(version)?;
    let (authority, target) = split_target(&method, target.slice(&head))?;
    if let Some(authority) = &authority {
        headers.insert(header::HOST, value(authority.clone())?);
    }
    let framing = meaning.framing(version)?.unwrap_or(Framing::None);
    Ok(Some(RequestHead {
        websocket: meaning.says_websocket()
            && method == Method::GET
            && version == Version::HTTP_11
            && framing == Framing::None,
        framing,
        keep_alive: meaning.keep_alive(version),
        expect_continue: meaning.expect_continue && version == Version::HTTP_11,
        head_bytes: skipped + length,
        method,
        target,
        authority,
        version,
        headers,
    }))
}

/// Reads an answer's head from the start of `buf`; `request_method` is that of the request it answers, since an answer
/// to HEAD has no body whatever its fields say.
///
/// `None`: more bytes are needed, and `buf` is as it was. Otherwise the head's bytes are split off `buf`.
/// [`HeadLimits::target`] does not apply.
///
/// # Errors
/// [`HeadError`] for anything over a limit, malformed or ambiguous; `buf` is then of no further use.
pub fn parse_response(
    buf: &mut BytesMut,
    limits: &HeadLimits,
    request_method: &Method,
) -> Result<Option<ResponseHead>, HeadError> {
    let bytes = buf.as_ref();
    match bytes.first() {
        None => return Ok(None),
        Some(b'H') => {}
        Some(_) => return Err(HeadError::Malformed(Flaw::StartLine, "the answer is not HTTP/1.1")),
    }
    if !may_be_complete(bytes) {
        return incomplete(bytes, limits);
    }
    let mut slots = [const { MaybeUninit::<httparse::Header<'_>>::uninit() }; MAX_FIELDS];
    let slots = &mut slots[..limits.fields.min(MAX_FIELDS)];
    let mut response = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let length = match config.parse_response_with_uninit_headers(&mut response, bytes, slots) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return incomplete(bytes, limits),
        Err(error) => return Err(refusal(error, limits)),
    };
    if length > limits.bytes {
        return Err(HeadError::TooLarge { limit: limits.bytes });
    }
    let (Some(code), Some(minor)) = (response.code, response.version) else {
        return Err(HeadError::Malformed(Flaw::StartLine, "invalid status line"));
    };
    let status = StatusCode::from_u16(code)
        .map_err(|_| HeadError::Malformed(Flaw::StartLine, "the status is not between 100 and 999"))?;
    let mut fields = Fields::new();
    fields.locate(&bytes[..length], response.headers)?;

    let head = buf.split_to(length).freeze();
    let (headers, meaning) = fields.read(&head)?;
    let version = version(minor);
    let declared = meaning.framing(version)?.unwrap_or(Framing::UntilClose);
    let bodiless = status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED
        || *request_method == Method::HEAD;
    let framing = if bodiless { Framing::None } else { declared };
    Ok(Some(ResponseHead {
        keep_alive: meaning.keep_alive(version) && framing != Framing::UntilClose,
        websocket: meaning.says_websocket(),
        kept_idle: meaning.kept_idle,
        status,
        version,
        headers,
        framing,
    }))
}

/// Reads a trailer section, which is fields and an empty line, from the start of `buf`; its bytes are split off.
/// `None`: more bytes are needed. Says nothing on which fields make sense there.
pub(super) fn parse_trailers(
    buf: &mut BytesMut,
    limits: &HeadLimits,
) -> Result<Option<HeaderMap>, HeadError> {
    if buf.starts_with(b"\r\n") {
        buf.advance(2);
        return Ok(Some(HeaderMap::new()));
    }
    if !may_be_complete(buf) {
        return incomplete(buf, limits);
    }
    let mut slots = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let slots = &mut slots[..limits.fields.min(MAX_FIELDS)];
    let (length, parsed) = match httparse::parse_headers(buf, slots) {
        Ok(httparse::Status::Complete(complete)) => complete,
        Ok(httparse::Status::Partial) => return incomplete(buf, limits),
        Err(error) => return Err(refusal(error, limits)),
    };
    if length > limits.bytes {
        return Err(HeadError::TooLarge { limit: limits.bytes });
    }
    let mut fields = Fields::new();
    fields.locate(&buf[..length], parsed)?;
    let section = buf.split_to(length).freeze();
    fields.trailers(&section).map(Some)
}

/// False only if the end of the section is surely not there yet.
fn may_be_complete(bytes: &[u8]) -> bool {
    bytes.len() <= REPARSE_BYTES || memmem::find(bytes, b"\r\n\r\n").is_some()
}

fn incomplete<T>(bytes: &[u8], limits: &HeadLimits) -> Result<Option<T>, HeadError> {
    if bytes.len() >= limits.bytes {
        return Err(HeadError::TooLarge { limit: limits.bytes });
    }
    Ok(None)
}

fn incomplete_request(bytes: &[u8], limits: &HeadLimits) -> Result<Option<RequestHead>, HeadError> {
    if bytes.len() > limits.target
        && let Some(blank) = memchr(b' ', bytes)
    {
        let rest = &bytes[blank + 1..];
        if memchr2(b' ', b'\n', rest).unwrap_or(rest.len()) > limits.target {
            return Err(HeadError::TargetTooLong { limit: limits.target });
        }
    }
    incomplete(bytes, limits)
}

fn refusal(error: httparse::Error, limits: &HeadLimits) -> HeadError {
    let (flaw, problem) = match error {
        httparse::Error::TooManyHeaders => {
            return HeadError::TooManyFields { limit: limits.fields.min(MAX_FIELDS) };
        }
        httparse::Error::HeaderName => (Flaw::Field, "invalid field name"),
        httparse::Error::HeaderValue => (Flaw::Field, "invalid byte in a field value"),
        httparse::Error::NewLine => (Flaw::LineEnd, "invalid line end"),
        httparse::Error::Status => (Flaw::StartLine, "invalid status"),
        httparse::Error::Token => (Flaw::StartLine, "invalid request line"),
        httparse::Error::Version => (Flaw::StartLine, "the HTTP version is not 1.0 or 1.1"),
    };
    HeadError::Malformed(flaw, problem)
}

const fn version(minor: u8) -> Version {
    if minor == 0 { Version::HTTP_10 } else { Version::HTTP_11 }
}

#[cfg(test)]
mod tests;
