//! What is said of one replica and of the waits on it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::ServerName;

use super::policy::AddressPolicy;
use crate::tls::ClientTls;

/// One replica's address and how to speak to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaSettings {
    /// Where it listens.
    pub origin: Origin,
    /// HTTP version spoken on the connection.
    pub protocol: ReplicaProtocol,
    /// Present for `https` replicas.
    pub tls: Option<ReplicaTls>,
    /// Where it may be, asked at each connect; `None`, as for what the configuration names: anywhere.
    pub policy: Option<Arc<AddressPolicy>>,
}

/// Host and port of a replica, as in its URL.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// Name or address; an IPv6 address without brackets.
    pub host: Arc<str>,
    /// TCP port.
    pub port: u16,
}

/// HTTP version spoken to a replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ReplicaProtocol {
    /// HTTP/1.1.
    #[default]
    H1,
    /// HTTP/2 with prior knowledge (or by ALPN over TLS).
    H2,
}

/// TLS towards a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaTls {
    /// Trust, client certificate and ALPN, ready to use.
    pub client: ClientTls,
    /// Name the replica's certificate must bear.
    pub server_name: ServerName<'static>,
}

/// Longest waits of one attempt. Each has its own name in the config and in the refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// `connect_timeout`: name look-up, TCP and TLS handshake together.
    pub connect: Duration,
    /// `scoring_timeout`: from the last byte of the request to the first byte of the answer.
    pub first_byte: Duration,
    /// `idle_timeout`: between two pieces of the answer; where both sides may send, in tunnels and gRPC, the silence of both.
    pub idle: Duration,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}
