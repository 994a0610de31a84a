//! TLS of both legs: certificates by SNI and server settings downstream, trust and client certificate upstream.
//!
//! [`server`] and [`client_config`] turn paths into ready rustls configurations; whatever is wrong with a file is a
//! [`TlsError`], never a weaker configuration. Everything here is built once per reload and shared by all workers.

mod certificate;
mod client;
mod development;
mod error;
mod index;
mod pem;
mod server;
mod settings;

use std::sync::{Arc, LazyLock};

use rustls::crypto::{CryptoProvider, aws_lc_rs};

pub use certificate::{CertificateWarning, LoadedCertificate, load};
pub use client::{ClientAlpn, ClientTls, ClientTlsSource, client_config};
pub use development::{DevelopmentCertificates, development_certificates};
pub use error::{TlsError, TlsProblem};
pub use index::CertificateIndex;
pub use server::{ServerTls, server};
pub use settings::{CertificateSource, ServerTlsSettings, TlsVersionFloor};

/// The one crypto provider. Handed to rustls by name everywhere: a process default is set by whoever comes first, and
/// its absence is a panic.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));
    Arc::clone(&PROVIDER)
}
