//! The integration tests: the whole gateway through its door, with real TLS, real sockets, port 0.

mod deadlines;
mod forwarding;
mod framing;
mod harness;
mod streaming;
mod tidy;
mod upstreams;
