//! HTTP/1.1 message heads as bytes: the strict reader and the writer of both legs.
//!
//! RFC 9112 gives a recipient leave to repair much of what is malformed, and every repair is a chance for two
//! recipients to see two different messages. This reader repairs nothing but one empty line before a request. What
//! frames a message or belongs to the connection alone is read into the head's own fields and taken out of `headers`,
//! so that nobody can copy it onward; the writer writes its own.

use std::fmt;
use std::mem::MaybeUninit;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use memchr::{memchr, memchr2, memmem};

use super::framing::Framing;

/// Most fields a head can have, whatever [`HeadLimits::fields`] says.
pub const MAX_FIELDS: usize = 128;

/// The interim answer that asks a client for the body it announced with `Expect: 100-continue`.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Longest method that is read; the longest registered one has 17 letters.
const MAX_METHOD: usize = 32;

/// Longest host, as in a certificate or in the DNS.
const MAX_HOST: usize = 255;

/// A partial head up to this long is simply parsed again when more of it has come. Beyond, the end of the head is
/// searched for first, which is some ten times faster: bytes that drip in then cost less than the reads that bring them.
const REPARSE_BYTES: usize = 2048;

/// Room for the fields that a gateway adds, so that the map need not grow for them.
const SPARE_FIELDS: usize = 6;

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
        Self {
            bytes: 64 * 1024,
            fields: 100,
            target: 16 * 1024,
        }
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
    /// The head is not HTTP/1.1, or can be read in two ways; says what is wrong, in words fit for the sender.
    Malformed(&'static str),
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TargetTooLong { limit } => {
                write!(f, "the request target is over {limit} bytes")
            }
            Self::TooLarge { limit } => write!(f, "the head is over {limit} bytes"),
            Self::TooManyFields { limit } => write!(f, "the head has more than {limit} fields"),
            Self::Malformed(what) => f.write_str(what),
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
}

/// What an answer tells its recipient about the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionHeader {
    /// Another request may follow.
    KeepAlive,
    /// This is the last answer.
    Close,
}

/// Reads a request's head from the start of `buf`.
///
/// `None`: more bytes are needed, and `buf` is as it was. Otherwise the head's bytes are split off `buf`, whose first
/// byte is now the body's; the returned target and field values share those bytes.
///
/// # Errors
/// [`HeadError`] for anything over a limit, malformed or ambiguous; `buf` is then of no further use.
pub fn parse_request(
    buf: &mut BytesMut,
    limits: &HeadLimits,
) -> Result<Option<RequestHead>, HeadError> {
    let skipped = match buf.as_ref() {
        [] | [b'\r'] => return Ok(None),
        [b'\r', b'\n', ..] => 2,
        _ => 0,
    };
    let bytes = &buf[skipped..];
    if matches!(bytes.first(), Some(b'\r' | b'\n')) {
        return Err(HeadError::Malformed("empty lines before the request line"));
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
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version)
    else {
        return Err(HeadError::Malformed("invalid request line"));
    };
    if target.len() > limits.target {
        return Err(HeadError::TargetTooLong {
            limit: limits.target,
        });
    }
    if length > limits.bytes {
        return Err(HeadError::TooLarge {
            limit: limits.bytes,
        });
    }
    if method.len() > MAX_METHOD {
        return Err(HeadError::Malformed("the method is too long"));
    }
    let method = Method::from_bytes(method.as_bytes())
        .map_err(|_| HeadError::Malformed("invalid method"))?;
    let target = Span::of(bytes, target.as_bytes());
    let fields = Fields::locate(&bytes[..length], request.headers)?;

    buf.advance(skipped);
    let head = buf.split_to(length).freeze();
    let (mut headers, meaning) = fields.read(&head)?;
    let version = version(minor);
    meaning.check_host(version)?;
    let (authority, target) = split_target(&method, target.slice(&head))?;
    if let Some(authority) = &authority {
        headers.insert(header::HOST, value(authority.clone())?);
    }
    Ok(Some(RequestHead {
        framing: meaning.framing(version)?.unwrap_or(Framing::None),
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
        Some(_) => return Err(HeadError::Malformed("the answer is not HTTP/1.1")),
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
        return Err(HeadError::TooLarge {
            limit: limits.bytes,
        });
    }
    let (Some(code), Some(minor)) = (response.code, response.version) else {
        return Err(HeadError::Malformed("invalid status line"));
    };
    let status = StatusCode::from_u16(code)
        .map_err(|_| HeadError::Malformed("the status is not between 100 and 999"))?;
    let fields = Fields::locate(&bytes[..length], response.headers)?;

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
        status,
        version,
        headers,
        framing,
    }))
}

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
    out.extend_from_slice(method.as_str().as_bytes());
    out.extend_from_slice(b" ");
    out.extend_from_slice(target);
    out.extend_from_slice(b" HTTP/1.1\r\n");
    encode_fields(out, headers);
    encode_framing(out, framing);
    out.extend_from_slice(b"\r\n");
}

