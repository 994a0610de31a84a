//! The integration tests: the whole gateway through its door, with real TLS, real sockets, port 0.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::large_futures,
    reason = "a test that cannot go on has failed, and its futures are few"
)]

mod auth;
mod cli;
mod cors;
mod deadlines;
mod deploy;
mod export;
mod forwarding;
mod framing;
mod harness;
mod headers;
mod life;
mod managed;
mod management;
mod metrics;
mod observability;
mod otlp;
mod privacy;
mod proxy_protocol;
mod records;
mod reload;
mod routing;
mod status;
mod store;
mod streaming;
mod tidy;
mod tls;
mod traffic;
mod upstreams;
