//! PEM files: certificate chains, trust bundles and private keys, each with the errors of [`TlsError`].

use std::fs::File;
use std::io::Read;
use std::path::Path;

use memchr::memmem;
use rustls::RootCertStore;
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::{TlsError, TlsProblem};

/// Every certificate of the file, in its order; at least one.
pub(super) fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = read(file)?;
    let certificates = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| not_pem(file, &error))?;
    if certificates.is_empty() {
        return Err(TlsError::of(file, TlsProblem::NoCertificate));
    }
    Ok(certificates)
}

/// The certificates of the file as trust anchors. One that cannot be used fails the whole bundle: to leave it out
/// silently would let an authority vanish unnoticed.
pub(super) fn roots(file: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots
            .add(certificate)
            .map_err(|error| TlsError::of(file, TlsProblem::BadCertificate(error.to_string())))?;
    }
    Ok(roots)
}

/// The first private key of the file.
pub(super) fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let bytes = read(file)?;
    if is_encrypted(&bytes) {
        return Err(TlsError::of(file, TlsProblem::EncryptedKey));
    }
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| match error {
        pem::Error::NoItemsFound => TlsError::of(file, TlsProblem::NoKey),
        other => not_pem(file, &other),
    })
}

/// PKCS#8 says so in its label (RFC 7468, section 11), OpenSSL's older forms in a header (RFC 1421, section 4.6.1.1).
fn is_encrypted(pem: &[u8]) -> bool {
    [b"-----BEGIN ENCRYPTED PRIVATE KEY-----".as_slice(), b"Proc-Type: 4,ENCRYPTED"]
        .into_iter()
        .any(|mark| memmem::find(pem, mark).is_some())
}

fn read(file: &Path) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    let unreadable = |error: std::io::Error| TlsError::of(file, TlsProblem::Unreadable(error.to_string()));
    let opened = File::open(file).map_err(unreadable)?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(16 * 1024));
    opened.take(TlsProblem::MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > TlsProblem::MAX_FILE_BYTES {
        return Err(TlsError::of(file, TlsProblem::TooLarge));
    }
    Ok(bytes)
}

/// The parser's own messages quote the offending line, which may be key material: only their kind is told.
fn not_pem(file: &Path, error: &pem::Error) -> TlsError {
    let cause = match error {
        pem::Error::MissingSectionEnd { .. } => "a BEGIN line has no END line",
        pem::Error::IllegalSectionStart { .. } => "a BEGIN line is malformed",
        pem::Error::Base64Decode(_) => "a block is not base64",
        pem::Error::SectionTooLarge => "a block is too large",
        _ => "unknown structure",
    };
    TlsError::of(file, TlsProblem::NotPem(cause.to_owned()))
}
