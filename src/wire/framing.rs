//! Where an HTTP/1.1 body ends: the strict decoder of both legs, and the chunk writer.

use std::fmt;

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;

use super::head::{self, HeadError, HeadLimits};

/// What ends each chunk's data on the wire.
pub const CHUNK_END: &[u8] = b"\r\n";

/// Bounds of a trailer section.
const TRAILER_LIMITS: HeadLimits = HeadLimits { bytes: 8 * 1024, fields: 64, target: 0 };

/// Longest chunk extension that is skipped where extensions are not refused.
const MAX_EXTENSION: usize = 1024;

/// Digits of the largest chunk size.
const MAX_SIZE_DIGITS: usize = 16;

/// How a message's body is delimited (RFC 9112 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    None,
    /// So many bytes.
    Length(u64),
    /// In chunks, with a trailer section after the last.
    Chunked,
    /// Everything until the peer closes; answers only.
    UntilClose,
}

/// What to do with chunk extensions, which no one uses but attackers and a few old servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkExtensions {
    /// Refuse the body (requests).
    Refuse,
    /// Skip up to 1 KiB of them per chunk (answers).
    Ignore,
}

/// Reads one body off a connection's buffer.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    extensions: ChunkExtensions,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// So many bytes are still to come; never 0.
    Length(u64),
    ChunkHead,
    /// So many bytes of the chunk are still to come; never 0.
    ChunkData(u64),
    ChunkEnd,
    Trailers,
    UntilClose,
    Done,
}

/// One step of decoding.
#[derive(Debug, PartialEq, Eq)]
pub enum Decoded {
    /// Nothing can be said before more bytes are in the buffer (or the end of the stream is told by [`Decoder::eof`]).
    NeedMore,
    /// A piece of the body, never empty; shares the buffer's memory.
    Data(Bytes),
    /// The trailer section, if any field of it may travel on; comes at most once, before [`Decoded::End`].
    Trailers(HeaderMap),
    /// The body is complete; what is left in the buffer is not part of it.
    End,
}

/// Why a body's framing was refused. The connection cannot be used any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FramingError {
    /// A chunk size that is not 1 to 16 hexadecimal digits and a CR LF.
    ChunkSize,
    /// A chunk extension where they are refused, or a malformed or an overlong one.
    ChunkExtension,
    /// A chunk's data is not followed by CR LF.
    ChunkEnd,
    /// The trailer section is malformed or over its limits of 8 KiB and 64 fields.
    Trailers(HeadError),
    /// The peer closed before the body's end.
    Truncated,
}

impl fmt::Display for FramingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ChunkSize => f.write_str("invalid chunk size"),
            Self::ChunkExtension => f.write_str("chunk extensions are not accepted"),
            Self::ChunkEnd => f.write_str("a chunk is not followed by CR LF"),
            Self::Trailers(error) => write!(f, "in the trailer section: {error}"),
            Self::Truncated => f.write_str("the body ended early"),
        }
    }
}

impl std::error::Error for FramingError {}

impl Decoder {
    /// A decoder at the body's first byte that refuses chunk extensions.
    #[must_use]
    pub const fn new(framing: Framing) -> Self {
        Self::with_extensions(framing, ChunkExtensions::Refuse)
    }

