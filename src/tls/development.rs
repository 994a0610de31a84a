//! Certificates for development: an own authority and what it signs, as PEM files in one folder.
//!
//! The folder's authority stays the same from run to run, so that a developer trusts it once; the server's certificate is
//! written anew when it is about to expire or lacks a name.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls_pki_types::{ServerName, UnixTime};
use time::OffsetDateTime;

use super::{CertificateSource, LoadedCertificate, TlsError, TlsProblem, certificate, pem, provider};

/// Validity of a leaf; browsers and Apple's platforms refuse more than 398 days.
const LEAF_LIFETIME: time::Duration = time::Duration::days(397);
/// Validity of the authority.
const CA_LIFETIME: time::Duration = time::Duration::days(3650);
/// Certificates start a little in the past, for peers whose clock is late.
const CLOCK_SLACK: time::Duration = time::Duration::hours(1);
/// Files are kept if they are valid for at least this long.
const REST: Duration = Duration::from_secs(24 * 60 * 60);

/// The files of one folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DevelopmentCertificates {
    /// The authority's certificate, for clients to trust.
    pub ca: PathBuf,
    /// The authority's key.
    pub ca_key: PathBuf,
    /// Certificate and key of the server.
    pub server: CertificateSource,
}

/// Makes an authority and a server certificate for `names` (DNS names or IP addresses), `localhost`, 127.0.0.1 and ::1
/// in `dir`, which is created with mode 0700; keys get mode 0600. What is there and still good for the names is kept.
///
/// # Errors
/// Names the file or folder that cannot be written, or a name that no certificate can bear.
pub fn development_certificates(dir: &Path, names: &[&str]) -> Result<DevelopmentCertificates, TlsError> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| unwritable(dir, &error))?;
    let files = DevelopmentCertificates {
        ca: dir.join("ca.pem"),
        ca_key: dir.join("ca.key"),
        server: CertificateSource { cert: dir.join("server.pem"), key: dir.join("server.key") },
    };
    let names = all_names(names);
    if !files.authority_is_usable() {
        files.write_authority()?;
    }
    if !files.server_is_usable(&names) {
        files.issue(&names, ExtendedKeyUsagePurpose::ServerAuth, &files.server)?;
    }
    Ok(files)
}

impl DevelopmentCertificates {
    /// Issues a client certificate for `name` (its common name and DNS name) into `client-NAME.pem` and
    /// `client-NAME.key` beside the others.
    ///
    /// # Errors
    /// Names the file that cannot be read or written.
    pub fn client_certificate(&self, name: &str) -> Result<CertificateSource, TlsError> {
        let target = CertificateSource {
            cert: self.ca.with_file_name(format!("client-{name}.pem")),
            key: self.ca.with_file_name(format!("client-{name}.key")),
        };
        let names = [name.to_owned()];
        self.issue(&names, ExtendedKeyUsagePurpose::ClientAuth, &target)?;
        Ok(target)
    }

    fn authority_is_usable(&self) -> bool {
        let source = CertificateSource { cert: self.ca.clone(), key: self.ca_key.clone() };
        certificate::load(&source).is_ok_and(|loaded| lasts(&loaded))
    }

    fn write_authority(&self) -> Result<(), TlsError> {
        let key = new_key(&self.ca_key)?;
        let certificate = authority().self_signed(&key).map_err(|error| refused(&self.ca, &error))?;
        write(&self.ca_key, &key.serialize_pem(), 0o600)?;
        write(&self.ca, &certificate.pem(), 0o644)
    }

    /// The same judgement that a client makes: signed by this authority, in time, for every one of the names.
    fn server_is_usable(&self, names: &[String]) -> bool {
        let (Ok(loaded), Ok(roots)) = (certificate::load(&self.server), pem::roots(&self.ca)) else {
            return false;
        };
        let Ok(verifier) = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build()
        else {
            return false;
        };
        let is_good_for = |name: &String| {
            // `*` is no label of a server's name; any label will do to try the wildcard.
            let Ok(name) = ServerName::try_from(name.replacen('*', "any", 1)) else {
                return false;
            };
            let chain = &loaded.key.cert;
            verifier.verify_server_cert(&chain[0], &chain[1..], &name, &[], UnixTime::now()).is_ok()
        };
        lasts(&loaded) && names.iter().all(is_good_for)
    }

