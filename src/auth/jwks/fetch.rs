//! One fetch of a key set: a file read, or one GET over TLS, bounded in size and time.

use std::fmt;
use std::io::Read;
use std::net::IpAddr;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use url::{Host, Position, Url};

use super::super::settings::JwksSource;

/// Largest document, in bytes. Real sets have a few KiB.
const MAX_DOCUMENT: usize = 1024 * 1024;

/// Time for a whole fetch: look-up, connection, TLS and transfer.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// Fetches from one source.
pub(super) struct Fetcher {
    source: JwksSource,
    /// Made when first needed: gathering the system's trust anchors takes a while.
    tls: Option<TlsConnector>,
}

/// Why a fetch failed, in words for the log.
#[derive(Debug)]
pub(super) struct FetchError(String);

impl Fetcher {
    pub(super) fn new(source: JwksSource) -> Self {
        Self { source, tls: None }
    }

    /// The document as it is now.
    pub(super) async fn fetch(&mut self) -> Result<Bytes, FetchError> {
        tokio::time::timeout(FETCH_TIMEOUT, self.fetch_unbounded())
            .await
            .unwrap_or_else(|_| Err(FetchError(format!("no answer within {FETCH_TIMEOUT:?}"))))
    }

    async fn fetch_unbounded(&mut self) -> Result<Bytes, FetchError> {
        let (url, ca) = match &self.source {
            JwksSource::File(path) => return read_file(path.clone()).await,
            JwksSource::Url { url, ca } => (url, ca),
        };
        let tcp = connect(url).await?;
        if url.scheme() == "http" {
            return get(url, tcp).await;
        }
        let tls = match &self.tls {
            Some(tls) => tls,
            None => self.tls.insert(connector(ca)?),
        };
        let name = server_name(url)?;
        let stream = tls.connect(name, tcp).await.map_err(because("TLS handshake failed"))?;
        get(url, stream).await
    }
}

/// Whether `source` can be fetched from at all.
pub(super) fn check(source: &JwksSource) -> Result<(), &'static str> {
    let JwksSource::Url { url, .. } = source else {
        return Ok(());
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err("the URL holds a user name or password; key sets are public");
    }
    let loopback = match url.host() {
        None => return Err("the URL names no host"),
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
    };
    match url.scheme() {
        "https" => Ok(()),
        "http" if loopback => Ok(()),
        "http" => Err("http is for loopback only; whoever can change the answer can sign tokens: use https"),
        _ => Err("the URL begins with https://"),
    }
}

async fn read_file(path: std::path::PathBuf) -> Result<Bytes, FetchError> {
    // On a thread of its own: a network volume that hangs must not hold up the control plane.
    tokio::task::spawn_blocking(move || read_bounded(&path))
        .await
        .map_err(because("reading the file failed"))?
}

fn read_bounded(path: &Path) -> Result<Bytes, FetchError> {
    let failed = because("reading the file failed");
    let file = std::fs::File::open(path).map_err(&failed)?;
    let mut document = Vec::new();
    file.take(MAX_DOCUMENT as u64 + 1).read_to_end(&mut document).map_err(&failed)?;
    if document.len() > MAX_DOCUMENT {
        return Err(FetchError(format!("the file is larger than {MAX_DOCUMENT} bytes")));
    }
    Ok(document.into())
}

async fn connect(url: &Url) -> Result<TcpStream, FetchError> {
    let port = url.port_or_known_default().unwrap_or(443);
    let tcp = match url.host() {
        Some(Host::Domain(name)) => TcpStream::connect((name, port)).await,
        Some(Host::Ipv4(ip)) => TcpStream::connect((ip, port)).await,
        Some(Host::Ipv6(ip)) => TcpStream::connect((ip, port)).await,
        None => return Err(FetchError("the URL names no host".to_owned())),
    };
    let tcp = tcp.map_err(because("connecting failed"))?;
    let peer = tcp.peer_addr().map_err(because("connecting failed"))?;
    // "localhost" is what the resolver makes of it.
    if url.scheme() == "http" && !peer.ip().is_loopback() {
        return Err(FetchError(format!("{} is not loopback", peer.ip())));
    }
    Ok(tcp)
}

