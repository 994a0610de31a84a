//! The handshake of the example in RFC 6455 1.3.

/// The key.
pub const WEBSOCKET_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// The accept that answers it.
pub const WEBSOCKET_ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A handshake with the score path of `service` with `credential`.
pub fn websocket_handshake(service: &str, credential: &str) -> String {
    format!(
        "GET /api/v1/service/{service}/score?room=1 HTTP/1.1\r\nHost: localhost\r\n\
         Authorization: Bearer {credential}\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\
         Sec-WebSocket-Key: {WEBSOCKET_KEY}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: chat\r\n\r\n"
    )
}

/// The 101 that answers it.
pub fn websocket_agreed() -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {WEBSOCKET_ACCEPT}\r\n\r\n"
    )
}