    fn issue(
        &self,
        names: &[String],
        usage: ExtendedKeyUsagePurpose,
        target: &CertificateSource,
    ) -> Result<(), TlsError> {
        let refused = |error: rcgen::Error| refused(&target.cert, &error);
        let ca_key = pem::private_key(&self.ca_key)?;
        let ca_key = KeyPair::from_der_and_sign_algo(&ca_key, &PKCS_ECDSA_P256_SHA256)
            .map_err(|error| TlsError::of(&self.ca_key, TlsProblem::BadKey(error.to_string())))?;
        // Every authority made here bears the same name, so the parameters need not be read back from its file.
        let issuer = Issuer::new(authority(), ca_key);

        let mut params = CertificateParams::new(names).map_err(refused)?;
        let common_name = names.first().map_or("localhost", String::as_str);
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) = validity(LEAF_LIFETIME);
        let key = new_key(&target.key)?;
        let certificate = params.signed_by(&key, &issuer).map_err(refused)?;
        write(&target.key, &key.serialize_pem(), 0o600)?;
        write(&target.cert, &certificate.pem(), 0o644)
    }
}

fn authority() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "scoregate development CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = validity(CA_LIFETIME);
    params
}

fn all_names(names: &[&str]) -> Vec<String> {
    let mut all: Vec<String> = Vec::with_capacity(names.len() + 3);
    let always = [
        "localhost".to_owned(),
        IpAddr::from(Ipv4Addr::LOCALHOST).to_string(),
        IpAddr::from(Ipv6Addr::LOCALHOST).to_string(),
    ];
    for name in names.iter().map(|name| name.to_ascii_lowercase()).chain(always) {
        if !all.contains(&name) {
            all.push(name);
        }
    }
    all
}

/// `lifetime` counts from the (back-dated) start, so that limits on the whole span hold.
fn validity(lifetime: time::Duration) -> (OffsetDateTime, OffsetDateTime) {
    let start = OffsetDateTime::now_utc() - CLOCK_SLACK;
    (start, start + lifetime)
}

fn lasts(certificate: &LoadedCertificate) -> bool {
    let now = SystemTime::now();
    certificate.not_before <= now && now + REST < certificate.not_after
}

fn new_key(file: &Path) -> Result<KeyPair, TlsError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
        .map_err(|error| TlsError::of(file, TlsProblem::BadKey(error.to_string())))
}

/// Writes beside the target and renames, so that no reader sees half a file and a key never exists with a wider mode.
fn write(file: &Path, text: &str, mode: u32) -> Result<(), TlsError> {
    let fresh = file.with_extension("fresh");
    let written = (|| {
        match std::fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(&fresh)?;
        opened.write_all(text.as_bytes())?;
        std::fs::rename(&fresh, file)
    })();
    written.map_err(|error| unwritable(file, &error))
}

fn unwritable(file: &Path, error: &io::Error) -> TlsError {
    TlsError::of(file, TlsProblem::Unwritable(error.to_string()))
}

fn refused(file: &Path, error: &rcgen::Error) -> TlsError {
    TlsError::of(file, TlsProblem::Refused(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_files_are_private_and_bear_all_names() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("certs");
        let made = development_certificates(&dir, &["Iris.Example", "*.score.example"]).unwrap();
        assert_eq!(mode(&dir), 0o700);
        assert_eq!(mode(&made.ca_key), 0o600);
        assert_eq!(mode(&made.server.key), 0o600);
        let loaded = certificate::load(&made.server).unwrap();
        assert_eq!(*loaded.dns_names, ["iris.example", "*.score.example", "localhost"].map(Box::from));
        assert_eq!(loaded.addresses, [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()]);
        let span = loaded.not_after.duration_since(loaded.not_before).unwrap();
        assert_eq!(span.as_secs(), 397 * 24 * 60 * 60);
        assert_eq!(loaded.warnings(), []);
    }

    #[test]
    fn what_is_still_good_is_kept_and_a_new_name_renews_the_leaf_only() {
        let dir = tempfile::tempdir().unwrap();
        let make = |names: &[&str]| {
            let made = development_certificates(dir.path(), names).unwrap();
            let ca = fs::read(&made.ca).unwrap();
            (ca, fs::read(&made.server.cert).unwrap(), made)
        };
        let (ca, leaf, _) = make(&["a.example", "*.a.example"]);
        assert_eq!(make(&["a.example"]).1, leaf);
        let (same_ca, new_leaf, made) = make(&["b.example"]);
        assert_eq!(same_ca, ca);
        assert_ne!(new_leaf, leaf);

        fs::remove_file(&made.ca).unwrap();
        let (new_ca, newer_leaf, _) = make(&["b.example"]);
        assert_ne!(new_ca, ca);
        assert_ne!(newer_leaf, new_leaf, "the old leaf's issuer is gone");
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = development_certificates(file.path(), &[]).unwrap_err();
        assert_eq!(error.file.as_deref(), Some(file.path()));
        assert!(matches!(error.problem, TlsProblem::Unwritable(_)), "{error}");
    }
}
