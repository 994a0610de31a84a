//! A certificate authority of a test's own, for replicas and client certificates.

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use scoregate::tls::{CertificateSource, ServerTlsSettings, TlsVersionFloor, server};
use tempfile::TempDir;

/// An authority; its folder goes with it.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    dir: TempDir,
}

/// What a certificate is good for.
#[derive(Clone, Copy, Debug)]
pub enum Purpose {
    Server,
    Client,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.pem"), certificate.pem()).unwrap();
        Self { issuer: Issuer::new(params, key), dir }
    }

    /// The authority's own certificate.
    pub fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// A certificate for `name` in files of its own.
    pub fn certificate(&self, name: &str, purpose: Purpose) -> CertificateSource {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.extended_key_usages = vec![match purpose {
            Purpose::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Purpose::Client => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let file = |end: &str| self.dir.path().join(format!("{name}-{purpose:?}.{end}"));
        let source = CertificateSource { cert: file("pem"), key: file("key") };
        std::fs::write(&source.cert, certificate.pem()).unwrap();
        std::fs::write(&source.key, key.serialize_pem()).unwrap();
        source
    }

    /// What a server for `name` runs with; `clients`: it asks for a certificate of this authority.
    pub fn server(&self, name: &str, clients: Option<PathBuf>) -> Arc<rustls::ServerConfig> {
        let certificates = vec![self.certificate(name, Purpose::Server)];
        let min_version = TlsVersionFloor::default();
        let settings = ServerTlsSettings { certificates, client_ca: clients, min_version };
        server(&settings).unwrap().config
    }
}
