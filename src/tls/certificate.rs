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
    /// What people call it: its first name or address, else its file.
    #[must_use]
    pub fn name(&self) -> String {
        let name = self.dns_names.first().map(ToString::to_string);
        let address = || self.addresses.first().map(ToString::to_string);
        name.or_else(address).unwrap_or_else(|| self.source.cert.display().to_string())
    }

    /// What is worth telling at this moment.
    #[must_use]
    pub fn warnings(&self) -> Vec<CertificateWarning> {
        self.warnings_at(SystemTime::now())
    }

    fn warnings_at(&self, now: SystemTime) -> Vec<CertificateWarning> {
        let checks = [
            (now > self.not_after, CertificateWarning::Expired),
            (now < self.not_before, CertificateWarning::NotYetValid),
            (self.key_readable_by_everybody, CertificateWarning::KeyReadableByEverybody),
            (self.dns_names.is_empty(), CertificateWarning::NoNames),
        ];
        checks.into_iter().filter_map(|(applies, warning)| applies.then_some(warning)).collect()
    }
}

impl fmt::Display for CertificateWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Expired => "the certificate has expired: clients will refuse it, renew it",
            Self::NotYetValid => "the certificate is not valid yet: check its dates and the clock",
            Self::KeyReadableByEverybody => "every user of this machine can read the private key: chmod o-r",
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
            return Err(TlsError::of(&source.key, TlsProblem::KeyMismatch(source.cert.clone())));
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
        let names = x509.subject_alternative_name().map_err(|error| error.to_string())?;
        for name in names.iter().flat_map(|san| &san.value.general_names) {
            match name {
                GeneralName::DNSName(name) => {
                    leaf.dns_names.push(name.to_ascii_lowercase().into_boxed_str());
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
    if seconds < 0 { UNIX_EPOCH - distance } else { UNIX_EPOCH + distance }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

fn is_readable_by_everybody(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|metadata| metadata.mode() & 0o004 != 0)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256};
    use tempfile::TempDir;
    use time::OffsetDateTime;

    use super::*;
    use crate::tls::development_certificates;

    fn source(dir: &TempDir) -> CertificateSource {
        CertificateSource { cert: dir.path().join("leaf.pem"), key: dir.path().join("leaf.key") }
    }

    /// A self-signed pair in a folder of its own.
    fn pair(adjust: impl FnOnce(&mut CertificateParams)) -> (TempDir, CertificateSource) {
        let dir = tempfile::tempdir().unwrap();
        let source = source(&dir);
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["Iris.Example".to_owned()]).unwrap();
        adjust(&mut params);
        fs::write(&source.cert, params.self_signed(&key).unwrap().pem()).unwrap();
        fs::write(&source.key, key.serialize_pem()).unwrap();
        fs::set_permissions(&source.key, fs::Permissions::from_mode(0o600)).unwrap();
        (dir, source)
    }

    #[test]
    fn a_pair_gives_names_dates_and_fingerprint() {
        let (_dir, source) = pair(|params| {
            params.not_before = OffsetDateTime::from_unix_timestamp(1_600_000_000).unwrap();
            params.not_after = OffsetDateTime::from_unix_timestamp(4_000_000_000).unwrap();
            params.subject_alt_names.push(rcgen::SanType::IpAddress([127, 0, 0, 1].into()));
        });
        let loaded = load(&source).unwrap();
        assert_eq!(*loaded.dns_names, ["iris.example".into()]);
        assert_eq!(loaded.addresses, [IpAddr::from([127, 0, 0, 1])]);
        assert_eq!(loaded.not_after, UNIX_EPOCH + Duration::from_secs(4_000_000_000));
        assert_eq!(loaded.fingerprint, sha256(&loaded.key.cert[0]));
        assert_eq!(loaded.warnings(), []);
    }

    #[test]
    fn expiry_is_a_warning_and_not_an_error() {
        let (_dir, source) = pair(|params| {
            params.not_before = OffsetDateTime::from_unix_timestamp(1_500_000_000).unwrap();
            params.not_after = OffsetDateTime::from_unix_timestamp(1_600_000_000).unwrap();
        });
        let loaded = load(&source).unwrap();
        assert_eq!(loaded.warnings(), [CertificateWarning::Expired]);
        let earlier = UNIX_EPOCH + Duration::from_secs(1_400_000_000);
        assert_eq!(loaded.warnings_at(earlier), [CertificateWarning::NotYetValid]);
    }

    #[test]
    fn a_key_that_everybody_can_read_is_a_warning() {
        let (_dir, source) = pair(|_| {});
        fs::set_permissions(&source.key, fs::Permissions::from_mode(0o644)).unwrap();
        let loaded = load(&source).unwrap();
        assert_eq!(loaded.warnings(), [CertificateWarning::KeyReadableByEverybody]);
    }

    #[test]
    fn the_key_of_another_certificate_is_refused_by_name() {
        let (_dir, mut source) = pair(|_| {});
        let (_other_dir, other) = pair(|_| {});
        source.key = other.key;
        let error = load(&source).unwrap_err();
        assert_eq!(error.file.as_ref(), Some(&source.key));
        assert_eq!(error.problem, TlsProblem::KeyMismatch(source.cert.clone()), "{error}");
    }

    #[test]
    fn a_chain_in_the_wrong_order_is_told_as_such() {
        let dir = tempfile::tempdir().unwrap();
        let made = development_certificates(dir.path(), &[]).unwrap();
        let mut chain = fs::read_to_string(&made.ca).unwrap();
        chain.push_str(&fs::read_to_string(&made.server.cert).unwrap());
        fs::write(&made.server.cert, chain).unwrap();
        let error = load(&made.server).unwrap_err();
        assert_eq!(error.problem, TlsProblem::LeafNotFirst);
    }

    #[test]
    fn the_whole_chain_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let made = development_certificates(dir.path(), &[]).unwrap();
        let mut chain = fs::read_to_string(&made.server.cert).unwrap();
        chain.push_str(&fs::read_to_string(&made.ca).unwrap());
        fs::write(&made.server.cert, chain).unwrap();
        assert_eq!(load(&made.server).unwrap().key.cert.len(), 2);
    }

    #[test]
    fn keys_in_pkcs1_and_sec1_form_are_read() {
        // PKCS#8 wraps both forms in one OCTET STRING at its end (RFC 5958); the plain form starts where its length says.
        for (algorithm, label, plain_start) in
            [(&PKCS_RSA_SHA256, "RSA PRIVATE KEY", 26), (&PKCS_ECDSA_P256_SHA256, "EC PRIVATE KEY", 29)]
        {
            let dir = tempfile::tempdir().unwrap();
            let source = source(&dir);
            let key = KeyPair::generate_for(algorithm).unwrap();
            let params = CertificateParams::new(["a.example".to_owned()]).unwrap();
            fs::write(&source.cert, params.self_signed(&key).unwrap().pem()).unwrap();
            let pkcs8 = key.serialize_der();
            fs::write(&source.key, to_pem(label, &pkcs8[plain_start..])).unwrap();
            load(&source).unwrap_or_else(|error| panic!("{label}: {error}"));
        }
    }

    fn to_pem(label: &str, der: &[u8]) -> String {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = format!("-----BEGIN {label}-----\n");
        for block in der.chunks(3) {
            let bits = block.iter().fold(0_u32, |bits, &byte| bits << 8 | u32::from(byte))
                << (8 * (3 - block.len()));
            for digit in 0..4 {
                let value = (bits >> (18 - 6 * digit)) & 63;
                let padding = digit > block.len();
                text.push(if padding { '=' } else { ALPHABET[value as usize].into() });
            }
            text.push('\n');
        }
        text + &format!("-----END {label}-----\n")
    }

    #[test]
    fn a_passphrase_is_told_as_such() {
        let (_dir, source) = pair(|_| {});
        for text in [
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
            "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n",
        ] {
            fs::write(&source.key, text).unwrap();
            let error = load(&source).unwrap_err();
            assert_eq!(error.problem, TlsProblem::EncryptedKey);
            assert!(error.to_string().contains("passphrase"), "{error}");
        }
    }

    #[test]
    fn every_other_fault_names_its_file_and_shows_no_key_material() {
        let (_dir, source) = pair(|_| {});
        let key = fs::read_to_string(&source.key).unwrap();
        let certificate = fs::read_to_string(&source.cert).unwrap();
        let unfinished = key.replace("-----END", "----");
        let damaged = key.replacen("MIGH", "MIGG", 1);
        type Expected = fn(&TlsProblem) -> bool;
        let faults: [(&Path, &str, Expected); 7] = [
            (&source.key, "", |p| *p == TlsProblem::NoKey),
            (&source.key, &certificate, |p| *p == TlsProblem::NoKey),
            (&source.key, &unfinished, |p| matches!(p, TlsProblem::NotPem(_))),
            (&source.key, &damaged, |p| matches!(p, TlsProblem::BadKey(_))),
            (&source.cert, "", |p| *p == TlsProblem::NoCertificate),
            (&source.cert, &key, |p| *p == TlsProblem::NoCertificate),
            (&source.cert, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", |p| {
                matches!(p, TlsProblem::BadCertificate(_))
            }),
        ];
        let secret = key.lines().nth(1).unwrap();
        for (file, text, expected) in faults {
            let before = fs::read(file).unwrap();
            fs::write(file, text).unwrap();
            let error = load(&source).unwrap_err();
            fs::write(file, before).unwrap();
            assert_eq!(error.file.as_deref(), Some(file), "{error}");
            assert!(expected(&error.problem), "{error}");
            assert!(!format!("{error} {error:?}").contains(secret), "{error}");
        }
        fs::remove_file(&source.key).unwrap();
        let error = load(&source).unwrap_err();
        assert!(matches!(error.problem, TlsProblem::Unreadable(_)), "{error}");
    }

    #[test]
    fn a_device_or_huge_file_is_not_read_without_end() {
        let (_dir, mut source) = pair(|_| {});
        source.cert = "/dev/zero".into();
        assert_eq!(load(&source).unwrap_err().problem, TlsProblem::TooLarge);
    }
}
