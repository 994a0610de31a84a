//! TLS of both legs: certificates by SNI and server settings downstream, trust and client certificate upstream.

mod settings;

pub use settings::{CertificateSource, ServerTlsSettings, TlsVersionFloor};
