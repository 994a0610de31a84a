//! One certificate chain with its key, read, checked against each other, and the facts that gauges and logs want.

use std::fmt;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest;
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{Error as RustlsError, InconsistentKeys};
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use x509_parser::time::ASN1Time;

use super::{CertificateSource, TlsError, TlsProblem, pem, provider};

/// A chain whose leaf fits its key, ready to be served or shown.
#[derive(Clone)]
pub struct LoadedCertificate {
    /// The files it came from.
    pub source: CertificateSource,
    /// Full chain and key, as rustls uses them.
    pub key: Arc<CertifiedKey>,
    /// DNS names of the leaf, lower case; a wildcard keeps its `*.`.
    pub dns_names: Vec<Box<str>>,
    /// IP addresses of the leaf.
    pub addresses: Vec<IpAddr>,
    /// Start of the leaf's validity.
    pub not_before: SystemTime,
    /// End of the leaf's validity.
    pub not_after: SystemTime,
    /// SHA-256 over the leaf's DER.
    pub fingerprint: [u8; 32],
    key_readable_by_everybody: bool,
}

/// What is worth telling about a usable certificate. None of it is an error: an expired certificate is what some
/// clients still accept, and Kubernetes mounts Secrets with mode 0644.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateWarning {
    /// `not_after` is past.
    Expired,
    /// `not_before` is still to come.
    NotYetValid,
    /// The key file's mode lets every user of the machine read it.
    KeyReadableByEverybody,
    /// The leaf has no DNS name, so no SNI selects it.
    NoNames,
}

/// Reads a chain and its key and checks that they belong together. Validity in time is a warning and not an error.
///
/// # Errors
/// Names the file that is unreadable, not PEM, empty, damaged, protected by a passphrase or not matching.
pub fn load(source: &CertificateSource) -> Result<LoadedCertificate, TlsError> {
    let chain = pem::certificates(&source.cert)?;
    let der = pem::private_key(&source.key)?;
    let key = provider()
        .key_provider
        .load_private_key(der)
        .map_err(|error| TlsError::of(&source.key, TlsProblem::BadKey(error.to_string())))?;
    check_pair(source, &chain, &key)?;

    let leaf = Leaf::parse(&chain[0])
        .map_err(|cause| TlsError::of(&source.cert, TlsProblem::BadCertificate(cause)))?;
    Ok(LoadedCertificate {
        source: source.clone(),
        dns_names: leaf.dns_names,
        addresses: leaf.addresses,
        not_before: leaf.not_before,
        not_after: leaf.not_after,
        fingerprint: sha256(&chain[0]),
        key_readable_by_everybody: is_readable_by_everybody(&source.key),
        key: Arc::new(CertifiedKey::new(chain, key)),
    })
}

impl LoadedCertificate {
    /// What is worth telling at this moment.
    #[must_use]
    pub fn warnings(&self) -> Vec<CertificateWarning> {
        self.warnings_at(SystemTime::now())
    }

    fn warnings_at(&self, now: SystemTime) -> Vec<CertificateWarning> {
        let checks = [
            (now > self.not_after, CertificateWarning::Expired),
            (now < self.not_before, CertificateWarning::NotYetValid),
            (
                self.key_readable_by_everybody,
                CertificateWarning::KeyReadableByEverybody,
            ),
            (self.dns_names.is_empty(), CertificateWarning::NoNames),
        ];
        checks
            .into_iter()
            .filter_map(|(applies, warning)| applies.then_some(warning))
            .collect()
    }
}

impl fmt::Display for CertificateWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Expired => "the certificate has expired: clients will refuse it, renew it",
            Self::NotYetValid => "the certificate is not valid yet: check its dates and the clock",
            Self::KeyReadableByEverybody => {
                "every user of this machine can read the private key: chmod o-r"
            }
            Self::NoNames => "the certificate has no DNS name: it serves only as the default",
        })
    }
}

impl fmt::Debug for LoadedCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadedCertificate")
            .field("source", &self.source)
            .field("dns_names", &self.dns_names)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// The first certificate must be the key's. Where another one of the chain is, the order is wrong and not the key.
fn check_pair(
    source: &CertificateSource,
    chain: &[CertificateDer<'static>],
    key: &Arc<dyn SigningKey>,
) -> Result<(), TlsError> {
    let matches = |certificate: &CertificateDer<'static>| {
        CertifiedKey::new(vec![certificate.clone()], Arc::clone(key)).keys_match()
    };
    let problem = match matches(&chain[0]) {
        Ok(()) => return Ok(()),
        Err(RustlsError::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            if chain[1..].iter().any(|other| matches(other).is_ok()) {
                return Err(TlsError::of(&source.cert, TlsProblem::LeafNotFirst));
            }
            return Err(TlsError::of(
                &source.key,
                TlsProblem::KeyMismatch(source.cert.clone()),
            ));
        }
        Err(error) => TlsProblem::BadCertificate(error.to_string()),
    };
    Err(TlsError::of(&source.cert, problem))
}

struct Leaf {
    dns_names: Vec<Box<str>>,
    addresses: Vec<IpAddr>,
    not_before: SystemTime,
    not_after: SystemTime,
}

impl Leaf {
    fn parse(der: &[u8]) -> Result<Self, String> {
        let (_, x509) = X509Certificate::from_der(der).map_err(|error| error.to_string())?;
        let mut leaf = Self {
            dns_names: Vec::new(),
            addresses: Vec::new(),
            not_before: system_time(x509.validity().not_before),
            not_after: system_time(x509.validity().not_after),
        };
        let names = x509
            .subject_alternative_name()
            .map_err(|error| error.to_string())?;
        for name in names.iter().flat_map(|san| &san.value.general_names) {
            match name {
                GeneralName::DNSName(name) => {
                    leaf.dns_names
                        .push(name.to_ascii_lowercase().into_boxed_str());
                }
                GeneralName::IPAddress(octets) => leaf.addresses.extend(ip_address(octets)),
                _ => {}
            }
        }
        Ok(leaf)
    }
}

fn ip_address(octets: &[u8]) -> Option<IpAddr> {
    match octets.len() {
        4 => <[u8; 4]>::try_from(octets).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(octets).ok().map(IpAddr::from),
        _ => None,
    }
}

fn system_time(time: ASN1Time) -> SystemTime {
    let seconds = time.timestamp();
    let distance = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 {
        UNIX_EPOCH - distance
    } else {
        UNIX_EPOCH + distance
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

fn is_readable_by_everybody(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|metadata| metadata.mode() & 0o004 != 0)
}
