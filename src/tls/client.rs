//! The client side: whom the gateway trusts and what it shows when it calls replicas or fetches keys.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::client::ResolvesClientCert;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore};

use super::{CertificateSource, TlsError, TlsProblem, certificate, pem, provider};

/// What the configuration says of TLS towards one kind of server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTlsSource {
    /// PEM bundle of trusted authorities, in place of the system's.
    pub ca: Option<PathBuf>,
    /// Shown to servers that ask for one.
    pub certificate: Option<CertificateSource>,
    /// Protocol offered by ALPN.
    pub alpn: ClientAlpn,
}

/// Protocol that the gateway speaks on the connection; exactly one is offered, for the caller has chosen already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAlpn {
    /// `http/1.1`.
    #[default]
    Http1,
    /// `h2`.
    Http2,
}

/// Reads the files and builds the configuration. Share the result: its session cache is what makes reconnects cheap.
///
/// # Errors
/// The file that cannot be used, or a system without any trusted certificate where no bundle is named.
pub fn client_config(source: &ClientTlsSource) -> Result<Arc<ClientConfig>, TlsError> {
    let roots = match &source.ca {
        Some(bundle) => bundle_roots(bundle)?,
        None => system_roots()?,
    };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::general(TlsProblem::Refused(error.to_string())))?
        .with_root_certificates(roots);
    let mut config = match &source.certificate {
        Some(source) => builder.with_client_cert_resolver(client_certificate(source)?),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![match source.alpn {
        ClientAlpn::Http1 => b"http/1.1".to_vec(),
        ClientAlpn::Http2 => b"h2".to_vec(),
    }];
    config.enable_early_data = false;
    Ok(Arc::new(config))
}

fn bundle_roots(bundle: &Path) -> Result<Arc<RootCertStore>, TlsError> {
    pem::roots(bundle).map(Arc::new)
}

fn client_certificate(source: &CertificateSource) -> Result<Arc<dyn ResolvesClientCert>, TlsError> {
    let loaded = certificate::load(source)?;
    Ok(Arc::new(SingleCertAndKey::from(loaded.key)))
}

/// The system's trust store, read once per process. A failure is not kept: the next reload looks again.
fn system_roots() -> Result<Arc<RootCertStore>, TlsError> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    if let Some(roots) = ROOTS.get() {
        return Ok(Arc::clone(roots));
    }
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Distributions ship a few certificates that are not valid by today's rules: those are left out, as everywhere.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let cause = found.errors.first().map_or_else(|| "none found".to_owned(), ToString::to_string);
        return Err(TlsError::general(TlsProblem::NoSystemRoots(cause)));
    }
    Ok(Arc::clone(ROOTS.get_or_init(|| Arc::new(roots))))
}
