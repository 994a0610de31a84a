//! One POST at a time to a collector, over a connection that stays open in between.

use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use url::{Host, Position, Url};

use crate::lifecycle;
use crate::tls::{ClientAlpn, ClientTls, ClientTlsSource, client_config};

/// Look-up, TCP and TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// From the first byte sent to the last byte of the answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Largest answer: a line per refused item.
const MAX_ANSWER: usize = 1024 * 1024;
/// Longest piece of an answer that the log repeats, in characters.
pub(super) const MAX_ECHO: usize = 200;

/// Whether what is sent to `url` crosses the network unencrypted.
pub(super) fn is_plain(url: &Url) -> bool {
    let loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    };
    url.scheme() == "http" && !loopback
}

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
    sender: Sender,
    /// Ends with it, so that a dead peer leaves no task behind.
    _driver: Driver,
}

/// Hands requests to the connection, in the protocol that the client was made for.
enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// The task that moves a connection's bytes, as long as this lives.
struct Driver(JoinHandle<()>);

/// Runs what hyper's HTTP/2 client wants to be run beside the connection.
#[derive(Clone)]
struct Streams;

/// The whole of an answer.
pub(super) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// What came behind the body.
    pub trailers: HeaderMap,
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
        let request = match self.trust.alpn {
            ClientAlpn::Http1 => Request::post(&url[Position::BeforePath..Position::AfterQuery])
                .header(header::HOST, &url[Position::BeforeHost..Position::AfterPort]),
            ClientAlpn::Http2 => Request::post(&url[..Position::AfterQuery]),
        };
        let mut request =
            request.header(header::USER_AGENT, concat!("scoregate/", env!("CARGO_PKG_VERSION")));
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
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, self.connect(url));
        let (sender, driver) = connecting.await.unwrap_or_else(|_| {
            Err(HttpError(format!("no connection within {} seconds", CONNECT_TIMEOUT.as_secs())))
        })?;
        Ok(Connection { origin: origin.to_owned(), sender, _driver: driver })
    }

    async fn connect(&mut self, url: &Url) -> Result<(Sender, Driver), HttpError> {
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
            None => open(tcp, self.trust.alpn).await,
            Some(tls) => {
                let connect = TlsConnector::from(tls.config).connect(server_name(url)?, tcp);
                let stream = connect.await.map_err(because("TLS handshake failed"));
                if stream.is_err() {
                    self.tls = None;
                }
                open(stream?, self.trust.alpn).await
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

async fn open<S>(stream: S, protocol: ClientAlpn) -> Result<(Sender, Driver), HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed = because("the connection failed");
    match protocol {
        ClientAlpn::Http1 => {
            let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
            Ok((Sender::Http1(sender), Driver::of(connection)))
        }
        ClientAlpn::Http2 => {
            let (sender, connection) =
                http2::handshake(Streams, TokioIo::new(stream)).await.map_err(failed)?;
            Ok((Sender::Http2(sender), Driver::of(connection)))
        }
    }
}

impl Sender {
    async fn ready(&mut self) -> hyper::Result<()> {
        match self {
            Self::Http1(sender) => sender.ready().await,
            Self::Http2(sender) => sender.ready().await,
        }
    }
}

impl Driver {
    fn of(connection: impl Future<Output = hyper::Result<()>> + Send + 'static) -> Self {
        Self(lifecycle::spawn("exporter connection", async move {
            // Whoever waits for the answer is told the same error.
            let _ = connection.await;
        }))
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, stream: F) {
        lifecycle::spawn("exporter stream", stream);
    }
}

async fn exchange(sender: &mut Sender, request: Request<Full<Bytes>>) -> Result<Answer, HttpError> {
    let response = match sender {
        Sender::Http1(sender) => sender.send_request(request).await,
        Sender::Http2(sender) => sender.send_request(request).await,
    };
    let (head, body) = response.map_err(because("the exchange failed"))?.into_parts();
    let body = Limited::new(body, MAX_ANSWER)
        .collect()
        .await
        .map_err(|error| HttpError(format!("reading the answer failed: {error}")))?;
    let trailers = body.trailers().cloned().unwrap_or_default();
    Ok(Answer { status: head.status, headers: head.headers, body: body.to_bytes(), trailers })
}

impl Answer {
    /// `Retry-After` in both of its forms (RFC 9110, section 10.2.3).
    pub(super) fn retry_after(&self) -> Option<Duration> {
        retry_after(&self.headers, SystemTime::now())
    }
}

fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    match value.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => Some(httpdate::parse_http_date(value).ok()?.duration_since(now).unwrap_or_default()),
    }
}

/// What of an answer's text the log may repeat.
pub(super) fn echo(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_ECHO).collect()
}

fn because<E: fmt::Display>(what: &'static str) -> impl Fn(E) -> HttpError {
    move |error| HttpError(format!("{what}: {error}"))
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Tue, 24 Nov 2026 10:00:00 GMT").unwrap();
        for (value, expected) in [
            ("7", Some(7)),
            (" 7 ", Some(7)),
            ("Tue, 24 Nov 2026 10:00:09 GMT", Some(9)),
            ("Tue, 24 Nov 2026 09:00:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, HeaderValue::from_str(value).unwrap());
            assert_eq!(retry_after(&headers, now), expected.map(Duration::from_secs), "{value}");
        }
    }
}
