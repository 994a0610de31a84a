//! The PROXY header, versions 1 and 2, by which a listed load balancer tells whom it speaks for.
//!
//! Source: "The PROXY protocol, versions 1 & 2" (haproxy.org, doc/proxy-protocol.txt). The `ppp` crate judges headers once
//! they are whole; where a header ends is found here, because version 1 of `ppp` takes a header that was cut right after a
//! blank for a wrong one instead of a partial one.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use ipnet::IpNet;
use ppp::{v1, v2};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// Longest header of version 1, line end included (section 2.1).
const V1_MAX: usize = 107;
/// Signature, version, family and length of version 2.
const V2_FIXED: usize = 16;
/// Longest header of version 2 that is taken: one TCP segment of the smallest maximum (section 2.2) carries addresses
/// and the usual extensions.
const V2_MAX: usize = 536;
/// Start of every header of version 1.
const V1_PREFIX: &[u8] = b"PROXY ";

/// Whom the connection is for: the source that the header names if `peer` is one of `listed`, else `peer` itself.
///
/// A listed peer has to send a header, until `deadline`; UNKNOWN, LOCAL and Unix sockets keep `peer`. From others none is
/// expected, and the bytes of a forged one go to TLS or HTTP, which refuse them. Not one byte beyond the header is taken
/// from the socket.
///
/// # Errors
/// The connection has to be closed without an answer.
pub async fn client_address(
    stream: &mut TcpStream,
    peer: SocketAddr,
    listed: &[IpNet],
    deadline: Instant,
) -> Result<SocketAddr, ProxyHeaderError> {
    if !listed.iter().any(|net| net.contains(&peer.ip())) {
        return Ok(peer);
    }
    let source = tokio::time::timeout_at(deadline, read_header(stream))
        .await
        .map_err(|_| ProxyHeaderError::Timeout)??;
    Ok(source.unwrap_or(peer))
}

/// Why a listed peer's connection is closed before TLS.
#[derive(Debug)]
pub enum ProxyHeaderError {
    /// The deadline passed before the header was whole.
    Timeout,
    /// The connection starts with something else.
    Absent,
    /// It starts like a header and is none.
    Malformed(String),
    /// Longer than 107 bytes in version 1, 536 in version 2.
    TooLong,
    /// The peer closed the connection: health checks do.
    PeerGone,
    /// Any other failure of the socket.
    Io(io::Error),
}

impl ProxyHeaderError {
    /// Every word that [`Self::kind`] can give.
    pub const KINDS: [&'static str; 6] = [
        "proxy_timeout",
        "proxy_absent",
        "proxy_malformed",
        "proxy_too_long",
        "proxy_peer_gone",
        "proxy_other",
    ];

    /// Metric label, one of [`Self::KINDS`].
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Timeout => "proxy_timeout",
            Self::Absent => "proxy_absent",
            Self::Malformed(_) => "proxy_malformed",
            Self::TooLong => "proxy_too_long",
            Self::PeerGone => "proxy_peer_gone",
            Self::Io(_) => "proxy_other",
        }
    }
}

impl fmt::Display for ProxyHeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout => f.write_str("no PROXY header within handshake_timeout"),
            Self::Absent => f.write_str(
                "a peer listed in proxy_protocol_from sent no PROXY header: switch it on there, or take the peer off the list",
            ),
            Self::Malformed(cause) => write!(f, "PROXY header: {cause}"),
            Self::TooLong => write!(
                f,
                "PROXY header over its limit ({V1_MAX} bytes in version 1, {V2_MAX} in version 2)"
            ),
            Self::PeerGone => f.write_str("the peer left before its PROXY header was whole"),
            Self::Io(cause) => write!(f, "PROXY header: {cause}"),
        }
    }
}

impl std::error::Error for ProxyHeaderError {}

/// Peeks, and takes from the socket only what belongs to the header.
async fn read_header(stream: &mut TcpStream) -> Result<Option<SocketAddr>, ProxyHeaderError> {
    // On the heap: the caller's future lives as long as the connection.
    let mut buffer = vec![0; V2_MAX];
    let mut taken = 0;
    loop {
        let peeked = stream.peek(&mut buffer[taken..]).await.map_err(of_socket)?;
        if peeked == 0 {
            return Err(ProxyHeaderError::PeerGone);
        }
        let seen = taken + peeked;
        let progress = parse(&buffer[..seen])?;
        // An unfinished header is taken as far as it goes: a second peek at the same bytes would return at once and spin.
        let end = match progress {
            Progress::Whole { length, .. } => length,
            Progress::Partial => seen,
        };
        stream
            .read_exact(&mut buffer[taken..end])
            .await
            .map_err(of_socket)?;
        taken = end;
        if let Progress::Whole { source, .. } = progress {
            return Ok(source);
        }
    }
}

