//! The integration tests: the whole gateway through its door, with real TLS, real sockets, port 0.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

mod auth;
mod cors;
mod harness;
mod headers;
mod routing;
mod status;
mod tidy;
