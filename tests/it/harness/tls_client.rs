//! A TLS client of which a test decides everything: versions, ALPN, trust, its own certificate, and whether it sends SNI.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use scoregate::tls::CertificateSource;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// One side of a handshake.
pub type TlsStream = tokio_rustls::client::TlsStream<TcpStream>;

/// What a client says in its handshake.
#[derive(Clone)]
pub struct TlsClient {
    roots: RootCertStore,
    versions: Vec<&'static SupportedProtocolVersion>,
    alpn: Vec<Vec<u8>>,
    certificate: Option<CertificateSource>,
}

impl TlsClient {
    /// Trusts these authorities, speaks both versions, offers no ALPN, shows no certificate.
    pub fn trusting(authorities: &[&Path]) -> Self {
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            roots.add(CertificateDer::from_pem_file(authority).unwrap()).unwrap();
        }
        let versions = vec![&rustls::version::TLS13, &rustls::version::TLS12];
        Self { roots, versions, alpn: Vec::new(), certificate: None }
    }

    /// Speaks this version only.
    pub fn version(mut self, version: &'static SupportedProtocolVersion) -> Self {
        self.versions = vec![version];
        self
    }

    /// Offers this protocol.
    pub fn alpn(mut self, protocol: &str) -> Self {
        self.alpn.push(protocol.as_bytes().to_vec());
        self
    }

    /// Shows this certificate when asked.
    pub fn showing(mut self, certificate: CertificateSource) -> Self {
        self.certificate = Some(certificate);
        self
    }

    /// As rustls wants it.
    pub fn config(&self) -> ClientConfig {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&self.versions)
            .unwrap()
            .with_root_certificates(self.roots.clone());
        let mut config = match &self.certificate {
            None => builder.with_no_client_auth(),
            Some(source) => {
                let chain =
                    CertificateDer::pem_file_iter(&source.cert).unwrap().map(Result::unwrap).collect();
                let key = PrivateKeyDer::from_pem_file(&source.key).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        config.alpn_protocols = self.alpn.clone();
        config
    }

    /// Connects with `name` as SNI; an IP address sends none.
    pub async fn connect(&self, address: SocketAddr, name: &str) -> io::Result<TlsStream> {
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        self.handshake(tcp, name).await
    }

    /// The same over a connection that is there.
    pub async fn handshake(&self, tcp: TcpStream, name: &str) -> io::Result<TlsStream> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        TlsConnector::from(Arc::new(self.config())).connect(name, tcp).await
    }
}

/// The certificate that the other side showed.
pub fn peer_certificate(stream: &TlsStream) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}
