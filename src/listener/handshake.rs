//! The TLS handshake of one accepted connection, under its deadline, and the words for how it can fail.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::{AlertDescription, InvalidMessage, ServerConfig};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::telemetry::metrics::HandshakeFailure;

/// A connection after its handshake.
#[derive(Debug)]
pub struct Established {
    /// Ready for HTTP; boxed because it is over a kilobyte that would otherwise sit in every state of the caller's future.
    pub stream: Box<TlsStream<TcpStream>>,
    /// Protocol that both sides agreed on.
    pub alpn: Alpn,
    /// Server name that the client asked for, lower case.
    pub sni: Option<Box<str>>,
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
            Error::PeerIncompatible(_) | Error::NoApplicationProtocol => Self::NothingInCommon(error),
            Error::NoCertificatesPresented | Error::InvalidCertificate(_) => Self::ClientCertificate(error),
            Error::AlertReceived(alert) => Self::from_alert(alert),
            other => Self::Protocol(other),
        }
    }

    fn from_alert(alert: AlertDescription) -> Self {
        use AlertDescription as Alert;
        match alert {
            Alert::CloseNotify | Alert::UserCanceled => Self::ClientGone,
            // decrypt_error is what a client says of a signature that its authority did not make.
            Alert::BadCertificate
            | Alert::DecryptError
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

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::Ipv4Addr;
    use std::path::Path;
    use std::time::Duration;

    use rustls::{ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion};
    use rustls_pki_types::ServerName;
    use tempfile::TempDir;
    use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsConnector;

    use super::*;
    use crate::listener::DownstreamIo;
    use crate::tls::{
        CertificateSource, ClientAlpn, ClientTlsSource, DevelopmentCertificates, ServerTls,
        ServerTlsSettings, TlsProblem, TlsVersionFloor, client_config, development_certificates, server,
    };

    type ClientStream = tokio_rustls::client::TlsStream<TcpStream>;

    fn made(names: &[&str]) -> (TempDir, DevelopmentCertificates) {
        let dir = tempfile::tempdir().unwrap();
        let made = development_certificates(dir.path(), names).unwrap();
        (dir, made)
    }

    fn settings(certificates: &[&DevelopmentCertificates]) -> ServerTlsSettings {
        ServerTlsSettings {
            certificates: certificates.iter().map(|made| made.server.clone()).collect(),
            client_ca: None,
            min_version: TlsVersionFloor::V1_2,
        }
    }

    fn client(ca: &Path, certificate: Option<CertificateSource>) -> Arc<ClientConfig> {
        let source = ClientTlsSource { ca: Some(ca.to_owned()), certificate, alpn: ClientAlpn::Http1 };
        client_config(&source).unwrap().config
    }

    fn in_a_minute() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    async fn sockets() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    /// Both sides of one handshake. The client also waits for the server's verdict, which in TLS 1.3 comes after its own.
    async fn meet(
        tls: &ServerTls,
        client: &Arc<ClientConfig>,
        name: &str,
    ) -> (Result<Established, HandshakeError>, io::Result<ClientStream>) {
        let (near, far) = sockets().await;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        tokio::join!(
            handshake(far, Arc::clone(&tls.config), in_a_minute()),
            TlsConnector::from(Arc::clone(client)).connect(name, near)
        )
    }

    /// What the server makes of bytes that are then followed by nothing.
    async fn answer_to(bytes: &[u8]) -> HandshakeError {
        let (_dir, made) = made(&[]);
        let tls = server(&settings(&[&made])).unwrap();
        let (mut near, far) = sockets().await;
        near.write_all(bytes).await.unwrap();
        near.shutdown().await.unwrap();
        handshake(far, tls.config, in_a_minute()).await.unwrap_err()
    }

    #[tokio::test]
    async fn the_name_picks_the_certificate() {
        let (_dir_a, a) = made(&["a.example"]);
        let (_dir_b, b) = made(&["b.example", "*.b.example"]);
        let tls = server(&settings(&[&a, &b])).unwrap();
        for (name, authority, sni) in [
            ("a.example", &a, Some("a.example")),
            ("b.example", &b, Some("b.example")),
            ("X.B.example", &b, Some("x.b.example")),
            // The default, for an unknown name and for none.
            ("localhost", &a, Some("localhost")),
            ("127.0.0.1", &a, None),
        ] {
            // Only the right certificate is signed by this authority.
            let (established, stream) = meet(&tls, &client(&authority.ca, None), name).await;
            stream.unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(established.unwrap().sni.as_deref(), sni);
        }
        let (established, stream) = meet(&tls, &client(&b.ca, None), "a.example").await;
        stream.unwrap_err();
        let error = established.unwrap_err();
        assert_eq!(error.failure(), HandshakeFailure::OurCertificate, "{error}");
    }

    #[tokio::test]
    async fn alpn_decides_the_http_version_and_must_overlap() {
        let (_dir, made) = made(&[]);
        let tls = server(&settings(&[&made])).unwrap();
        let cases: [(&[&[u8]], Alpn); 4] = [
            (&[], Alpn::H1),
            (&[b"http/1.1"], Alpn::H1),
            (&[b"h2"], Alpn::H2),
            (&[b"http/1.1", b"h2"], Alpn::H2),
        ];
        let with_alpn = |offered: &[&[u8]]| {
            let mut config = (*client(&made.ca, None)).clone();
            config.alpn_protocols = offered.iter().map(|name| name.to_vec()).collect();
            Arc::new(config)
        };
        for (offered, expected) in cases {
            let (established, _client) = meet(&tls, &with_alpn(offered), "localhost").await;
            assert_eq!(established.unwrap().alpn, expected);
        }
        let (established, _client) = meet(&tls, &with_alpn(&[b"spdy/3"]), "localhost").await;
        assert_eq!(established.unwrap_err().failure(), HandshakeFailure::NothingInCommon);
    }

    #[tokio::test]
    async fn versions_follow_the_floor() {
        let (_dir, made) = made(&[]);
        let only = |version| {
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let mut roots = rustls::RootCertStore::empty();
            let ca = std::fs::read(&made.ca).unwrap();
            use rustls_pki_types::pem::PemObject;
            roots.add(rustls_pki_types::CertificateDer::from_pem_slice(&ca).unwrap()).unwrap();
            let config =
                ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
            Arc::new(config.with_root_certificates(roots).with_no_client_auth())
        };
        let mut settings = settings(&[&made]);
        let tls = server(&settings).unwrap();
        for (version, expected) in [
            (&rustls::version::TLS12, ProtocolVersion::TLSv1_2),
            (&rustls::version::TLS13, ProtocolVersion::TLSv1_3),
        ] {
            let (established, _client) = meet(&tls, &only(version), "localhost").await;
            let stream = established.unwrap().stream;
            assert_eq!(stream.get_ref().1.protocol_version(), Some(expected));
        }
        settings.min_version = TlsVersionFloor::V1_3;
        let tls = server(&settings).unwrap();
        let old = only(&rustls::version::TLS12);
        let (established, _client) = meet(&tls, &old, "localhost").await;
        assert_eq!(established.unwrap_err().failure(), HandshakeFailure::NothingInCommon);
    }

    #[tokio::test]
    async fn where_client_certificates_are_required_only_those_of_the_authority_pass() {
        let (_dir, made_here) = made(&[]);
        let (_elsewhere, other) = made(&[]);
        let mut settings = settings(&[&made_here]);
        settings.client_ca = Some(made_here.ca.clone());
        let tls = server(&settings).unwrap();
        let ours = made_here.client_certificate("robot").unwrap();
        let theirs = other.client_certificate("robot").unwrap();

        let shows = client(&made_here.ca, Some(ours));
        let (established, _client) = meet(&tls, &shows, "localhost").await;
        assert!(established.is_ok());

        // A server's certificate is none for a client, even if the same authority signed it.
        for shown in [None, Some(theirs), Some(made_here.server.clone())] {
            let (established, _client) = meet(&tls, &client(&made_here.ca, shown), "localhost").await;
            let error = established.unwrap_err();
            assert_eq!(error.failure(), HandshakeFailure::ClientCertificate, "{error}");
        }
    }

    #[test]
    fn a_client_authority_that_cannot_be_read_is_an_error_and_never_no_check() {
        let (dir, made) = made(&[]);
        let mut settings = settings(&[&made]);
        let bundle = dir.path().join("bundle.pem");
        settings.client_ca = Some(bundle.clone());
        let problem = |settings| {
            let error = server(settings).unwrap_err();
            assert_eq!(error.file.as_ref(), Some(&bundle), "{error}");
            error.problem
        };
        assert!(matches!(problem(&settings), TlsProblem::Unreadable(_)));
        std::fs::write(&bundle, "").unwrap();
        assert_eq!(problem(&settings), TlsProblem::NoCertificate);
        // One good and one damaged: no part of it is used.
        let mut text = std::fs::read_to_string(&made.ca).unwrap();
        text.push_str("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        std::fs::write(&bundle, text).unwrap();
        assert!(matches!(problem(&settings), TlsProblem::BadCertificate(_)));

        settings.certificates.clear();
        let error = server(&settings).unwrap_err();
        assert_eq!(error.problem, TlsProblem::NoCertificates);
    }

    #[tokio::test]
    async fn a_ticket_resumes_where_it_was_issued_and_opens_nothing_elsewhere() {
        let (_dir, made) = made(&[]);
        let mut settings = settings(&[&made]);
        let open = server(&settings).unwrap();
        settings.client_ca = Some(made.ca.clone());
        let guarded = server(&settings).unwrap();
        let mut config = (*client(&made.ca, None)).clone();
        config.enable_early_data = true;
        let config = Arc::new(config);

        for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let (established, stream) = meet(&open, &config, "localhost").await;
            let mut established = established.unwrap();
            let connection = established.stream.get_ref().1;
            assert_eq!(connection.handshake_kind(), Some(expected));
            // The ticket comes with the first bytes.
            established.stream.write_all(b"x").await.unwrap();
            established.stream.flush().await.unwrap();
            let mut stream = stream.unwrap();
            stream.read_exact(&mut [0]).await.unwrap();
            assert!(!stream.get_ref().1.is_early_data_accepted());
        }
        let (established, _client) = meet(&guarded, &config, "localhost").await;
        let error = established.unwrap_err();
        assert_eq!(error.failure(), HandshakeFailure::ClientCertificate, "{error}");
    }

    #[tokio::test]
    async fn a_silent_client_meets_the_deadline() {
        let (_dir, made) = made(&[]);
        let tls = server(&settings(&[&made])).unwrap();
        for begun in [&b""[..], b"\x16\x03\x01\x02\x00\x01"] {
            let (mut near, far) = sockets().await;
            near.write_all(begun).await.unwrap();
            tokio::time::pause();
            let result = handshake(far, Arc::clone(&tls.config), in_a_minute()).await;
            tokio::time::resume();
            assert_eq!(result.unwrap_err().failure(), HandshakeFailure::Timeout);
        }
    }

    #[tokio::test]
    async fn what_is_not_tls_is_told_apart() {
        for (bytes, expected) in [
            (&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], "not_tls"),
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 33333 443\r\n", "not_tls"),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "not_tls"),
            (b"\x16\x03\x01\x00\x05\x02\x00\x00\x01\x00", "other"),
            (b"\x16\x03\x01\x02\x00", "closed"),
            (b"", "closed"),
        ] {
            let error = answer_to(bytes).await;
            assert_eq!(error.failure().as_str(), expected, "{bytes:?}: {error}");
        }
    }

    #[tokio::test]
    async fn a_client_hello_over_64_kib_is_refused() {
        // Handshake message of 100 KiB in records of 16 KiB.
        let mut bytes = vec![1, 1, 0x90, 0];
        bytes.resize(16 * 1024, 0);
        let mut records = Vec::new();
        for piece in std::iter::once(&bytes[..]).chain([&[0; 16 * 1024][..]; 6]) {
            records.extend([0x16, 3, 1, 0x40, 0]);
            records.extend(piece);
        }
        let (_dir, made) = made(&[]);
        let tls = server(&settings(&[&made])).unwrap();
        let (near, far) = sockets().await;
        let (mut read, mut write) = near.into_split();
        let send = async {
            // The server closes in the middle of it.
            let _ = write.write_all(&records).await;
        };
        let drain = async {
            let _ = read.read_to_end(&mut Vec::new()).await;
        };
        let (result, (), ()) =
            tokio::join!(handshake(far, Arc::clone(&tls.config), in_a_minute()), send, drain);
        assert_eq!(result.unwrap_err().failure(), HandshakeFailure::Other);
    }

    /// RUSTSEC-2024-0399 was a panic at such a ClientHello.
    #[tokio::test]
    async fn a_client_hello_in_records_of_one_byte_completes() {
        let (_dir, made) = made(&[]);
        let tls = server(&settings(&[&made])).unwrap();
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let config = client(&made.ca, None);
        let client = std::thread::spawn(move || {
            let mut tcp = std::net::TcpStream::connect(address).unwrap();
            tcp.set_nodelay(true).unwrap();
            let name = ServerName::try_from("localhost").unwrap();
            let mut connection = ClientConnection::new(config, name).unwrap();
            let mut hello = Vec::new();
            connection.write_tls(&mut hello).unwrap();
            for byte in &hello[5..] {
                tcp.write_all(&[0x16, 3, 1, 0, 1, *byte]).unwrap();
            }
            let mut stream = rustls::StreamOwned::new(connection, tcp);
            let mut answer = [0; 2];
            stream.read_exact(&mut answer).unwrap();
            answer
        });
        let (tcp, _) = listener.accept().unwrap();
        tcp.set_nonblocking(true).unwrap();
        let tcp = TcpStream::from_std(tcp).unwrap();
        let established = handshake(tcp, tls.config, in_a_minute()).await.unwrap();
        let mut io = DownstreamIo::Tls(established.stream);
        assert!(io.is_write_vectored());
        let pieces = [std::io::IoSlice::new(b"o"), std::io::IoSlice::new(b"k")];
        assert_eq!(io.write_vectored(&pieces).await.unwrap(), 2);
        io.flush().await.unwrap();
        assert_eq!(&client.join().unwrap(), b"ok");
    }

    /// What an established connection at rest holds in this process, without HTTP. Run it alone, in release mode:
    /// `cargo test --release --lib -- --ignored --nocapture resident`.
    #[tokio::test]
    #[ignore = "a measurement"]
    async fn resident_bytes_per_idle_connection() {
        const COUNT: usize = 2000;
        let (_dir, made) = made(&[]);
        let tls = server(&settings(&[&made])).unwrap();
        let config = client(&made.ca, None);
        let mut kept = Vec::with_capacity(COUNT * 2);
        let mut before = 0;
        for round in 0..COUNT {
            if round == COUNT / 10 {
                before = resident();
            }
            let (established, stream) = meet(&tls, &config, "localhost").await;
            let mut io = DownstreamIo::Tls(established.unwrap().stream);
            let mut stream = stream.unwrap();
            // One exchange, then a read that stays pending, as on a keep-alive connection.
            stream.write_all(b"ping").await.unwrap();
            io.read_exact(&mut [0; 4]).await.unwrap();
            io.write_all(b"pong").await.unwrap();
            stream.read_exact(&mut [0; 4]).await.unwrap();
            let pending = tokio::time::timeout(Duration::ZERO, io.read_u8()).await;
            assert!(pending.is_err());
            // Of the client only the socket stays.
            kept.push((io, stream.into_inner().0));
        }
        let per_connection = (resident() - before) / (COUNT - COUNT / 10);
        eprintln!(
            "{per_connection} bytes; of these the TLS state itself {}",
            size_of::<TlsStream<TcpStream>>()
        );
        assert!(per_connection < 25 * 1024);
    }

    fn resident() -> usize {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
        pages * 4096
    }
}
