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
        Some(Self { certificates, exact, wildcard })
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
        self.exact.get(name.as_ref()).or_else(by_wildcard).copied().unwrap_or(DEFAULT)
    }
}

impl ResolvesServerCert for CertificateIndex {
    fn resolve(&self, client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let position = client_hello.server_name().map_or(DEFAULT, |name| self.position(name));
        self.certificates.get(position).map(|certificate| Arc::clone(&certificate.key))
    }
}

impl fmt::Debug for CertificateIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.certificates).finish()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;
    use crate::tls::{CertificateSource, load};

    /// One certificate per list of names.
    fn index(lists: &[&[&str]]) -> CertificateIndex {
        let dir = tempfile::tempdir().unwrap();
        let certificates = lists.iter().map(|names| {
            let source =
                CertificateSource { cert: dir.path().join("leaf.pem"), key: dir.path().join("leaf.key") };
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(names).unwrap();
            std::fs::write(&source.cert, params.self_signed(&key).unwrap().pem()).unwrap();
            std::fs::write(&source.key, key.serialize_pem()).unwrap();
            load(&source).unwrap()
        });
        CertificateIndex::new(certificates.collect()).unwrap()
    }

    #[test]
    fn exact_before_wildcard_before_default() {
        let index = index(&[
            &["default.example"],
            &["*.score.example"],
            &["iris.score.example", "Upper.Example"],
            &["iris.score.example"],
        ]);
        for (name, expected) in [
            ("default.example", 0),
            ("flower.score.example", 1),
            ("FLOWER.score.Example.", 1),
            ("iris.score.example", 2),
            ("upper.example", 2),
            // A wildcard is one whole label.
            ("a.b.score.example", 0),
            ("score.example", 0),
            (".score.example", 0),
            ("*.score.example", 1),
            ("unknown.example", 0),
            ("", 0),
            (".", 0),
        ] {
            assert_eq!(index.position(name), expected, "{name:?}");
        }
    }

    #[test]
    fn a_host_under_another_certificate_than_the_sni_is_misdirected() {
        let index = index(&[&["a.example"], &["b.example", "*.b.example"]]);
        for (sni, host, same) in [
            (None, "b.example", true),
            (Some("a.example"), "a.example", true),
            (Some("a.example"), "A.EXAMPLE", true),
            (Some("a.example"), "b.example", false),
            (Some("b.example"), "x.b.example", true),
            (Some("b.example"), "a.example", false),
            // Names without a certificate get the default and are judged by it.
            (Some("a.example"), "unknown.example", true),
            (Some("b.example"), "unknown.example", false),
            (Some("unknown.example"), "other.example", true),
            (Some("unknown.example"), "b.example", false),
            (Some("b.example"), "127.0.0.1", false),
        ] {
            assert_eq!(index.same_certificate(sni, host), same, "{sni:?} and {host}");
        }
    }

    #[test]
    fn an_empty_list_has_no_default() {
        assert!(CertificateIndex::new(Vec::new()).is_none());
    }
}
