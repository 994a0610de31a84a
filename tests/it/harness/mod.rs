//! A gateway, its clients and its upstreams for one test.
//!
//! Everything binds port 0 and lives as long as the test. Waits are polls with a generous bound: no test is decided by
//! time.

mod authority;
mod client;
mod frames;
mod gateway;
mod load;
mod mortal;
mod replica;
mod tls_client;
mod upstream;
mod verdict;
mod websocket;

use std::future::Future;
use std::time::Duration;

pub use authority::{Authority, Purpose};
pub use client::{Answer, Connection, End, H2, h2_streams};
pub use frames::{Frames, Outcome, Rest};
pub use gateway::{
    Gateway, KEY, OTHER_KEY, config, prepare, score_request, service, service_of, with_plain_listener,
};
pub use load::Load;
pub use mortal::Mortal;
pub use replica::{Call, Replica};
pub use tls_client::{TlsClient, peer_certificate};
pub use upstream::{H2Request, H2Respond, Seen, Upstream, ok, read_request};
pub use verdict::{assert_malformed, assert_record};
pub use websocket::{WEBSOCKET_ACCEPT, WEBSOCKET_KEY, websocket_agreed, websocket_handshake};

/// Waits for `future`; panics after a bound that no healthy machine reaches, so that a failing test ends.
pub async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    let bounded = tokio::time::timeout(Duration::from_secs(30), future).await;
    bounded.unwrap_or_else(|_| panic!("it never came to pass: {what}"))
}

/// Polls `probe` until it gives something; panics after a bound that no healthy machine reaches.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut probe: impl FnMut() -> F) -> T {
    for _ in 0..1500 {
        if let Some(found) = probe().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never came to pass: {what}");
}

/// What `future` gives; panics after a bound that no healthy machine reaches, so that a hang is a failure.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let bound = tokio::time::timeout(Duration::from_secs(30), future).await;
    bound.unwrap_or_else(|_| panic!("it never came to pass: {what}"))
}
