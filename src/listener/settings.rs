//! What the configuration says of one data-plane listener.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::tls::ServerTlsSettings;

/// One data-plane listener. `address`, the presence of `tls`, the name and `max_connections` are fixed for the life of
/// the process; the rest follows a reload.
#[derive(Clone, Debug)]
pub struct ListenerSettings {
    /// Name in logs, metrics and the ready line.
    pub name: Arc<str>,
    /// Address to bind; port 0 lets the system choose.
    pub address: SocketAddr,
    /// TLS; `None` only where the config says `plaintext: true`.
    pub tls: Option<ServerTlsSettings>,
    /// Longest TLS handshake (and PROXY header) after the accept.
    pub handshake_timeout: Duration,
    /// Longest wait for a whole request head, from its first byte.
    pub header_timeout: Duration,
    /// Longest rest of a keep-alive connection between two requests.
    pub idle_timeout: Duration,
    /// Connections at once; further ones wait in the accept queue.
    pub max_connections: u32,
    /// Peers that open each connection with a PROXY header; empty: nobody does.
    pub proxy_protocol_from: Vec<IpNet>,
}
