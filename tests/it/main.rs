//! The integration tests: the whole gateway through its door, with real TLS, real sockets, port 0.

mod harness;
mod life;
mod metrics;
mod proxy_protocol;
mod records;
mod reload;
mod tidy;
mod tls;
