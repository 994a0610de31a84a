//! The integration tests: the whole gateway through its door, with real TLS, real sockets, port 0.

mod deploy;
mod harness;
mod tidy;
