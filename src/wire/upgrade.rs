//! Connections that have become WebSockets (RFC 6455): the handshake's key, and the bytes that follow a 101.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;
use http::{HeaderMap, HeaderValue, header};
use tokio::io::{AsyncRead, AsyncWrite};

/// One end of a tunnel: a connection's bytes, both ways.
pub trait Duplex: AsyncRead + AsyncWrite + Unpin {
    /// Makes the drop of this connection a reset, so that the peer cannot take what it got for the whole.
    fn abort(&self);
}

/// A connection that speaks HTTP no more.
pub struct Peer {
    /// Its bytes.
    pub io: Box<dyn Duplex>,
    /// What it has sent already behind the head that ended HTTP.
    pub received: BytesMut,
}

/// A replica's connection that its 101 has made a WebSocket.
pub struct Upgraded {
    /// The replica.
    pub replica: Peer,
    /// Longest silence of both sides (`limits.idle_timeout`).
    pub idle: Duration,
}

/// What a handshake offers, as far as the answer to it is held against that. Travels with the request to the replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handshake {
    accept: HeaderValue,
}

/// Why a handshake is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoHandshake(pub &'static str);

impl fmt::Display for NoHandshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Handshake {
    /// Reads what RFC 6455 4.2.1 asks for of a request whose head says `websocket` already. Which versions there are is
    /// the server's business: it says so itself (4.2.2).
    ///
    /// # Errors
    /// What is wrong with it, in words fit for the client.
    pub fn of_request(headers: &HeaderMap) -> Result<Self, NoHandshake> {
        let mut keys = headers.get_all(header::SEC_WEBSOCKET_KEY).iter();
        let (Some(key), None) = (keys.next(), keys.next()) else {
            return Err(NoHandshake("a WebSocket handshake has exactly one Sec-WebSocket-Key"));
        };
        if STANDARD.decode(key).map(|key| key.len()) != Ok(16) {
            return Err(NoHandshake("Sec-WebSocket-Key is not the base64 of 16 bytes"));
        }
        if !headers.contains_key(header::SEC_WEBSOCKET_VERSION) {
            return Err(NoHandshake("a WebSocket handshake has a Sec-WebSocket-Version"));
        }
        Ok(Self { accept: accept(key) })
    }

    /// Whether the fields of a 101 answer this very handshake (RFC 6455 4.1): nothing else may open a tunnel.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn check(&self, answer: &HeaderMap) -> Result<(), NoHandshake> {
        let mut accepts = answer.get_all(header::SEC_WEBSOCKET_ACCEPT).iter();
        match (accepts.next(), accepts.next()) {
            (Some(accept), None) if *accept == self.accept => Ok(()),
            _ => Err(NoHandshake("101 whose Sec-WebSocket-Accept does not answer the key")),
        }
    }
}

/// Base64 of the SHA-1 of the key and a fixed text (RFC 6455 4.2.2): shows that the server speaks WebSocket, and protects
/// nothing.
fn accept(key: &HeaderValue) -> HeaderValue {
    const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let whole = [key.as_bytes(), GUID].concat();
    let accept = STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &whole));
    HeaderValue::try_from(accept).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handshake(fields: &[(&'static str, &'static str)]) -> Result<Handshake, NoHandshake> {
        Handshake::of_request(&headers(fields))
    }

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    const KEY: (&str, &str) = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    const VERSION: (&str, &str) = ("sec-websocket-version", "13");

    #[test]
    fn the_example_of_the_rfc_is_answered_by_its_accept_alone() {
        let handshake = handshake(&[KEY, VERSION]).unwrap();
        let accept = ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(handshake.check(&headers(&[accept])), Ok(()));
        for bad in [
            &[][..],
            &[accept, accept],
            &[("sec-websocket-accept", "S3pPLMBiTxaQ9kYGzzhZRbK+xOo=")],
            &[("sec-websocket-accept", "")],
        ] {
            assert!(handshake.check(&headers(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_handshake_has_one_key_of_16_bytes_and_a_version() {
        for bad in [
            &[][..],
            &[VERSION],
            &[KEY],
            &[KEY, KEY, VERSION],
            &[("sec-websocket-key", ""), VERSION],
            &[("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ"), VERSION],
            &[("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZTEyMw=="), VERSION],
        ] {
            assert!(handshake(bad).is_err(), "{bad:?}");
        }
    }
}
