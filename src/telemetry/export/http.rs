//! One POST at a time to a collector, over a connection that stays open in between.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::{Host, Position, Url};

use crate::lifecycle;
use crate::tls::{ClientTls, ClientTlsSource, client_config};

/// Look-up, TCP and TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// From the first byte sent to the last byte of the answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Largest answer: a line per refused item.
const MAX_ANSWER: usize = 1024 * 1024;

/// The client.
pub(super) struct HttpClient {
    trust: ClientTlsSource,
    /// Made of `trust` when first needed: gathering the system's trust anchors takes a while. Made anew after a handshake
    /// that failed: the bundle may have been replaced, as authorities are from time to time.
    tls: Option<ClientTls>,
    connection: Option<Connection>,
}

struct Connection {
    /// Scheme, host and port.
    origin: String,
    sender: SendRequest<Full<Bytes>>,
}

/// The whole of an answer.
pub(super) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// Why there is no answer, in words for the log.
#[derive(Debug)]
pub(super) struct HttpError(String);

impl HttpClient {
    /// Connects when first used; to `https` URLs as `trust` says.
    pub(super) fn new(trust: ClientTlsSource) -> Self {
        Self { trust, tls: None, connection: None }
    }

    /// Sends `body` to `url` and reads the answer, in bounded time. Follows nothing.
    pub(super) async fn post(
        &mut self,
        url: &Url,
        headers: &[(HeaderName, HeaderValue)],
        body: Bytes,
    ) -> Result<Answer, HttpError> {
        let mut request = Request::post(&url[Position::BeforePath..Position::AfterQuery])
            .header(header::HOST, &url[Position::BeforeHost..Position::AfterPort])
            .header(header::USER_AGENT, concat!("scoregate/", env!("CARGO_PKG_VERSION")));
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(body)).map_err(because("the URL makes no request"))?;
        let mut connection = self.connection(url).await?;
        let exchange = tokio::time::timeout(ANSWER_TIMEOUT, exchange(&mut connection.sender, request));
        let answer = exchange.await.unwrap_or_else(|_| {
            Err(HttpError(format!("no answer within {} seconds", ANSWER_TIMEOUT.as_secs())))
        })?;
        self.connection = Some(connection);
        Ok(answer)
    }

    /// The one that is open if it leads there, or a new one.
    async fn connection(&mut self, url: &Url) -> Result<Connection, HttpError> {
        let origin = &url[..Position::BeforePath];
        if let Some(mut open) = self.connection.take()
            && open.origin == origin
            && open.sender.ready().await.is_ok()
        {
            return Ok(open);
        }
        let sender = tokio::time::timeout(CONNECT_TIMEOUT, self.connect(url)).await.unwrap_or_else(|_| {
            Err(HttpError(format!("no connection within {} seconds", CONNECT_TIMEOUT.as_secs())))
        })?;
        Ok(Connection { origin: origin.to_owned(), sender })
    }

    async fn connect(&mut self, url: &Url) -> Result<SendRequest<Full<Bytes>>, HttpError> {
        let tls = match url.scheme() {
            "https" => Some(self.tls().await?),
            _ => None,
        };
        let port = url.port_or_known_default().unwrap_or(443);
        let tcp = match url.host() {
            Some(Host::Domain(name)) => TcpStream::connect((name, port)).await,
            Some(Host::Ipv4(ip)) => TcpStream::connect((ip, port)).await,
            Some(Host::Ipv6(ip)) => TcpStream::connect((ip, port)).await,
            None => return Err(HttpError("the URL names no host".to_owned())),
        };
        let tcp = tcp.map_err(because("connecting failed"))?;
        tcp.set_nodelay(true).map_err(because("connecting failed"))?;
        match tls {
            None => open(tcp).await,
            Some(tls) => {
                let connect = TlsConnector::from(tls.config).connect(server_name(url)?, tcp);
                let stream = connect.await.map_err(because("TLS handshake failed"));
                if stream.is_err() {
                    self.tls = None;
                }
                open(stream?).await
            }
        }
    }

    async fn tls(&mut self) -> Result<ClientTls, HttpError> {
        if let Some(tls) = &self.tls {
            return Ok(tls.clone());
        }
        let trust = self.trust.clone();
        let made = tokio::task::spawn_blocking(move || client_config(&trust)).await;
        let tls = made.map_err(because("TLS cannot be set up"))?.map_err(because("TLS cannot be set up"))?;
        Ok(self.tls.insert(tls).clone())
    }
}

fn server_name(url: &Url) -> Result<ServerName<'static>, HttpError> {
    match url.host() {
        Some(Host::Domain(name)) => {
            ServerName::try_from(name.to_owned()).map_err(because("the URL's host is no server name"))
        }
        Some(Host::Ipv4(ip)) => Ok(ServerName::from(IpAddr::V4(ip))),
        Some(Host::Ipv6(ip)) => Ok(ServerName::from(IpAddr::V6(ip))),
        None => Err(HttpError("the URL names no host".to_owned())),
    }
}

async fn open<S>(stream: S) -> Result<SendRequest<Full<Bytes>>, HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) =
        handshake(TokioIo::new(stream)).await.map_err(because("the connection failed"))?;
    lifecycle::spawn("exporter connection", async move {
        // Whoever waits for the answer is told the same error.
        let _ = connection.await;
    });
    Ok(sender)
}

async fn exchange(
    sender: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<Answer, HttpError> {
    let response = sender.send_request(request).await.map_err(because("the exchange failed"))?;
    let (head, body) = response.into_parts();
    let body = Limited::new(body, MAX_ANSWER)
        .collect()
        .await
        .map_err(|error| HttpError(format!("reading the answer failed: {error}")))?;
    Ok(Answer { status: head.status, headers: head.headers, body: body.to_bytes() })
}

fn because<E: fmt::Display>(what: &'static str) -> impl Fn(E) -> HttpError {
    move |error| HttpError(format!("{what}: {error}"))
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
