//! The server side of one listener: certificates, versions, client certificates, tickets.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoClientAuth, NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, SupportedProtocolVersion};

use super::{
    CertificateIndex, ServerTlsSettings, TlsError, TlsProblem, TlsVersionFloor, certificate, pem, provider,
};

/// A listener's TLS, ready to use by every worker.
#[derive(Clone, Debug)]
pub struct ServerTls {
    /// For the handshake.
    pub config: Arc<ServerConfig>,
    /// The same certificates by name, for 421 and for gauges.
    pub certificates: Arc<CertificateIndex>,
}

/// Reads all files that the settings name and builds the configuration.
///
/// # Errors
/// The first file that cannot be used. A client CA bundle that is missing, empty or damaged is an error: client
/// certificates are never silently left unchecked.
pub fn server(settings: &ServerTlsSettings) -> Result<ServerTls, TlsError> {
    let certificates = settings.certificates.iter().map(certificate::load).collect::<Result<Vec<_>, _>>()?;
    let certificates = CertificateIndex::new(certificates)
        .map(Arc::new)
        .ok_or(TlsError::general(TlsProblem::NoCertificates))?;
    let verifier = match &settings.client_ca {
        Some(bundle) => required_client_certificates(bundle)?,
        None => Arc::new(NoClientAuth),
    };
    let versions: &[&SupportedProtocolVersion] = match settings.min_version {
        TlsVersionFloor::V1_2 => &[&TLS13, &TLS12],
        TlsVersionFloor::V1_3 => &[&TLS13],
    };

    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .map_err(refused)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::clone(&certificates) as _);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // Replay would run a scoring call twice; 0 also keeps the tickets free of the early data extension.
    config.max_early_data_size = 0;
    config.enable_secret_extraction = false;
    // A ticket carries the verdict on the client's certificate, so its keys live and die with the rules it was issued
    // under: never shared between configurations (the trap of CVE-2025-23419), new with every reload.
    config.ticketer = Ticketer::new().map_err(refused)?;
    // Scoring clients keep their connections; one ticket serves the reconnect, each further one costs every handshake
    // an encryption and some 200 bytes.
    config.send_tls13_tickets = 1;
    // With tickets on this would only serve TLS 1.2 clients without ticket support, under a lock of all workers.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(ServerTls { config: Arc::new(config), certificates })
}

fn required_client_certificates(bundle: &Path) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let roots = Arc::new(pem::roots(bundle)?);
    WebPkiClientVerifier::builder_with_provider(roots, provider())
        .build()
        .map_err(|error| TlsError::of(bundle, TlsProblem::Refused(error.to_string())))
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn refused(error: rustls::Error) -> TlsError {
    TlsError::general(TlsProblem::Refused(error.to_string()))
}