fn connector(ca: &[CertificateDer<'static>]) -> Result<TlsConnector, FetchError> {
    let mut roots = RootCertStore::empty();
    if ca.is_empty() {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    } else {
        roots.add_parsable_certificates(ca.iter().cloned());
    }
    if roots.is_empty() {
        return Err(FetchError("there are no usable trust anchors".to_owned()));
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(because("TLS cannot be set up"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

fn server_name(url: &Url) -> Result<ServerName<'static>, FetchError> {
    match url.host() {
        Some(Host::Domain(name)) => {
            ServerName::try_from(name.to_owned()).map_err(because("the URL's host is no server name"))
        }
        Some(Host::Ipv4(ip)) => Ok(ServerName::from(IpAddr::V4(ip))),
        Some(Host::Ipv6(ip)) => Ok(ServerName::from(IpAddr::V6(ip))),
        None => Err(FetchError("the URL names no host".to_owned())),
    }
}

/// One exchange on a connection of its own. Redirects are not followed: the configuration says whom to trust.
async fn get<S>(url: &Url, stream: S) -> Result<Bytes, FetchError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(because("the exchange failed"))?;
    let request = Request::get(&url[Position::BeforePath..Position::AfterQuery])
        .header(header::HOST, &url[Position::BeforeHost..Position::AfterPort])
        .header(header::ACCEPT, "application/jwk-set+json, application/json")
        .header(header::USER_AGENT, concat!("scoregate/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(because("the URL makes no request"))?;
    let mut connection = pin!(connection);
    let mut exchange = pin!(async move {
        let response = sender.send_request(request).await.map_err(because("the exchange failed"))?;
        document(response).await
    });
    tokio::select! {
        document = &mut exchange => document,
        // The connection may be done before its last bytes have been taken out.
        ended = &mut connection => match ended {
            Ok(()) => exchange.await,
            Err(error) => Err(because("the exchange failed")(error)),
        },
    }
}

async fn document(response: Response<Incoming>) -> Result<Bytes, FetchError> {
    let status = response.status();
    if status != StatusCode::OK {
        return Err(FetchError(format!("the issuer answered with status {}", status.as_u16())));
    }
    Limited::new(response.into_body(), MAX_DOCUMENT)
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes)
        .map_err(|error| FetchError(format!("reading the answer failed: {error}")))
}

fn because<E: fmt::Display>(what: &'static str) -> impl Fn(E) -> FetchError {
    move |error| FetchError(format!("{what}: {error}"))
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::issuer::{Answer, Issuer};
    use super::*;

    fn source(url: &str, ca: &[CertificateDer<'static>]) -> JwksSource {
        let (url, ca) = (Url::parse(url).unwrap(), ca.to_vec());
        JwksSource::Url { url, ca }
    }

    async fn fetch(source: JwksSource) -> Result<Bytes, String> {
        let fetched = Fetcher::new(source).fetch().await;
        fetched.map_err(|error| error.to_string())
    }

    #[test]
    fn plain_http_is_for_loopback_only() {
        for good in [
            "https://issuer.example/keys",
            "http://localhost:1/keys",
            "http://127.0.0.1/keys",
            "http://[::1]:8/keys",
        ] {
            assert_eq!(check(&source(good, &[])), Ok(()), "{good}");
        }
        for bad in [
            "http://issuer.example/keys",
            "http://localhost.example/keys",
            "http://10.0.0.1/keys",
            "ftp://127.0.0.1/keys",
            "file:///etc/passwd",
            "https://user@issuer.example/keys",
            "https://:secret@issuer.example/keys",
        ] {
            assert!(check(&source(bad, &[])).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_document_comes_over_http_and_over_trusted_tls_only() {
        let plain = Issuer::start(b"keys").await;
        assert_eq!(fetch(plain.source()).await.unwrap(), "keys");

        let tls = Issuer::start_tls(b"keys").await;
        assert_eq!(fetch(tls.source()).await.unwrap(), "keys");
        let JwksSource::Url { url, .. } = tls.source() else { panic!("a URL") };
        let stranger = Issuer::start_tls(b"keys").await;
        let wrong_ca = source(url.as_str(), stranger.ca());
        let error = fetch(wrong_ca).await.unwrap_err();
        assert!(error.contains("TLS handshake failed"), "{error}");
        assert_eq!(tls.fetches(), 1);
    }

    #[tokio::test]
    async fn only_a_plain_200_of_bounded_size_is_an_answer() {
        let issuer = Issuer::start(b"").await;
        for (answer, expected) in [
            (Answer::Document(vec![b' '; MAX_DOCUMENT]), None),
            (Answer::Document(vec![b' '; MAX_DOCUMENT + 1]), Some("limit")),
            (Answer::Chunked(vec![b' '; MAX_DOCUMENT]), None),
            (Answer::Chunked(vec![b' '; MAX_DOCUMENT + 1]), Some("limit")),
            (Answer::Status(500), Some("status 500")),
            (Answer::Status(302), Some("status 302")),
            (Answer::Status(204), Some("status 204")),
            (Answer::Cut, Some("failed")),
        ] {
            issuer.answer(answer);
            match (fetch(issuer.source()).await, expected) {
                (Ok(_), None) => {}
                (Err(error), Some(expected)) => assert!(error.contains(expected), "{error}"),
                (outcome, expected) => panic!("got {outcome:?}, expected {expected:?}"),
            }
        }
        assert_eq!(issuer.fetches(), 8, "no redirect is followed, nothing tried twice");
    }

    #[tokio::test]
    async fn a_file_is_read_up_to_the_same_size() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let source = || JwksSource::File(file.path().to_owned());
        std::fs::write(file.path(), "keys").unwrap();
        assert_eq!(fetch(source()).await.unwrap(), "keys");
        file.as_file().set_len(MAX_DOCUMENT as u64 + 1).unwrap();
        assert!(fetch(source()).await.unwrap_err().contains("larger than"));
        let missing = JwksSource::File("/does/not/exist".into());
        assert!(fetch(missing).await.unwrap_err().contains("reading the file failed"));
    }
}
