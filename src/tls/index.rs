//! Which certificate a name gets: exact names before one-label wildcards before the first certificate of the list.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::LoadedCertificate;

/// The certificates of one listener by name. Immutable: a reload builds another one.
pub struct CertificateIndex {
    /// In the order of the settings; the first is the default. Never empty.
    certificates: Vec<LoadedCertificate>,
    /// Position by full name.
    exact: HashMap<Box<str>, usize>,
    /// Position by what follows `*.`.
    wildcard: HashMap<Box<str>, usize>,
}

/// Position of the certificate for clients that send no or an unknown name.
const DEFAULT: usize = 0;

impl CertificateIndex {
    /// `None` for an empty list. A name that several certificates bear belongs to the first of them.
    pub(super) fn new(certificates: Vec<LoadedCertificate>) -> Option<Self> {
        if certificates.is_empty() {
            return None;
        }
        let mut exact = HashMap::new();
        let mut wildcard = HashMap::new();
        for (position, certificate) in certificates.iter().enumerate() {
            for name in &certificate.dns_names {
                let (names, name) = match name.strip_prefix("*.") {
                    Some(parent) => (&mut wildcard, parent),
                    None => (&mut exact, name.as_ref()),
                };
                names.entry(name.into()).or_insert(position);
            }
        }
        Some(Self {
            certificates,
            exact,
            wildcard,
        })
    }

    /// The certificates in the order of the settings, for expiry gauges and warnings.
    #[must_use]
    pub fn certificates(&self) -> &[LoadedCertificate] {
        &self.certificates
    }

    /// Whether a request for `host` (without port; case and a final dot do not matter) may come over a connection that
    /// was opened for `sni`: whether both names get the same certificate. Otherwise the proxy answers 421 (RFC 9110,
    /// section 15.5.20). Without SNI there is nothing to contradict.
    #[must_use]
    pub fn same_certificate(&self, sni: Option<&str>, host: &str) -> bool {
        let Some(sni) = sni else { return true };
        // Nearly every request ends here.
        if self.certificates.len() == 1 || sni.eq_ignore_ascii_case(host) {
            return true;
        }
        self.position(sni) == self.position(host)
    }

    fn position(&self, name: &str) -> usize {
        let name = name.strip_suffix('.').unwrap_or(name);
        let name = if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            Cow::Owned(name.to_ascii_lowercase())
        } else {
            Cow::Borrowed(name)
        };
        let by_wildcard = || {
            // A wildcard stands for exactly one whole label (RFC 9525, section 6.3).
            let (label, parent) = name.split_once('.')?;
            if label.is_empty() {
                return None;
            }
            self.wildcard.get(parent)
        };
        self.exact
            .get(name.as_ref())
            .or_else(by_wildcard)
            .copied()
            .unwrap_or(DEFAULT)
    }
}

impl ResolvesServerCert for CertificateIndex {
    fn resolve(&self, client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let position = client_hello
            .server_name()
            .map_or(DEFAULT, |name| self.position(name));
        self.certificates
            .get(position)
            .map(|certificate| Arc::clone(&certificate.key))
    }
}

impl fmt::Debug for CertificateIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.certificates).finish()
    }
}