/// Appends an answer's head to `out`, for a client that spoke `version`.
///
/// The framing field comes from `framing` alone, and fields of `headers` that frame a message or belong to a connection
/// are not written. The status line always says HTTP/1.1, as RFC 9110 2.5 has it; towards HTTP/1.0 that means: no
/// [`Framing::Chunked`], and staying open is said expressly. [`Framing::UntilClose`] closes whatever `connection` says.
pub fn encode_response(
    out: &mut BytesMut,
    version: Version,
    status: StatusCode,
    headers: &HeaderMap,
    framing: Framing,
    connection: ConnectionHeader,
) {
    debug_assert!(version != Version::HTTP_10 || framing != Framing::Chunked);
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.extend_from_slice(b" ");
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    encode_fields(out, headers);
    encode_framing(out, framing);
    if connection == ConnectionHeader::Close || framing == Framing::UntilClose {
        out.extend_from_slice(b"connection: close\r\n");
    } else if version == Version::HTTP_10 {
        out.extend_from_slice(b"connection: keep-alive\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// Whether a field is about the message's framing or the connection, so that it must not travel further.
pub(super) fn is_hop_by_hop(name: &str) -> bool {
    !matches!(Role::of(name.as_bytes()), Role::EndToEnd | Role::Host)
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
        return Err(HeadError::TooLarge {
            limit: limits.bytes,
        });
    }
    let fields = Fields::locate(&buf[..length], parsed)?;
    let section = buf.split_to(length).freeze();
    fields.trailers(&section).map(Some)
}

/// Appends field lines to `out`, without those that concern the connection or the framing.
pub(super) fn encode_fields(out: &mut BytesMut, headers: &HeaderMap) {
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

/// False only if the end of the section is surely not there yet.
fn may_be_complete(bytes: &[u8]) -> bool {
    bytes.len() <= REPARSE_BYTES || memmem::find(bytes, b"\r\n\r\n").is_some()
}

fn incomplete<T>(bytes: &[u8], limits: &HeadLimits) -> Result<Option<T>, HeadError> {
    if bytes.len() >= limits.bytes {
        return Err(HeadError::TooLarge {
            limit: limits.bytes,
        });
    }
    Ok(None)
}

fn incomplete_request(bytes: &[u8], limits: &HeadLimits) -> Result<Option<RequestHead>, HeadError> {
    if bytes.len() > limits.target
        && let Some(blank) = memchr(b' ', bytes)
    {
        let rest = &bytes[blank + 1..];
        if memchr2(b' ', b'\n', rest).unwrap_or(rest.len()) > limits.target {
            return Err(HeadError::TargetTooLong {
                limit: limits.target,
            });
        }
    }
    incomplete(bytes, limits)
}

fn refusal(error: httparse::Error, limits: &HeadLimits) -> HeadError {
    HeadError::Malformed(match error {
        httparse::Error::TooManyHeaders => {
            return HeadError::TooManyFields {
                limit: limits.fields.min(MAX_FIELDS),
            };
        }
        httparse::Error::HeaderName => "invalid field name",
        httparse::Error::HeaderValue => "invalid byte in a field value",
        httparse::Error::NewLine => "invalid line end",
        httparse::Error::Status => "invalid status",
        httparse::Error::Token => "invalid request line",
        httparse::Error::Version => "the HTTP version is not 1.0 or 1.1",
    })
}

const fn version(minor: u8) -> Version {
    if minor == 0 {
        Version::HTTP_10
    } else {
        Version::HTTP_11
    }
}

fn value(bytes: Bytes) -> Result<HeaderValue, HeadError> {
    HeaderValue::from_maybe_shared(bytes)
        .map_err(|_| HeadError::Malformed("invalid byte in a field value"))
}

/// Part of a section, by offsets: unlike a slice it survives that the section is split off its buffer.
#[derive(Clone, Copy, Default)]
struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// Where `part`, a slice of `whole`, lies.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "sections are bounded by HeadLimits::bytes, which is below 4 GiB"
    )]
    fn of(whole: &[u8], part: &[u8]) -> Self {
        let start = (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize);
        // httparse gives an empty value as a slice of its own, not of the buffer.
        let start = if part.is_empty() { 0 } else { start };
        Self {
            start: start as u32,
            end: (start + part.len()) as u32,
        }
    }

    fn bytes(self, whole: &[u8]) -> &[u8] {
        &whole[self.start as usize..self.end as usize]
    }

    fn slice(self, whole: &Bytes) -> Bytes {
        whole.slice(self.start as usize..self.end as usize)
    }
}

