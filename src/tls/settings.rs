//! What the configuration says of a listener's TLS: paths, not yet read.

use std::path::PathBuf;

/// TLS of one listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTlsSettings {
    /// Certificate chains with their keys, in order; the first one serves clients that send no or an unknown name.
    pub certificates: Vec<CertificateSource>,
    /// PEM bundle of authorities; set: clients must show a certificate from one of them.
    pub client_ca: Option<PathBuf>,
    /// Oldest version offered.
    pub min_version: TlsVersionFloor,
}

/// A certificate chain and its private key as PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateSource {
    /// Full chain, leaf first.
    pub cert: PathBuf,
    /// PKCS#8, PKCS#1 or SEC 1, without a passphrase.
    pub key: PathBuf,
}

/// Oldest TLS version that a listener offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsVersionFloor {
    /// TLS 1.2 and 1.3.
    #[default]
    V1_2,
    /// TLS 1.3 only.
    V1_3,
}
