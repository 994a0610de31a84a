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
        stream.read_exact(&mut buffer[taken..end]).await.map_err(of_socket)?;
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
    Whole { length: usize, source: Option<SocketAddr> },
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
        return if bytes.len() < V1_MAX { Ok(Progress::Partial) } else { Err(ProxyHeaderError::TooLong) };
    };
    let length = line_end + 1;
    let line = &bytes[..length];
    let header = v1::Header::try_from(line).map_err(malformed)?;
    // `ppp` ends the line at the first CR and reads ports as Rust does, with a plus sign.
    if header.header.len() != length || (header.addresses != v1::Addresses::Unknown && line.contains(&b'+')) {
        return Err(malformed("stray CR or sign in version 1"));
    }
    let source = match header.addresses {
        v1::Addresses::Unknown => None,
        v1::Addresses::Tcp4(ip) => Some((ip.source_address, ip.source_port).into()),
        v1::Addresses::Tcp6(ip) => Some((ip.source_address, ip.source_port).into()),
    };
    Ok(Progress::Whole { length, source: source.map(canonical) })
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
        (v2::Command::Proxy, v2::Addresses::IPv4(ip)) => Some((ip.source_address, ip.source_port).into()),
        (v2::Command::Proxy, v2::Addresses::IPv6(ip)) => Some((ip.source_address, ip.source_port).into()),
    };
    Ok(Progress::Whole { length, source: source.map(canonical) })
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
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => {
            ProxyHeaderError::PeerGone
        }
        _ => ProxyHeaderError::Io(error),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    /// What follows the header on the wire, as a TLS record begins.
    const REST: &[u8] = b"\x16\x03\x01 the client's own bytes";

    fn v2_header(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(payload.len()).unwrap();
        let mut header = v2::PROTOCOL_PREFIX.to_vec();
        header.extend([0x20 | command, family]);
        header.extend(length.to_be_bytes());
        header.extend(payload);
        header
    }

    fn v2_tcp4(extensions: usize) -> Vec<u8> {
        let mut payload = vec![192, 0, 2, 7, 10, 0, 0, 1, 0x82, 0x35, 0x01, 0xbb];
        payload.resize(payload.len() + extensions, 0);
        v2_header(1, 0x11, &payload)
    }

    async fn connected() -> (TcpStream, TcpStream, SocketAddr) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.set_nodelay(true).unwrap();
        let (server, peer) = listener.accept().await.unwrap();
        (client, server, peer)
    }

    fn listed() -> Vec<IpNet> {
        vec!["127.0.0.0/8".parse().unwrap()]
    }

    fn in_a_minute() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    /// Sends the header in two pieces, the second only after the first was taken from the socket, and `REST` with it.
    async fn split_at(header: &[u8], cut: usize) -> (Result<SocketAddr, ProxyHeaderError>, SocketAddr) {
        let (mut client, mut server, peer) = connected().await;
        let listed = listed();
        let send = async {
            client.write_all(&header[..cut]).await.unwrap();
            // Lets the reader meet the first piece alone.
            for _ in 0..4 {
                tokio::task::yield_now().await;
            }
            client.write_all(&header[cut..]).await.unwrap();
            client.write_all(REST).await.unwrap();
            client.shutdown().await.unwrap();
        };
        let read = client_address(&mut server, peer, &listed, in_a_minute());
        let (result, ()) = tokio::join!(read, send);
        if result.is_ok() {
            let mut rest = Vec::new();
            server.read_to_end(&mut rest).await.unwrap();
            assert_eq!(rest, REST, "cut at {cut}");
        }
        (result, peer)
    }

    #[tokio::test]
    async fn headers_cut_at_every_byte_leave_exactly_the_rest() {
        let source: SocketAddr = "192.0.2.7:33333".parse().unwrap();
        let source6: SocketAddr = "[2001:db8::7]:33333".parse().unwrap();
        let mut six = [0; 36];
        six[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        six[15] = 7;
        six[32..34].copy_from_slice(&33333_u16.to_be_bytes());
        let cases: [(Vec<u8>, Option<SocketAddr>); 9] = [
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 33333 443\r\n".to_vec(), Some(source)),
            (b"PROXY TCP6 2001:db8::7 2001:db8::1 33333 443\r\n".to_vec(), Some(source6)),
            (b"PROXY TCP6 ::ffff:192.0.2.7 ::1 33333 443\r\n".to_vec(), Some(source)),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN whatever 1 2 3\r\n".to_vec(), None),
            (v2_tcp4(0), Some(source)),
            (v2_tcp4(9), Some(source)),
            (v2_header(1, 0x21, &six), Some(source6)),
            (v2_header(0, 0x00, &[]), None),
        ];
        for (header, expected) in &cases {
            for cut in 0..header.len() {
                let (result, peer) = split_at(header, cut).await;
                assert_eq!(result.unwrap(), expected.unwrap_or(peer), "cut at {cut}");
            }
        }
    }

    #[tokio::test]
    async fn a_header_from_a_peer_that_is_not_listed_stays_on_the_wire() {
        let (mut client, mut server, peer) = connected().await;
        let forged = b"PROXY TCP4 192.0.2.7 10.0.0.1 33333 443\r\n";
        client.write_all(forged).await.unwrap();
        let elsewhere = ["192.0.2.0/24".parse().unwrap()];
        for listed in [&[][..], &elsewhere] {
            let address = client_address(&mut server, peer, listed, in_a_minute()).await;
            assert_eq!(address.unwrap(), peer);
        }
        let mut first = [0; 5];
        server.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"PROXY");
    }

    const fn word(error: &ProxyHeaderError) -> &'static str {
        match error {
            ProxyHeaderError::Timeout => "proxy_timeout",
            ProxyHeaderError::Absent => "proxy_absent",
            ProxyHeaderError::Malformed(_) => "proxy_malformed",
            ProxyHeaderError::TooLong => "proxy_too_long",
            ProxyHeaderError::PeerGone => "proxy_peer_gone",
            ProxyHeaderError::Io(_) => "proxy_other",
        }
    }

    #[tokio::test]
    async fn what_is_no_header_or_too_long_is_refused_by_its_word() {
        let long_v1 = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200]].concat();
        let unix = v2_header(1, 0x31, &[0; 216]);
        let cases: [(&[u8], &str); 15] = [
            (b"GET / HTTP/1.1\r\n\r\n", "proxy_absent"),
            (REST, "proxy_absent"),
            (b"PROXY", "proxy_peer_gone"),
            (b"", "proxy_peer_gone"),
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 33333 443\n", "proxy_malformed"),
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 +3333 443\r\n", "proxy_malformed"),
            (b"PROXY TCP4 192.0.2.7\r10.0.0.1 33333 443\r\n", "proxy_malformed"),
            (b"PROXY TCP4 2001:db8::7 ::1 33333 443\r\n", "proxy_malformed"),
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 99999 443\r\n", "proxy_malformed"),
            (b"PROXY tcp4 a b c d\r\n", "proxy_malformed"),
            (&long_v1, "proxy_too_long"),
            (&v2_header(1, 0x11, &[0; 521]), "proxy_too_long"),
            // Too short for its addresses, a datagram, a version that is none.
            (&v2_header(1, 0x11, &[0; 11]), "proxy_malformed"),
            (&v2_header(1, 0x12, &[0; 12]), "proxy_malformed"),
            (&v2_header(0x31, 0x11, &[0; 12]), "proxy_malformed"),
        ];
        for (bytes, expected) in cases {
            let (result, _) = split_without_rest(bytes).await;
            let error = result.unwrap_err();
            assert_eq!(word(&error), expected, "{bytes:?}: {error}");
        }
        let (result, peer) = split_without_rest(&unix).await;
        assert_eq!(result.unwrap(), peer, "a Unix socket has no address to give");
    }

    async fn split_without_rest(bytes: &[u8]) -> (Result<SocketAddr, ProxyHeaderError>, SocketAddr) {
        let (mut client, mut server, peer) = connected().await;
        client.write_all(bytes).await.unwrap();
        client.shutdown().await.unwrap();
        let result = client_address(&mut server, peer, &listed(), in_a_minute()).await;
        (result, peer)
    }

    #[tokio::test]
    async fn a_header_that_never_ends_meets_the_deadline() {
        for begun in [&b""[..], b"PROXY TCP4 192.", v2::PROTOCOL_PREFIX] {
            let (mut client, mut server, peer) = connected().await;
            client.write_all(begun).await.unwrap();
            tokio::time::pause();
            let result = client_address(&mut server, peer, &listed(), in_a_minute()).await;
            tokio::time::resume();
            assert!(matches!(result, Err(ProxyHeaderError::Timeout)), "{result:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic_or_claim_more_than_there_is(
            start in prop_oneof![Just(b"PROXY TCP4 ".to_vec()), Just(v2_tcp4(0)[..13].to_vec()), Just(Vec::new())],
            tail in proptest::collection::vec(any::<u8>(), 0..600),
        ) {
            let bytes = [start, tail].concat();
            if let Ok(Progress::Whole { length, .. }) = parse(&bytes) {
                prop_assert!(length <= bytes.len());
            }
            if bytes.len() >= V2_MAX {
                prop_assert_ne!(parse(&bytes).ok(), Some(Progress::Partial));
            }
        }
    }
}