    /// A decoder at the body's first byte.
    #[must_use]
    pub const fn with_extensions(framing: Framing, extensions: ChunkExtensions) -> Self {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::ChunkHead,
            Framing::UntilClose => State::UntilClose,
        };
        Self { state, extensions }
    }

    /// Takes the next piece of the body off the front of `buf`.
    ///
    /// # Errors
    /// [`FramingError`] if the bytes are not a body of this framing.
    pub fn decode(&mut self, buf: &mut BytesMut) -> Result<Decoded, FramingError> {
        loop {
            match self.state {
                State::Done => return Ok(Decoded::End),
                _ if buf.is_empty() => return Ok(Decoded::NeedMore),
                State::Length(left) => {
                    return Ok(self.data(buf, left, State::Length, State::Done));
                }
                State::ChunkData(left) => {
                    return Ok(self.data(buf, left, State::ChunkData, State::ChunkEnd));
                }
                State::UntilClose => return Ok(Decoded::Data(buf.split().freeze())),
                State::ChunkHead => match chunk_head(buf, self.extensions)? {
                    None => return Ok(Decoded::NeedMore),
                    Some((length, 0)) => {
                        buf.advance(length);
                        self.state = State::Trailers;
                    }
                    Some((length, size)) => {
                        buf.advance(length);
                        self.state = State::ChunkData(size);
                    }
                },
                State::ChunkEnd => match buf.as_ref() {
                    [b'\r'] => return Ok(Decoded::NeedMore),
                    [b'\r', b'\n', ..] => {
                        buf.advance(CHUNK_END.len());
                        self.state = State::ChunkHead;
                    }
                    _ => return Err(FramingError::ChunkEnd),
                },
                State::Trailers => return self.trailers(buf),
            }
        }
    }

    /// Whether the body is complete, so that nothing more must be read for it.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Bytes that are still to come, where that is known.
    #[must_use]
    pub const fn remaining(&self) -> Option<u64> {
        match self.state {
            State::Length(left) => Some(left),
            State::Done => Some(0),
            _ => None,
        }
    }

    /// Tells that the peer has closed; all that it sent has been decoded.
    ///
    /// # Errors
    /// [`FramingError::Truncated`] if that is not how this body ends.
    pub fn eof(&mut self) -> Result<(), FramingError> {
        match self.state {
            State::Done | State::UntilClose => {
                self.state = State::Done;
                Ok(())
            }
            _ => Err(FramingError::Truncated),
        }
    }

    fn data(&mut self, buf: &mut BytesMut, left: u64, more: fn(u64) -> State, done: State) -> Decoded {
        let length = usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len()));
        let left = left - length as u64;
        self.state = if left == 0 { done } else { more(left) };
        Decoded::Data(buf.split_to(length).freeze())
    }

    fn trailers(&mut self, buf: &mut BytesMut) -> Result<Decoded, FramingError> {
        let parsed = head::parse_trailers(buf, &TRAILER_LIMITS).map_err(FramingError::Trailers)?;
        let Some(trailers) = parsed else {
            return Ok(Decoded::NeedMore);
        };
        self.state = State::Done;
        let trailers = permitted_trailers(trailers);
        Ok(if trailers.is_empty() { Decoded::End } else { Decoded::Trailers(trailers) })
    }
}

/// Appends the line that starts a chunk of `length` bytes, which must not be 0: that would end the body. The data and
/// [`CHUNK_END`] follow.
pub fn encode_chunk_head(out: &mut BytesMut, length: usize) {
    debug_assert!(length > 0, "an empty chunk ends the body");
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut line = [0; MAX_SIZE_DIGITS + 2];
    let mut start = MAX_SIZE_DIGITS;
    line[start..].copy_from_slice(b"\r\n");
    let mut rest = length;
    while rest > 0 {
        start -= 1;
        line[start] = DIGITS[rest & 0xf];
        rest >>= 4;
    }
    out.extend_from_slice(&line[start..]);
}

/// Appends the last chunk and the trailer section, which end the body. Trailers that may not travel are left out.
pub fn encode_last_chunk(out: &mut BytesMut, trailers: Option<&HeaderMap>) {
    out.extend_from_slice(b"0\r\n");
    if let Some(trailers) = trailers {
        head::encode_fields(out, trailers);
    }
    out.extend_from_slice(b"\r\n");
}

/// The fields of a trailer section that may travel on. What frames, routes, authenticates or describes a message has
/// no meaning after it (RFC 9110 6.5.1), nor has a field that only a gateway may set.
#[must_use]
pub fn permitted_trailers(mut trailers: HeaderMap) -> HeaderMap {
    let forbidden: Vec<_> = trailers.keys().filter(|name| !may_be_trailer(name.as_str())).cloned().collect();
    for name in forbidden {
        trailers.remove(name);
    }
    trailers
}

