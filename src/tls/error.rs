//! What can be wrong with a TLS file: data that names the file, the problem and the way out.

use std::fmt;
use std::path::{Path, PathBuf};

/// A TLS file or setting that cannot be used. Displays as one sentence with the file, the problem and the fix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsError {
    /// The file at fault; `None` where no single file is (an empty list, the system's trust store).
    pub file: Option<PathBuf>,
    /// What is wrong.
    pub problem: TlsProblem,
}

/// The closed list of what can be wrong. Texts in it come from the system or a parser and hold no key material.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsProblem {
    /// The file cannot be read.
    Unreadable(String),
    /// The file cannot be written.
    Unwritable(String),
    /// The file is larger than [`crate::tls::TlsProblem::MAX_FILE_BYTES`].
    TooLarge,
    /// PEM markers or base64 are broken.
    NotPem(String),
    /// No `CERTIFICATE` block.
    NoCertificate,
    /// A certificate is not valid X.509.
    BadCertificate(String),
    /// No private key block.
    NoKey,
    /// The key is protected by a passphrase.
    EncryptedKey,
    /// The key cannot be used: damaged, or of a kind that is not supported.
    BadKey(String),
    /// The key belongs to no certificate of the chain; names the certificate file.
    KeyMismatch(PathBuf),
    /// The key belongs to a certificate of the chain that is not the first.
    LeafNotFirst,
    /// A listener's list of certificates is empty.
    NoCertificates,
    /// The system's trust store holds no usable certificate.
    NoSystemRoots(String),
    /// The TLS library refuses the combination.
    Refused(String),
}

impl TlsProblem {
    /// Largest PEM file that is read, in bytes; the trust stores of distributions are about 250 KB.
    pub const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

    /// What the operator can do about it, one clause.
    #[must_use]
    pub const fn fix(&self) -> &'static str {
        match self {
            Self::Unreadable(_) => "check the path and that this process may read it",
            Self::Unwritable(_) => "check that this process may write there",
            Self::TooLarge => "name the PEM file itself; the limit is 4 MiB",
            Self::NotPem(_) => "write the file anew as PEM",
            Self::NoCertificate => "give a PEM file with BEGIN CERTIFICATE, leaf first",
            Self::BadCertificate(_) => "have the certificate issued anew as X.509 v3 in PEM",
            Self::NoKey => "give a PEM file with BEGIN PRIVATE KEY (PKCS#8, PKCS#1 or SEC 1)",
            Self::EncryptedKey => "remove the passphrase (openssl pkey -in KEY -out PLAIN)",
            Self::BadKey(_) => "use an RSA (2048 to 8192 bits), ECDSA P-256/384/521 or Ed25519 key",
            Self::KeyMismatch(_) => "give the key that the certificate was issued for",
            Self::LeafNotFirst => "put the server's own certificate first, then those that signed it",
            Self::NoCertificates => "list at least one certificate with its key",
            Self::NoSystemRoots(_) => "install ca-certificates or name a CA bundle",
            Self::Refused(_) => "correct what the cause names",
        }
    }
}

impl TlsError {
    pub(super) fn of(file: &Path, problem: TlsProblem) -> Self {
        Self { file: Some(file.to_owned()), problem }
    }

    pub(super) const fn general(problem: TlsProblem) -> Self {
        Self { file: None, problem }
    }
}

impl fmt::Display for TlsProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(cause) => write!(f, "cannot be read ({cause})"),
            Self::Unwritable(cause) => write!(f, "cannot be written ({cause})"),
            Self::TooLarge => f.write_str("is too large for a PEM file"),
            Self::NotPem(cause) => write!(f, "is not PEM ({cause})"),
            Self::NoCertificate => f.write_str("holds no certificate"),
            Self::BadCertificate(cause) => write!(f, "holds a damaged certificate ({cause})"),
            Self::NoKey => f.write_str("holds no private key"),
            Self::EncryptedKey => f.write_str("holds a key with a passphrase"),
            Self::BadKey(cause) => write!(f, "holds a key that cannot be used ({cause})"),
            Self::KeyMismatch(certificate) => {
                write!(f, "holds a key that does not match {}", certificate.display())
            }
            Self::LeafNotFirst => f.write_str("does not start with the certificate of the key"),
            Self::NoCertificates => f.write_str("no certificate is listed"),
            Self::NoSystemRoots(cause) => {
                write!(f, "the system's trust store has no usable certificate ({cause})")
            }
            Self::Refused(cause) => write!(f, "TLS settings are refused ({cause})"),
        }
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{} ", file.display())?;
        }
        write!(f, "{}: {}", self.problem, self.problem.fix())
    }
}

impl std::error::Error for TlsError {}
