//! The integration tests: the whole gateway through its door, with real TLS, real sockets, port 0.

mod auth;
mod cors;
mod deadlines;
mod forwarding;
mod framing;
mod harness;
mod headers;
mod life;
mod metrics;
mod proxy_protocol;
mod records;
mod reload;
mod routing;
mod status;
mod streaming;
mod tidy;
mod tls;
mod upstreams;