/// The fields of a section, in order.
struct Fields {
    spans: [(Span, Span); MAX_FIELDS],
    count: usize,
}

impl Fields {
    /// Notes where the fields lie in `section`, and checks the one thing that httparse is lenient on: that each line
    /// ends with CR LF and not with LF alone.
    fn locate(section: &[u8], parsed: &[httparse::Header<'_>]) -> Result<Self, HeadError> {
        const LINE_END: HeadError = HeadError::Malformed("a line ends without CR LF");
        let mut fields = Self {
            spans: [(Span::default(), Span::default()); MAX_FIELDS],
            count: parsed.len(),
        };
        for (span, field) in fields.spans.iter_mut().zip(parsed) {
            let name = Span::of(section, field.name.as_bytes());
            let before = &section[..name.start as usize];
            if !before.is_empty() && !before.ends_with(b"\r\n") {
                return Err(LINE_END);
            }
            *span = (name, Span::of(section, field.value));
        }
        if section.ends_with(b"\r\n\r\n") {
            Ok(fields)
        } else {
            Err(LINE_END)
        }
    }

    fn iter(&self) -> impl Iterator<Item = (Span, Span)> {
        self.spans[..self.count].iter().copied()
    }

    /// Sorts the fields of `head` into those that travel on and the meaning of those that do not.
    fn read(&self, head: &Bytes) -> Result<(HeaderMap, Meaning), HeadError> {
        let mut headers = HeaderMap::with_capacity(self.count + SPARE_FIELDS);
        let mut meaning = Meaning::default();
        for (name, content) in self.iter() {
            match Role::of(name.bytes(head)) {
                Role::EndToEnd => {
                    headers.append(field_name(name.bytes(head))?, value(content.slice(head))?);
                }
                Role::Host => {
                    meaning.add_host(content.bytes(head))?;
                    headers.append(header::HOST, value(content.slice(head))?);
                }
                Role::ContentLength => meaning.add_length(content.bytes(head))?,
                Role::TransferEncoding => meaning.add_coding(content.bytes(head))?,
                Role::Connection => meaning.add_options(content.bytes(head)),
                Role::Expect => {
                    meaning.expect_continue |=
                        content.bytes(head).eq_ignore_ascii_case(b"100-continue");
                }
                Role::HopByHop => {}
            }
        }
        if meaning.names_fields {
            self.drop_named(head, &mut headers);
        }
        Ok((headers, meaning))
    }

    /// Takes out what `Connection` names (RFC 9110 7.6.1), except `Host`, which no one may remove; the framing fields
    /// are not in the map any more.
    fn drop_named(&self, head: &Bytes, headers: &mut HeaderMap) {
        for (name, content) in self.iter() {
            if Role::of(name.bytes(head)) != Role::Connection {
                continue;
            }
            for option in options(content.bytes(head)) {
                if let Ok(named) = HeaderName::from_bytes(option)
                    && named != header::HOST
                {
                    headers.remove(named);
                }
            }
        }
    }

    fn trailers(&self, section: &Bytes) -> Result<HeaderMap, HeadError> {
        let mut trailers = HeaderMap::with_capacity(self.count);
        for (name, content) in self.iter() {
            trailers.append(
                field_name(name.bytes(section))?,
                value(content.slice(section))?,
            );
        }
        Ok(trailers)
    }
}

fn field_name(name: &[u8]) -> Result<HeaderName, HeadError> {
    HeaderName::from_bytes(name).map_err(|_| HeadError::Malformed("invalid field name"))
}

/// What a field is to a gateway.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    EndToEnd,
    Host,
    ContentLength,
    TransferEncoding,
    Connection,
    Expect,
    HopByHop,
}

