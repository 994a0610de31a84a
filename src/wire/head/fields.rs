//! The fields of a head: which travel on, and what those mean that do not.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Version, header};

use super::target::check_authority;
use super::{Flaw, HeadError, MAX_FIELDS};
use crate::wire::framing::Framing;

/// Room for the fields that a gateway adds, so that the map need not grow for them.
const SPARE_FIELDS: usize = 6;

/// Whether a field is about the message's framing or the connection, so that it must not travel further.
pub(in crate::wire) fn is_hop_by_hop(name: &str) -> bool {
    !matches!(Role::of(name.as_bytes()), Role::EndToEnd | Role::Host)
}

pub(super) fn value(bytes: Bytes) -> Result<HeaderValue, HeadError> {
    HeaderValue::from_maybe_shared(bytes)
        .map_err(|_| HeadError::Malformed(Flaw::Field, "invalid byte in a field value"))
}

/// Part of a section, by offsets: unlike a slice it survives that the section is split off its buffer.
#[derive(Clone, Copy, Default)]
pub(super) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// Where `part`, a slice of `whole`, lies.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "sections are bounded by HeadLimits::bytes, which is below 4 GiB"
    )]
    pub(super) fn of(whole: &[u8], part: &[u8]) -> Self {
        let start = (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize);
        // httparse gives an empty value as a slice of its own, not of the buffer.
        let start = if part.is_empty() { 0 } else { start };
        Self { start: start as u32, end: (start + part.len()) as u32 }
    }

    pub(super) fn bytes(self, whole: &[u8]) -> &[u8] {
        &whole[self.start as usize..self.end as usize]
    }

    pub(super) fn slice(self, whole: &Bytes) -> Bytes {
        whole.slice(self.start as usize..self.end as usize)
    }
}

/// The fields of a section, in order.
pub(super) struct Fields {
    spans: [(Span, Span); MAX_FIELDS],
    count: usize,
}

impl Fields {
    /// No fields yet. Made where it stays: it is too large to be handed on.
    pub(super) fn new() -> Self {
        Self { spans: [(Span::default(), Span::default()); MAX_FIELDS], count: 0 }
    }

    /// Notes where the fields lie in `section`, and checks the one thing that httparse is lenient on: that each line
    /// ends with CR LF and not with LF alone.
    pub(super) fn locate(
        &mut self,
        section: &[u8],
        parsed: &[httparse::Header<'_>],
    ) -> Result<(), HeadError> {
        const LINE_END: HeadError = HeadError::Malformed(Flaw::LineEnd, "a line ends without CR LF");
        self.count = parsed.len();
        for (span, field) in self.spans.iter_mut().zip(parsed) {
            let name = Span::of(section, field.name.as_bytes());
            let before = &section[..name.start as usize];
            if !before.is_empty() && !before.ends_with(b"\r\n") {
                return Err(LINE_END);
            }
            *span = (name, Span::of(section, field.value));
        }
        if section.ends_with(b"\r\n\r\n") { Ok(()) } else { Err(LINE_END) }
    }

    fn iter(&self) -> impl Iterator<Item = (Span, Span)> {
        self.spans[..self.count].iter().copied()
    }

    /// Sorts the fields of `head` into those that travel on and the meaning of those that do not.
    pub(super) fn read(&self, head: &Bytes) -> Result<(HeaderMap, Meaning), HeadError> {
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
                Role::Upgrade => meaning.add_upgrade(content.bytes(head)),
                Role::KeepAlive => meaning.kept_idle = kept_idle(content.bytes(head)),
                Role::Expect => {
                    meaning.expect_continue |= content.bytes(head).eq_ignore_ascii_case(b"100-continue");
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

    pub(super) fn trailers(&self, section: &Bytes) -> Result<HeaderMap, HeadError> {
        let mut trailers = HeaderMap::with_capacity(self.count);
        for (name, content) in self.iter() {
            trailers.append(field_name(name.bytes(section))?, value(content.slice(section))?);
        }
        Ok(trailers)
    }
}

fn field_name(name: &[u8]) -> Result<HeaderName, HeadError> {
    HeaderName::from_bytes(name).map_err(|_| HeadError::Malformed(Flaw::Field, "invalid field name"))
}

/// What a field is to a gateway.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    EndToEnd,
    Host,
    ContentLength,
    TransferEncoding,
    Connection,
    Upgrade,
    KeepAlive,
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
            7 if is(b"trailer") => Self::HopByHop,
            7 if is(b"upgrade") => Self::Upgrade,
            10 if is(b"connection") => Self::Connection,
            10 if is(b"keep-alive") => Self::KeepAlive,
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
pub(super) struct Meaning {
    length: Option<u64>,
    coding: Coding,
    persistence: Persistence,
    /// `Connection` names fields, which have to go.
    names_fields: bool,
    has_host: bool,
    upgrade: Upgrade,
    /// `Connection` says that `Upgrade` is meant.
    connection_upgrade: bool,
    pub(super) expect_continue: bool,
    pub(super) kept_idle: Option<Duration>,
}

/// What `Upgrade` names.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Upgrade {
    #[default]
    Nothing,
    /// `websocket` and nothing else.
    WebSocket,
    /// Another protocol, or several, among which nobody chooses.
    Other,
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
            return Err(HeadError::Malformed(Flaw::Host, "more than one Host field"));
        }
        self.has_host = true;
        check_authority(host)
    }

