//! The client side: whom the gateway trusts and what it shows when it calls replicas or fetches keys.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use aws_lc_rs::digest;
use rustls::client::ResolvesClientCert;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::TrustAnchor;

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

/// TLS towards one kind of server, ready to use.
#[derive(Clone)]
pub struct ClientTls {
    /// For the handshake.
    pub config: Arc<ClientConfig>,
    /// SHA-256 over what decides the handshake (trust, certificate, protocol), so that what was read again can be told from
    /// what has changed.
    fingerprint: [u8; 32],
}

impl PartialEq for ClientTls {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}

impl Eq for ClientTls {}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls").finish_non_exhaustive()
    }
}

/// Reads the files and builds the configuration. Share the result: its session cache is what makes reconnects cheap.
///
/// # Errors
/// The file that cannot be used, or a system without any trusted certificate where no bundle is named.
pub fn client_config(source: &ClientTlsSource) -> Result<ClientTls, TlsError> {
    let mut facts = digest::Context::new(&digest::SHA256);
    let roots = match &source.ca {
        Some(bundle) => {
            let roots = bundle_roots(bundle)?;
            roots.roots.iter().for_each(|root| note_root(&mut facts, root));
            roots
        }
        // The same for the whole life of the process.
        None => system_roots()?,
    };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::general(TlsProblem::Refused(error.to_string())))?
        .with_root_certificates(roots);
    let mut config = match &source.certificate {
        Some(source) => builder.with_client_cert_resolver(client_certificate(source, &mut facts)?),
        None => builder.with_no_client_auth(),
    };
    let alpn = match source.alpn {
        ClientAlpn::Http1 => b"http/1.1".to_vec(),
        ClientAlpn::Http2 => b"h2".to_vec(),
    };
    note(&mut facts, b"alpn", &alpn);
    config.alpn_protocols = vec![alpn];
    config.enable_early_data = false;
    let mut fingerprint = [0; 32];
    fingerprint.copy_from_slice(facts.finish().as_ref());
    Ok(ClientTls { config: Arc::new(config), fingerprint })
}

/// Lengths go along, so that no two lists of facts are the same bytes.
fn note(facts: &mut digest::Context, what: &[u8], value: &[u8]) {
    for part in [what, value] {
        facts.update(&part.len().to_be_bytes());
        facts.update(part);
    }
}

fn note_root(facts: &mut digest::Context, root: &TrustAnchor<'_>) {
    note(facts, b"subject", &root.subject);
    note(facts, b"key", &root.subject_public_key_info);
    note(facts, b"constraints", root.name_constraints.as_deref().unwrap_or_default());
}

fn bundle_roots(bundle: &Path) -> Result<Arc<RootCertStore>, TlsError> {
    pem::roots(bundle).map(Arc::new)
}

fn client_certificate(
    source: &CertificateSource,
    facts: &mut digest::Context,
) -> Result<Arc<dyn ResolvesClientCert>, TlsError> {
    let loaded = certificate::load(source)?;
    // The key is the leaf's: `load` has checked it.
    loaded.key.cert.iter().for_each(|certificate| note(facts, b"certificate", certificate));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::{DevelopmentCertificates, development_certificates};

    #[test]
    fn what_was_read_again_is_told_from_what_has_changed() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str| development_certificates(&dir.path().join(name), &["model.test"]).unwrap();
        let (one, other) = (make("one"), make("other"));
        let source = |ca: &DevelopmentCertificates, certificate: Option<&DevelopmentCertificates>, alpn| {
            let certificate = certificate.map(|certificates| certificates.server.clone());
            client_config(&ClientTlsSource { ca: Some(ca.ca.clone()), certificate, alpn }).unwrap()
        };
        let http1 = ClientAlpn::Http1;
        let tls = source(&one, None, http1);
        assert_eq!(tls, source(&one, None, http1));
        assert_ne!(tls, source(&other, None, http1), "another authority");
        assert_ne!(tls, source(&one, None, ClientAlpn::Http2), "another protocol");
        let shown = source(&one, Some(&one), http1);
        assert_ne!(tls, shown, "a certificate");
        assert_eq!(shown, source(&one, Some(&one), http1));
        assert_ne!(shown, source(&one, Some(&other), http1), "another certificate");
        // The same path, another authority in it.
        std::fs::copy(&other.ca, &one.ca).unwrap();
        assert_ne!(tls, source(&one, None, http1), "the file has changed");
    }
}