impl Role {
    /// By length first: most names are told apart without comparing a letter.
    fn of(name: &[u8]) -> Self {
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        match name.len() {
            2 if is(b"te") => Self::HopByHop,
            4 if is(b"host") => Self::Host,
            6 if is(b"expect") => Self::Expect,
            7 if is(b"trailer") || is(b"upgrade") => Self::HopByHop,
            10 if is(b"connection") => Self::Connection,
            10 if is(b"keep-alive") => Self::HopByHop,
            14 if is(b"content-length") => Self::ContentLength,
            14 if is(b"http2-settings") => Self::HopByHop,
            17 if is(b"transfer-encoding") => Self::TransferEncoding,
            7.. if name[..6].eq_ignore_ascii_case(b"proxy-") => Self::HopByHop,
            _ => Self::EndToEnd,
        }
    }
}

/// What the fields say that do not travel on.
#[derive(Default)]
struct Meaning {
    length: Option<u64>,
    coding: Coding,
    persistence: Persistence,
    /// `Connection` names fields, which have to go.
    names_fields: bool,
    has_host: bool,
    expect_continue: bool,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Coding {
    #[default]
    Identity,
    Chunked,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Persistence {
    #[default]
    Unsaid,
    KeepAlive,
    Close,
}

impl Meaning {
    fn add_host(&mut self, host: &[u8]) -> Result<(), HeadError> {
        if self.has_host {
            return Err(HeadError::Malformed("more than one Host field"));
        }
        self.has_host = true;
        check_authority(host)
    }

    /// Digits only and once only. A repeated field with equal values may be merged (RFC 9112 6.3), but nothing that
    /// means well sends it.
    fn add_length(&mut self, content: &[u8]) -> Result<(), HeadError> {
        if self.length.is_some() {
            return Err(HeadError::Malformed("more than one Content-Length field"));
        }
        let digits = !content.is_empty() && content.len() <= 20;
        let length = content
            .iter()
            .try_fold(0_u64, |sum, byte| {
                let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
                sum.checked_mul(10)?.checked_add(digit)
            })
            .filter(|_| digits)
            .ok_or(HeadError::Malformed(
                "Content-Length is not a decimal number below 2^64",
            ))?;
        self.length = Some(length);
        Ok(())
    }

    fn add_coding(&mut self, content: &[u8]) -> Result<(), HeadError> {
        if self.coding == Coding::Chunked {
            return Err(HeadError::Malformed(
                "more than one Transfer-Encoding field",
            ));
        }
        if !content.eq_ignore_ascii_case(b"chunked") {
            return Err(HeadError::Malformed("Transfer-Encoding is not `chunked`"));
        }
        self.coding = Coding::Chunked;
        Ok(())
    }

    fn add_options(&mut self, content: &[u8]) {
        for option in options(content) {
            if option.eq_ignore_ascii_case(b"close") {
                self.persistence = Persistence::Close;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                if self.persistence == Persistence::Unsaid {
                    self.persistence = Persistence::KeepAlive;
                }
            } else {
                self.names_fields = true;
            }
        }
    }

    fn check_host(&self, version: Version) -> Result<(), HeadError> {
        if self.has_host || version == Version::HTTP_10 {
            Ok(())
        } else {
            Err(HeadError::Malformed("no Host field"))
        }
    }

    /// The framing that the fields declare, if any. Both kinds at once is request smuggling until proved otherwise,
    /// and HTTP/1.0 knows no chunks.
    fn framing(&self, version: Version) -> Result<Option<Framing>, HeadError> {
        match (self.coding, self.length) {
            (Coding::Chunked, Some(_)) => Err(HeadError::Malformed(
                "Content-Length and Transfer-Encoding together",
            )),
            (Coding::Chunked, None) if version == Version::HTTP_10 => {
                Err(HeadError::Malformed("Transfer-Encoding in HTTP/1.0"))
            }
            (Coding::Chunked, None) => Ok(Some(Framing::Chunked)),
            (Coding::Identity, Some(length)) => Ok(Some(Framing::Length(length))),
            (Coding::Identity, None) => Ok(None),
        }
    }

    fn keep_alive(&self, version: Version) -> bool {
        match self.persistence {
            Persistence::Close => false,
            Persistence::KeepAlive => true,
            Persistence::Unsaid => version == Version::HTTP_11,
        }
    }
}

/// The members of a comma-separated list.
fn options(content: &[u8]) -> impl Iterator<Item = &[u8]> {
    content
        .split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|option| !option.is_empty())
}

/// Checks a request target and splits an absolute one into authority, and path with query.
fn split_target(method: &Method, target: Bytes) -> Result<(Option<Bytes>, Bytes), HeadError> {
    if !target.is_ascii() || memchr(b'#', &target).is_some() {
        return Err(HeadError::Malformed(
            "a fragment or a non-ASCII byte in the request target",
        ));
    }
    if *method == Method::CONNECT {
        check_authority(&target)?;
        return Ok((None, target));
    }
    if target.first() == Some(&b'/') || (*method == Method::OPTIONS && target == "*") {
        return Ok((None, target));
    }
    let scheme = [&b"http://"[..], b"https://"].into_iter().find(|scheme| {
        target
            .get(..scheme.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    });
    let Some(scheme) = scheme else {
        return Err(HeadError::Malformed("invalid request target"));
    };
    let rest = target.slice(scheme.len()..);
    let end = memchr2(b'/', b'?', &rest).unwrap_or(rest.len());
    let authority = rest.slice(..end);
    check_authority(&authority)?;
    let path = if rest.get(end) == Some(&b'/') {
        rest.slice(end..)
    } else {
        [b"/", &rest[end..]].concat().into()
    };
    Ok((Some(authority), path))
}

/// Checks `host[:port]`: a name of letters, digits and `-._~`, or an IPv6 address in brackets. RFC 3986 has more, but
/// nothing that can be resolved, and each extra is one more spelling in which a rule by host can be missed.
fn check_authority(authority: &[u8]) -> Result<(), HeadError> {
    const INVALID: HeadError = HeadError::Malformed("the host is not of the form host[:port]");
    let (host, port) = if authority.first() == Some(&b'[') {
        let end = memchr(b']', authority).ok_or(INVALID)?;
        let address = std::str::from_utf8(&authority[1..end]).map_err(|_| INVALID)?;
        address.parse::<std::net::Ipv6Addr>().map_err(|_| INVALID)?;
        authority.split_at(end + 1)
    } else {
        let end = memchr(b':', authority).unwrap_or(authority.len());
        let (host, port) = authority.split_at(end);
        let name = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
        if host.is_empty() || !host.iter().all(name) {
            return Err(INVALID);
        }
        (host, port)
    };
    if host.len() > MAX_HOST {
        return Err(INVALID);
    }
    match port {
        [] => Ok(()),
        [b':', digits @ ..] if digits.iter().all(u8::is_ascii_digit) => {
            let port = std::str::from_utf8(digits).map_err(|_| INVALID)?;
            port.parse::<u16>().map(drop).map_err(|_| INVALID)
        }
        _ => Err(INVALID),
    }
}

#[cfg(test)]
mod tests;
