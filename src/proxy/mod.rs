//! The request path: one call in, one answer out, one record left behind.
//!
//! [`serve`] always answers; behind it `phases` runs the short list of steps that every call goes through. The
//! listeners hand in an [`Inbound`], whichever protocol it came by, and write what comes back.

mod body;
mod collect;
mod context;
mod forward;
mod grpc;
mod headers;
mod mirror;
mod phases;
mod respond;
mod retry;
mod serve;
mod settings;
mod snapshot;
mod tunnel;
mod usage;
mod validity;
mod worker;

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Version};

use crate::tls::CertificateIndex;
use crate::wire::{Body, Interim};

pub use body::ResponseBody;
pub use headers::DEPLOYMENT;
pub use mirror::{Mirror, is_scoring};
pub use phases::{check_method, is_preflight, no_traffic, unknown_deployment};
pub use respond::{PreparedCors, status_of};
pub use serve::{refuse, serve};
pub use settings::{
    CollectSettings, CorsSettings, DeploymentSettings, EndpointPaths, MirrorSettings, ServiceChanges,
    ServiceSettings, SplitSettings, all_speak_h2,
};
pub use snapshot::{Deployment, ListenerState, Service, Snapshot};
pub use tunnel::Tunnel;
pub use worker::Worker;

/// A request as a listener hands it in: framing and connection fields are gone, their meaning kept.
pub struct Inbound<'a> {
    /// As sent.
    pub method: Method,
    /// Host and port the call is for; `None`: none was named (HTTP/1.0).
    pub authority: Option<HeaderValue>,
    /// Path and query as sent.
    pub target: Bytes,
    /// As sent.
    pub version: Version,
    /// End-to-end fields, without `Host`, which is `authority`.
    pub headers: HeaderMap,
    /// What follows the head.
    pub body: Body,
    /// Size of the head as received, in bytes; the size of the header list for HTTP/2.
    pub head_bytes: usize,
    /// Whether the head is that of a WebSocket handshake, on a connection that can become one.
    pub websocket: bool,
    /// Where interim answers go.
    pub interim: &'a dyn Interim,
}

/// What is true of every request on one downstream connection.
#[derive(Debug)]
pub struct ConnectionFacts {
    /// The client, or what a trusted PROXY header said of it.
    pub client: SocketAddr,
    /// The TLS side; `None` on a plaintext listener.
    pub tls: Option<TlsFacts>,
    /// The client's address as the replica is told it.
    forwarded_for: HeaderValue,
}

impl ConnectionFacts {
    /// Facts of a connection of `client`.
    #[must_use]
    pub fn new(client: SocketAddr, tls: Option<TlsFacts>) -> Self {
        let forwarded_for = HeaderValue::try_from(client.ip().to_string());
        Self { client, tls, forwarded_for: forwarded_for.unwrap_or(HeaderValue::from_static("unknown")) }
    }
}

/// What the handshake settled.
#[derive(Debug)]
pub struct TlsFacts {
    /// Server name the client asked for, lower case.
    pub server_name: Option<Box<str>>,
    /// The certificates it was chosen from.
    pub certificates: Arc<CertificateIndex>,
}
