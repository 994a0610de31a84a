//! What some calls ask of a replica beyond one request and then its answer.

use std::time::Duration;

use crate::wire::Handshake;

/// Travels among a request's extensions, so that an ordinary call carries nothing and pays for nothing.
#[derive(Clone, Debug)]
pub enum Special {
    /// The handshake of a WebSocket, for HTTP/1.1 replicas: a 101 that answers it makes the connection a tunnel.
    WebSocket(Handshake),
    /// A gRPC call, for HTTP/2 replicas. Either side may send at any time, so that until the request has ended, or once
    /// the answer has begun, `idle_timeout` runs only while both are silent; after the request and before the answer it is
    /// `scoring_timeout`, as for any call.
    Grpc {
        /// Longest wait for the answer to begin, if the client said (`grpc-timeout`).
        timeout: Option<Duration>,
    },
}