#[derive(Debug, PartialEq)]
enum Progress {
    /// All bytes seen belong to the header, and more must come.
    Partial,
    /// The header is the first `length` bytes; `source` is `None` where it names nobody.
    Whole {
        length: usize,
        source: Option<SocketAddr>,
    },
}

/// Judges what has come so far; `bytes` starts with the connection's first byte.
fn parse(bytes: &[u8]) -> Result<Progress, ProxyHeaderError> {
    if starts_like(bytes, v2::PROTOCOL_PREFIX) {
        parse_v2(bytes)
    } else if starts_like(bytes, V1_PREFIX) {
        parse_v1(bytes)
    } else {
        Err(ProxyHeaderError::Absent)
    }
}

/// Whether the two agree as far as both go.
fn starts_like(bytes: &[u8], prefix: &[u8]) -> bool {
    let common = bytes.len().min(prefix.len());
    bytes[..common] == prefix[..common]
}

fn parse_v1(bytes: &[u8]) -> Result<Progress, ProxyHeaderError> {
    let line_end = bytes.iter().take(V1_MAX).position(|&byte| byte == b'\n');
    let Some(line_end) = line_end else {
        return if bytes.len() < V1_MAX {
            Ok(Progress::Partial)
        } else {
            Err(ProxyHeaderError::TooLong)
        };
    };
    let length = line_end + 1;
    let line = &bytes[..length];
    let header = v1::Header::try_from(line).map_err(malformed)?;
    // `ppp` ends the line at the first CR and reads ports as Rust does, with a plus sign.
    if header.header.len() != length
        || (header.addresses != v1::Addresses::Unknown && line.contains(&b'+'))
    {
        return Err(malformed("stray CR or sign in version 1"));
    }
    let source = match header.addresses {
        v1::Addresses::Unknown => None,
        v1::Addresses::Tcp4(ip) => Some((ip.source_address, ip.source_port).into()),
        v1::Addresses::Tcp6(ip) => Some((ip.source_address, ip.source_port).into()),
    };
    Ok(Progress::Whole {
        length,
        source: source.map(canonical),
    })
}

fn parse_v2(bytes: &[u8]) -> Result<Progress, ProxyHeaderError> {
    let Some(fixed) = bytes.first_chunk::<V2_FIXED>() else {
        return Ok(Progress::Partial);
    };
    let length = V2_FIXED + usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if length > V2_MAX {
        return Err(ProxyHeaderError::TooLong);
    }
    let header = match v2::Header::try_from(bytes) {
        Ok(header) => header,
        Err(v2::ParseError::Partial(..)) => return Ok(Progress::Partial),
        Err(error) => return Err(malformed(error)),
    };
    let source = match (header.command, header.addresses) {
        (v2::Command::Local, _)
        | (v2::Command::Proxy, v2::Addresses::Unspecified | v2::Addresses::Unix(_)) => None,
        (v2::Command::Proxy, _) if header.protocol != v2::Protocol::Stream => {
            return Err(malformed("addresses of a protocol other than TCP"));
        }
        (v2::Command::Proxy, v2::Addresses::IPv4(ip)) => {
            Some((ip.source_address, ip.source_port).into())
        }
        (v2::Command::Proxy, v2::Addresses::IPv6(ip)) => {
            Some((ip.source_address, ip.source_port).into())
        }
    };
    Ok(Progress::Whole {
        length,
        source: source.map(canonical),
    })
}

/// An IPv4 client told as an IPv4-mapped IPv6 address is an IPv4 client to rules and records.
fn canonical(source: SocketAddr) -> SocketAddr {
    SocketAddr::new(source.ip().to_canonical(), source.port())
}

fn malformed(cause: impl fmt::Display) -> ProxyHeaderError {
    ProxyHeaderError::Malformed(cause.to_string())
}

fn of_socket(error: io::Error) -> ProxyHeaderError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted => ProxyHeaderError::PeerGone,
        _ => ProxyHeaderError::Io(error),
    }
}