    /// Digits only and once only. A repeated field with equal values may be merged (RFC 9112 6.3), but nothing that
    /// means well sends it.
    fn add_length(&mut self, content: &[u8]) -> Result<(), HeadError> {
        if self.length.is_some() {
            return Err(HeadError::Malformed(Flaw::Framing, "more than one Content-Length field"));
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
                Flaw::Framing,
                "Content-Length is not a decimal number below 2^64",
            ))?;
        self.length = Some(length);
        Ok(())
    }

    fn add_coding(&mut self, content: &[u8]) -> Result<(), HeadError> {
        if self.coding == Coding::Chunked {
            return Err(HeadError::Malformed(Flaw::Framing, "more than one Transfer-Encoding field"));
        }
        if !content.eq_ignore_ascii_case(b"chunked") {
            return Err(HeadError::Malformed(Flaw::Framing, "Transfer-Encoding is not `chunked`"));
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
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                self.connection_upgrade = true;
            } else {
                self.names_fields = true;
            }
        }
    }

    /// One field with one protocol; a version behind it (RFC 9110 7.8) makes it another one.
    fn add_upgrade(&mut self, content: &[u8]) {
        let is_websocket = self.upgrade == Upgrade::Nothing && content.eq_ignore_ascii_case(b"websocket");
        self.upgrade = if is_websocket { Upgrade::WebSocket } else { Upgrade::Other };
    }

    /// Whether `Upgrade` and `Connection` together say `websocket` (RFC 6455 4.1, 4.2.2).
    pub(super) fn says_websocket(&self) -> bool {
        self.connection_upgrade && self.upgrade == Upgrade::WebSocket
    }

    pub(super) fn check_host(&self, version: Version) -> Result<(), HeadError> {
        if self.has_host || version == Version::HTTP_10 {
            Ok(())
        } else {
            Err(HeadError::Malformed(Flaw::Host, "no Host field"))
        }
    }

    /// The framing that the fields declare, if any. Both kinds at once is request smuggling until proved otherwise,
    /// and HTTP/1.0 knows no chunks.
    pub(super) fn framing(&self, version: Version) -> Result<Option<Framing>, HeadError> {
        match (self.coding, self.length) {
            (Coding::Chunked, Some(_)) => {
                Err(HeadError::Malformed(Flaw::Framing, "Content-Length and Transfer-Encoding together"))
            }
            (Coding::Chunked, None) if version == Version::HTTP_10 => {
                Err(HeadError::Malformed(Flaw::Framing, "Transfer-Encoding in HTTP/1.0"))
            }
            (Coding::Chunked, None) => Ok(Some(Framing::Chunked)),
            (Coding::Identity, Some(length)) => Ok(Some(Framing::Length(length))),
            (Coding::Identity, None) => Ok(None),
        }
    }

    pub(super) fn keep_alive(&self, version: Version) -> bool {
        match self.persistence {
            Persistence::Close => false,
            Persistence::KeepAlive => true,
            Persistence::Unsaid => version == Version::HTTP_11,
        }
    }
}

/// The `timeout` of a `Keep-Alive` field (RFC 2068 19.7.1.1, and what servers make of it): whole seconds. Whatever else it
/// says, or however it is malformed, means nothing.
fn kept_idle(content: &[u8]) -> Option<Duration> {
    options(content).find_map(|option| {
        let (name, value) = std::str::from_utf8(option).ok()?.split_once('=')?;
        let seconds = value.trim().trim_matches('"').parse::<u32>().ok()?;
        name.trim().eq_ignore_ascii_case("timeout").then(|| Duration::from_secs(seconds.into()))
    })
}

/// The members of a comma-separated list.
fn options(content: &[u8]) -> impl Iterator<Item = &[u8]> {
    content.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|option| !option.is_empty())
}
