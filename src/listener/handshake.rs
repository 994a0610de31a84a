//! The TLS handshake of one accepted connection, under its deadline, and the words for how it can fail.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::{AlertDescription, InvalidMessage, ServerConfig, ServerConnection};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use x509_parser::prelude::{FromDer, X509Certificate};

/// A connection after its handshake.
#[derive(Debug)]
pub struct Established {
    /// Ready for HTTP; boxed because it is over a kilobyte that would otherwise sit in every state of the caller's future.
    pub stream: Box<TlsStream<TcpStream>>,
    /// Protocol that both sides agreed on.
    pub alpn: Alpn,
    /// Server name that the client asked for, lower case.
    pub sni: Option<Box<str>>,
    /// Distinguished name of the client's certificate (which is verified), where one is required.
    pub client_certificate_subject: Option<Box<str>>,
}

/// HTTP version agreed by ALPN (RFC 7301).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alpn {
    /// `http/1.1`, also for clients without ALPN.
    H1,
    /// `h2`.
    H2,
}

/// Why a handshake failed.
#[derive(Debug)]
pub enum HandshakeError {
    /// The deadline passed.
    Timeout,
    /// The client speaks something else: plain HTTP on the TLS port, a PROXY header from a peer that is not listed.
    NotTls,
    /// No version, cipher suite, group, signature scheme or ALPN protocol in common.
    NothingInCommon(rustls::Error),
    /// The client showed no certificate, or one that its authority or its dates do not cover.
    ClientCertificate(rustls::Error),
    /// The client does not accept our certificate.
    CertificateRefused(AlertDescription),
    /// The client closed or reset the connection: port scans and health checks of load balancers do.
    ClientGone,
    /// A broken or hostile handshake.
    Protocol(rustls::Error),
    /// Any other failure of the socket.
    Io(io::Error),
}

/// Completes the handshake of `tcp` until `deadline`. Dropping the future closes the connection.
///
/// # Errors
/// The connection is closed, and as far as TLS has an alert for the case, the client was told.
pub async fn handshake(
    tcp: TcpStream,
    config: Arc<ServerConfig>,
    deadline: Instant,
) -> Result<Established, HandshakeError> {
    // Boxed so that the caller's future, which lives as long as the connection, does not reserve room for it.
    let accept = Box::pin(TlsAcceptor::from(config).accept(tcp));
    let stream = match tokio::time::timeout_at(deadline, accept).await {
        Ok(result) => Box::new(result.map_err(HandshakeError::from_io)?),
        Err(_) => return Err(HandshakeError::Timeout),
    };
    let connection = stream.get_ref().1;
    Ok(Established {
        alpn: match connection.alpn_protocol() {
            Some(b"h2") => Alpn::H2,
            _ => Alpn::H1,
        },
        sni: connection.server_name().map(Box::from),
        client_certificate_subject: client_certificate_subject(connection),
        stream,
    })
}

impl HandshakeError {
    /// How it is counted.
    #[must_use]
    pub const fn failure(&self) -> HandshakeFailure {
        match self {
            Self::Timeout => HandshakeFailure::Timeout,
            Self::NotTls => HandshakeFailure::NotTls,
            Self::NothingInCommon(_) => HandshakeFailure::NothingInCommon,
            Self::ClientCertificate(_) => HandshakeFailure::ClientCertificate,
            Self::CertificateRefused(_) => HandshakeFailure::OurCertificate,
            Self::ClientGone => HandshakeFailure::Closed,
            Self::Protocol(_) | Self::Io(_) => HandshakeFailure::Other,
        }
    }

    /// tokio-rustls wraps what rustls says into an `io::Error`.
    fn from_io(error: io::Error) -> Self {
        match error.downcast::<rustls::Error>() {
            Ok(error) => Self::from_rustls(error),
            Err(error) => match error.kind() {
                io::ErrorKind::UnexpectedEof
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::NotConnected
                | io::ErrorKind::TimedOut => Self::ClientGone,
                _ => Self::Io(error),
            },
        }
    }

    fn from_rustls(error: rustls::Error) -> Self {
        use rustls::Error;
        match error {
            // What the first bytes of anything but TLS look like: no known record type, or no 3.x version after it.
            Error::InvalidMessage(
                InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
            ) => Self::NotTls,
            Error::PeerIncompatible(_) | Error::NoApplicationProtocol => {
                Self::NothingInCommon(error)
            }
            Error::NoCertificatesPresented | Error::InvalidCertificate(_) => {
                Self::ClientCertificate(error)
            }
            Error::AlertReceived(alert) => Self::from_alert(alert),
            other => Self::Protocol(other),
        }
    }

    fn from_alert(alert: AlertDescription) -> Self {
        use AlertDescription as Alert;
        match alert {
            Alert::CloseNotify | Alert::UserCanceled => Self::ClientGone,
            Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA => Self::CertificateRefused(alert),
            Alert::ProtocolVersion | Alert::HandshakeFailure | Alert::InsufficientSecurity => {
                Self::NothingInCommon(rustls::Error::AlertReceived(alert))
            }
            other => Self::Protocol(rustls::Error::AlertReceived(other)),
        }
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout => f.write_str("the TLS handshake took longer than handshake_timeout"),
            Self::NotTls => f.write_str("the client does not speak TLS"),
            Self::NothingInCommon(cause) => write!(f, "nothing in common with the client: {cause}"),
            Self::ClientCertificate(cause) => write!(f, "no valid client certificate: {cause}"),
            Self::CertificateRefused(alert) => {
                write!(f, "the client does not accept our certificate: {alert:?}")
            }
            Self::ClientGone => f.write_str("the client left during the TLS handshake"),
            Self::Protocol(cause) => write!(f, "broken TLS handshake: {cause}"),
            Self::Io(cause) => write!(f, "TLS handshake: {cause}"),
        }
    }
}

impl std::error::Error for HandshakeError {}

fn client_certificate_subject(connection: &ServerConnection) -> Option<Box<str>> {
    let leaf = connection.peer_certificates()?.first()?;
    let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
    Some(certificate.subject().to_string().into())
}