fn may_be_trailer(name: &str) -> bool {
    const FORBIDDEN_PREFIXES: [&str; 6] =
        ["access-control-", "content-", "if-", "x-forwarded-", "x-ms-", "x-scoregate-"];
    const FORBIDDEN: [&str; 26] = [
        "age",
        "authorization",
        "azureml-model-deployment",
        "cache-control",
        "cookie",
        "date",
        "expires",
        "forwarded",
        "host",
        "location",
        "max-forwards",
        "origin",
        "pragma",
        "range",
        "retry-after",
        "set-cookie",
        "strict-transport-security",
        "traceparent",
        "tracestate",
        "user-agent",
        "vary",
        "via",
        "warning",
        "www-authenticate",
        "x-real-ip",
        "x-request-id",
    ];
    !head::is_hop_by_hop(name)
        && !FORBIDDEN.contains(&name)
        && !FORBIDDEN_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Reads a chunk's first line: its length on the wire and the size it states.
fn chunk_head(buf: &[u8], extensions: ChunkExtensions) -> Result<Option<(usize, u64)>, FramingError> {
    let digits = buf.iter().take(MAX_SIZE_DIGITS + 1).take_while(|byte| byte.is_ascii_hexdigit()).count();
    if digits > MAX_SIZE_DIGITS {
        return Err(FramingError::ChunkSize);
    }
    let rest = &buf[digits..];
    if rest.is_empty() {
        return Ok(None);
    }
    let size = std::str::from_utf8(&buf[..digits])
        .ok()
        .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        .ok_or(FramingError::ChunkSize)?;
    let skipped = match (rest[0], extensions) {
        (b'\r', _) => 0,
        (b';' | b' ' | b'\t', ChunkExtensions::Ignore) => {
            let content = |byte: &&u8| **byte == b'\t' || (**byte >= b' ' && **byte != 0x7f);
            rest.iter().take_while(content).count()
        }
        (b';' | b' ' | b'\t', ChunkExtensions::Refuse) => return Err(FramingError::ChunkExtension),
        _ => return Err(FramingError::ChunkSize),
    };
    if skipped > MAX_EXTENSION {
        return Err(FramingError::ChunkExtension);
    }
    match &rest[skipped..] {
        [] | [b'\r'] => Ok(None),
        [b'\r', b'\n', ..] => Ok(Some((digits + skipped + 2, size))),
        _ => Err(FramingError::ChunkSize),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a peer would get: the body, the trailers, and what was left in the buffer.
    #[derive(Debug, PartialEq)]
    struct Read {
        body: Vec<u8>,
        trailers: Option<HeaderMap>,
        rest: Vec<u8>,
    }

    /// Feeds `wire` in the given pieces, then the end of the stream.
    fn read(framing: Framing, extensions: ChunkExtensions, pieces: &[&[u8]]) -> Result<Read, FramingError> {
        let mut decoder = Decoder::with_extensions(framing, extensions);
        let (mut buf, mut body, mut trailers) = (BytesMut::new(), Vec::new(), None);
        for piece in pieces {
            buf.extend_from_slice(piece);
            loop {
                match decoder.decode(&mut buf)? {
                    Decoded::NeedMore | Decoded::End => break,
                    Decoded::Data(data) => {
                        assert!(!data.is_empty());
                        body.extend_from_slice(&data);
                    }
                    Decoded::Trailers(map) => assert!(trailers.replace(map).is_none()),
                }
            }
        }
        decoder.eof()?;
        assert!(decoder.is_done());
        Ok(Read { body, trailers, rest: buf.to_vec() })
    }

    fn chunked(wire: &[u8]) -> Result<Read, FramingError> {
        read(Framing::Chunked, ChunkExtensions::Refuse, &[wire])
    }

    const EXAMPLE: &[u8] =
        b"5\r\nhello\r\n00A\r\n, world!\r\n\r\n0\r\nx-sum: 1\r\nHost: evil\r\n\r\nGET /next";

    #[test]
    fn every_split_of_a_chunked_body_reads_the_same() {
        let whole = chunked(EXAMPLE).unwrap();
        assert_eq!(whole.body, b"hello, world!\r\n");
        assert_eq!(whole.rest, b"GET /next");
        let trailers = whole.trailers.as_ref().unwrap();
        assert_eq!(trailers.len(), 1);
        assert_eq!(trailers["x-sum"], "1");
        for first in 0..EXAMPLE.len() {
            for second in first..EXAMPLE.len() {
                let pieces = [&EXAMPLE[..first], &EXAMPLE[first..second], &EXAMPLE[second..]];
                let split = read(Framing::Chunked, ChunkExtensions::Refuse, &pieces).unwrap();
                assert_eq!(split, whole, "split at {first} and {second}");
            }
        }
        let bytes: Vec<_> = EXAMPLE.chunks(1).collect();
        assert_eq!(read(Framing::Chunked, ChunkExtensions::Refuse, &bytes).unwrap(), whole);
    }

    #[test]
    fn a_length_takes_no_byte_more() {
        let pieces: [&[u8]; 3] = [b"he", b"l", b"lo+rest"];
        let result = read(Framing::Length(5), ChunkExtensions::Refuse, &pieces).unwrap();
        assert_eq!((&result.body[..], &result.rest[..]), (&b"hello"[..], &b"+rest"[..]));
        for framing in [Framing::None, Framing::Length(0)] {
            let result = read(framing, ChunkExtensions::Refuse, &[b"next"]).unwrap();
            assert_eq!(result.rest, b"next");
        }
    }

    #[test]
    fn a_body_that_stops_early_is_truncated() {
        for cut in 0..EXAMPLE.len() - b"GET /next".len() {
            assert_eq!(chunked(&EXAMPLE[..cut]), Err(FramingError::Truncated), "{cut}");
        }
        assert_eq!(
            read(Framing::Length(5), ChunkExtensions::Refuse, &[b"hell"]),
            Err(FramingError::Truncated)
        );
        let all = read(Framing::UntilClose, ChunkExtensions::Refuse, &[b"hell"]).unwrap();
        assert_eq!(all.body, b"hell");
    }

    #[test]
    fn malformed_chunks_are_refused() {
        let cases: [(&[u8], FramingError); 20] = [
            (b"\r\n", FramingError::ChunkSize),
            (b"g\r\n", FramingError::ChunkSize),
            (b"-1\r\n", FramingError::ChunkSize),
            (b"+1\r\n", FramingError::ChunkSize),
            (b"0x1\r\n", FramingError::ChunkSize),
            (b"1_0\r\n", FramingError::ChunkSize),
            (b"00000000000000001\r\na\r\n", FramingError::ChunkSize),
            (b"fffffffffffffffff\r\n", FramingError::ChunkSize),
            (b"1\na\r\n", FramingError::ChunkSize),
            (b"1\ra\r\n", FramingError::ChunkSize),
            (b"5\r\r;a\r\nhello", FramingError::ChunkSize),
            (b" 1\r\na\r\n", FramingError::ChunkSize),
            (b"1 \r\na\r\n", FramingError::ChunkExtension),
            (b"5;\r\nhello", FramingError::ChunkExtension),
            (b"5;\nhello", FramingError::ChunkExtension),
            (b"5;a=\0\r\nhello", FramingError::ChunkExtension),
            (b"1\r\nab\r\n", FramingError::ChunkEnd),
            (b"1\r\na\n0\r\n\r\n", FramingError::ChunkEnd),
            (b"1\r\na\r0\r\n\r\n", FramingError::ChunkEnd),
            (b"1\r\na0\r\n\r\n", FramingError::ChunkEnd),
        ];
        for (wire, error) in cases {
            assert_eq!(chunked(wire), Err(error), "{}", wire.escape_ascii());
        }
        for trailers in ["\n", "a: b\n\r\n", "a: b\r\n\n", "a : b\r\n\r\n", "a: b\r\n c\r\n\r\n"] {
            let wire = format!("0\r\n{trailers}");
            assert!(matches!(chunked(wire.as_bytes()), Err(FramingError::Trailers(_))), "{trailers:?}");
        }
    }

    #[test]
    fn extensions_are_skipped_where_they_are_not_refused() {
        let ignore = |wire: &[u8]| read(Framing::Chunked, ChunkExtensions::Ignore, &[wire]);
        let result = ignore(b"5;a=\"b\"\r\nhello\r\n1 \r\n!\r\n0;x\r\n\r\n").unwrap();
        assert_eq!(result.body, b"hello!");
        for wire in [&b"5;\nhello"[..], b"5;a\0\r\n", b"5;a\rb\r\n"] {
            assert_eq!(ignore(wire), Err(FramingError::ChunkSize), "{}", wire.escape_ascii());
        }
        let long = format!("5;{}", "a".repeat(MAX_EXTENSION));
        assert_eq!(ignore(long.as_bytes()), Err(FramingError::ChunkExtension));
    }

    #[test]
    fn trailers_are_bounded_and_sifted() {
        let many = "a: b\r\n".repeat(TRAILER_LIMITS.fields + 1);
        assert!(matches!(
            chunked(format!("0\r\n{many}\r\n").as_bytes()),
            Err(FramingError::Trailers(HeadError::TooManyFields { limit: 64 }))
        ));
        let long = format!("0\r\na: {}", "b".repeat(TRAILER_LIMITS.bytes));
        assert!(matches!(
            chunked(long.as_bytes()),
            Err(FramingError::Trailers(HeadError::TooLarge { limit: 8192 }))
        ));
        let sifted = chunked(
            b"0\r\nAuthorization: a\r\nContent-Length: 1\r\nX-Forwarded-For: b\r\nX-Forwarded-For: c\r\n\r\n",
        );
        assert_eq!(sifted.unwrap().trailers, None);
        let grpc = chunked(b"0\r\nGrpc-Status: 0\r\nx: 1\r\nx: 2\r\n\r\n").unwrap();
        assert_eq!(grpc.trailers.unwrap().len(), 3);
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..300), 0..8),
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..6),
            trailer in proptest::option::of("[a-z ]{0,20}"),
        ) {
            let mut wire = BytesMut::new();
            for chunk in &chunks {
                encode_chunk_head(&mut wire, chunk.len());
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(CHUNK_END);
            }
            let trailers = trailer.map(|value| {
                let value = http::HeaderValue::from_str(value.trim()).unwrap();
                HeaderMap::from_iter([(http::HeaderName::from_static("x-sum"), value)])
            });
            encode_last_chunk(&mut wire, trailers.as_ref());
            let length = wire.len();
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(length)).collect();
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut start = 0;
            for cut in cuts {
                pieces.push(&wire[start..cut]);
                start = cut;
            }
            pieces.push(&wire[start..]);
            let result = read(Framing::Chunked, ChunkExtensions::Refuse, &pieces).unwrap();
            prop_assert_eq!(result.body, chunks.concat());
            prop_assert_eq!(result.trailers, trailers);
            prop_assert!(result.rest.is_empty());
        }
    }
}
