//! HTTP/2 frames as a test writes them, also those that no library would send.

use std::net::SocketAddr;
use std::path::Path;

use scoregate::tls::ClientAlpn;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::client::handshake;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

/// PROTOCOL_ERROR (RFC 9113 7).
pub const PROTOCOL_ERROR: u32 = 1;

/// One HTTP/2 connection, frame by frame.
pub struct Frames {
    tls: TlsStream<TcpStream>,
}

/// What became of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answered and ended; the status if it is one of the seven that HPACK has a number for, else 0.
    Answered(u16),
    /// RST_STREAM with this code.
    Reset(u32),
    /// GOAWAY with this code, or the end of the connection (0).
    Gone(u32),
}

impl Outcome {
    /// Whether this is how RFC 9113 8.1.1 has a malformed request end: a stream error PROTOCOL_ERROR, or a 400 before it.
    pub fn is_refusal_of_malformed(&self) -> bool {
        matches!(self, Self::Answered(400) | Self::Reset(PROTOCOL_ERROR) | Self::Gone(PROTOCOL_ERROR))
    }
}

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

/// Whether a frame is a stream's last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    Follows,
    Nothing,
}

impl Rest {
    const fn flag(self) -> u8 {
        match self {
            Self::Follows => 0,
            Self::Nothing => END_STREAM,
        }
    }
}

impl Frames {
    /// Connects, and opens with preface and empty SETTINGS.
    pub async fn connect(address: SocketAddr, name: &str, ca: &Path) -> Self {
        let mut tls = handshake(address, name, ca, ClientAlpn::Http2).await.unwrap();
        tls.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        let mut frames = Self { tls };
        frames.send(SETTINGS, 0, 0, b"").await;
        frames
    }

    /// Sends HEADERS with `fields` as they stand, each an HPACK literal (RFC 7541 6.2.2).
    pub async fn headers(&mut self, stream: u32, fields: &[(&[u8], &[u8])], rest: Rest) {
        let mut block = Vec::new();
        for (name, value) in fields {
            block.push(0);
            literal(&mut block, name);
            literal(&mut block, value);
        }
        self.send(HEADERS, END_HEADERS | rest.flag(), stream, &block).await;
    }

    /// Sends a whole score call without a body.
    pub async fn score(&mut self, stream: u32, service: &str, key: &str) {
        let (path, credential) = (format!("/api/v1/service/{service}/score"), format!("Bearer {key}"));
        let fields: [(&[u8], &[u8]); 5] = [
            (b":method", b"POST"),
            (b":scheme", b"https"),
            (b":path", path.as_bytes()),
            (b":authority", b"localhost"),
            (b"authorization", credential.as_bytes()),
        ];
        self.headers(stream, &fields, Rest::Nothing).await;
    }

    /// Sends DATA.
    pub async fn data(&mut self, stream: u32, data: &[u8], rest: Rest) {
        self.send(DATA, rest.flag(), stream, data).await;
    }

    /// Opens the window of the connection as far as it goes (RFC 9113 6.9.1); those of streams stay as they are.
    pub async fn widen(&mut self) {
        let most = (1_u32 << 31) - 1;
        self.send(WINDOW_UPDATE, 0, 0, &(most - 65_535).to_be_bytes()).await;
    }

    /// Reads until `stream` has ended, one way or another.
    pub async fn outcome(&mut self, stream: u32) -> Outcome {
        let mut status = 0;
        while let Some(frame) = self.receive().await {
            match frame.kind {
                SETTINGS if frame.flags & ACK == 0 => self.send(SETTINGS, ACK, 0, b"").await,
                GOAWAY => return Outcome::Gone(code(&frame.payload[4..])),
                RST_STREAM if frame.stream == stream => return Outcome::Reset(code(&frame.payload)),
                HEADERS if frame.stream == stream => status = status_of(&frame.payload),
                _ => {}
            }
            let ends = matches!(frame.kind, HEADERS | DATA) && frame.flags & END_STREAM != 0;
            if frame.stream == stream && ends {
                return Outcome::Answered(status);
            }
        }
        Outcome::Gone(0)
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        // A gateway that has closed already shows in what is read.
        let _ = self.tls.write_all(&frame).await;
        let _ = self.tls.flush().await;
    }

    async fn receive(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.tls.read_exact(&mut head).await.ok()?;
        let mut payload = vec![0; code(&[0, head[0], head[1], head[2]]) as usize];
        self.tls.read_exact(&mut payload).await.ok()?;
        Some(Frame { kind: head[3], flags: head[4], stream: code(&head[5..]) & !(1 << 31), payload })
    }
}

fn literal(block: &mut Vec<u8>, text: &[u8]) {
    // Length in a prefix of 7 bits (RFC 7541 5.1); no Huffman code.
    let Some(mut rest) = text.len().checked_sub(127) else {
        block.push(text.len() as u8);
        block.extend_from_slice(text);
        return;
    };
    block.push(127);
    while rest >= 128 {
        block.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    block.push(rest as u8);
    block.extend_from_slice(text);
}

fn code(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes[..4].try_into().unwrap())
}

/// Statuses are what a block begins with, behind changes of the table's size.
fn status_of(block: &[u8]) -> u16 {
    let first = block.iter().find(|byte| **byte & 0xe0 != 0x20).copied().unwrap_or_default();
    let indexed = [200, 204, 206, 304, 400, 404, 500];
    first.checked_sub(0x88).and_then(|place| indexed.get(usize::from(place)).copied()).unwrap_or(0)
}
