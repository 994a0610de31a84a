//! Clients that send what a test says and no more: raw HTTP/1 over TLS or plain, and HTTP/2 by hyper.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::ServerName;
use scoregate::tls::{ClientAlpn, ClientTlsSource, client_config};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::in_time;

/// What a gateway answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Lower-case names; repeated fields are joined by `, `.
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
}

impl Answer {
    /// A header's value, or nothing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The word in `x-scoregate-reason`.
    pub fn reason(&self) -> &str {
        self.header("x-scoregate-reason")
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By a goodbye: whoever reads until the end takes what came for the whole.
    Clean,
    /// By a reset, or under TLS without `close_notify`: nobody takes it for the whole.
    Cut,
}

/// One HTTP/1 connection under a test's full control.
pub struct Connection {
    stream: Box<dyn Stream>,
    received: Vec<u8>,
}

impl Connection {
    /// Without TLS.
    pub async fn plain(address: SocketAddr) -> Self {
        let tcp = TcpStream::connect(address).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        Self { stream: Box::new(tcp), received: Vec::new() }
    }

    /// Over TLS, with `name` as SNI.
    pub async fn tls(address: SocketAddr, name: &str, ca: &Path) -> Self {
        let tls = handshake(address, name, ca, ClientAlpn::Http1).await.unwrap();
        Self { stream: Box::new(tls), received: Vec::new() }
    }

    /// Over a stream that is there.
    pub fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        Self { stream: Box::new(stream), received: Vec::new() }
    }

    /// Sends bytes as they are.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// Sends bytes; a gateway that has closed already is no failure of the test.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).await.is_ok() && self.stream.flush().await.is_ok()
    }

    /// Ends the sending side.
    pub async fn finish(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    /// Reads one whole answer; interim ones are skipped.
    pub async fn answer(&mut self) -> Answer {
        self.try_answer().await.expect("the gateway closed without an answer")
    }

    /// Reads one whole answer; `None` if the gateway closes before its head.
    pub async fn try_answer(&mut self) -> Option<Answer> {
        loop {
            let head = self.head().await?;
            let (status, headers) = parse_head(&head);
            if (100..200).contains(&status) {
                continue;
            }
            let body = self.body(status, &headers).await;
            return Some(Answer { status, headers, body });
        }
    }

    /// Reads the answer to a HEAD request, which is a head whatever its fields say.
    pub async fn answer_to_head(&mut self) -> Answer {
        let head = self.head().await.expect("the gateway closed without an answer");
        let (status, headers) = parse_head(&head);
        Answer { status, headers, body: Vec::new() }
    }

    /// Reads one head, interim or final, as text.
    pub async fn head(&mut self) -> Option<String> {
        let end = loop {
            if let Some(end) = find(&self.received, b"\r\n\r\n") {
                break end;
            }
            if !self.read_some().await {
                return None;
            }
        };
        let head: Vec<u8> = self.received.drain(..end + 4).collect();
        Some(String::from_utf8(head).unwrap())
    }

    /// Reads exactly `count` bytes that follow.
    pub async fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.received.len() < count {
            assert!(
                self.read_some().await,
                "the gateway closed after {} of {count} bytes",
                self.received.len()
            );
        }
        self.received.drain(..count).collect()
    }

    /// Reads until the gateway closes; gives what came. An unclean end counts as an end.
    pub async fn rest(&mut self) -> Vec<u8> {
        self.ending().await.0
    }

    /// Reads until the gateway closes; gives what came and how it closed.
    pub async fn ending(&mut self) -> (Vec<u8>, End) {
        let mut buffer = [0; 16 * 1024];
        let end = loop {
            match in_time("the gateway closes", self.stream.read(&mut buffer)).await {
                Ok(0) => break End::Clean,
                Ok(read) => self.received.extend_from_slice(&buffer[..read]),
                Err(_) => break End::Cut,
            }
        };
        (std::mem::take(&mut self.received), end)
    }

    /// Reads one chunk of a chunked body; empty: the last one, without its trailers.
    pub async fn chunk(&mut self) -> Vec<u8> {
        let line = self.line().await;
        let size = usize::from_str_radix(&line, 16).unwrap();
        let data = self.bytes(size).await;
        assert_eq!(self.bytes(2).await, b"\r\n");
        data
    }

    async fn body(&mut self, status: u16, headers: &HashMap<String, String>) -> Vec<u8> {
        if status == 204 || status == 304 {
            return Vec::new();
        }
        if let Some(length) = headers.get("content-length") {
            return self.bytes(length.parse().unwrap()).await;
        }
        if headers.get("transfer-encoding").is_some_and(|coding| coding == "chunked") {
            return self.chunks().await;
        }
        self.rest().await
    }

    async fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let line = self.line().await;
            let size = usize::from_str_radix(&line, 16).unwrap();
            if size == 0 {
                while !self.line().await.is_empty() {}
                return body;
            }
            body.extend(self.bytes(size).await);
            assert_eq!(self.bytes(2).await, b"\r\n");
        }
    }

    async fn line(&mut self) -> String {
        let end = loop {
            if let Some(end) = find(&self.received, b"\r\n") {
                break end;
            }
            assert!(self.read_some().await, "the gateway closed within a chunked body");
        };
        let line: Vec<u8> = self.received.drain(..end + 2).collect();
        String::from_utf8(line[..end].to_vec()).unwrap()
    }

    async fn read_some(&mut self) -> bool {
        self.received.reserve(16 * 1024);
        let read = self.stream.read_buf(&mut self.received);
        matches!(in_time("the gateway sends", read).await, Ok(read) if read > 0)
    }
}

/// One HTTP/2 connection by the `h2` crate, whose streams a test drives itself: data, trailers, resets, windows.
pub async fn h2_streams(
    address: SocketAddr,
    name: &str,
    ca: &Path,
    builder: &h2::client::Builder,
) -> h2::client::SendRequest<Bytes> {
    let tls = handshake(address, name, ca, ClientAlpn::Http2).await.unwrap();
    let (requests, connection) = builder.handshake(tls).await.unwrap();
    tokio::spawn(connection);
    requests.ready().await.unwrap()
}

/// One HTTP/2 connection; clones share it.
#[derive(Clone)]
pub struct H2 {
    requests: http2::SendRequest<Full<Bytes>>,
    authority: String,
}

impl H2 {
    /// Connects with `name` as SNI and authority.
    pub async fn connect(address: SocketAddr, name: &str, ca: &Path) -> Self {
        let tls = handshake(address, name, ca, ClientAlpn::Http2).await.unwrap();
        Self::over(tls, &format!("{name}:{}", address.port())).await
    }

    /// Over a handshake that is done.
    pub async fn over(tls: tokio_rustls::client::TlsStream<TcpStream>, authority: &str) -> Self {
        assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (requests, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await.unwrap();
        tokio::spawn(connection);
        Self { requests, authority: authority.to_owned() }
    }

    /// A request to `path` of this connection's authority.
    pub fn request(&self, method: &str, path: &str) -> http::request::Builder {
        Request::builder().method(method).uri(format!("https://{}{path}", self.authority))
    }

    /// A POST of `body` to the score path of `service` with `key`.
    pub fn score_request(&self, service: &str, key: &str, body: &'static str) -> Request<Full<Bytes>> {
        self.request("POST", &format!("/api/v1/service/{service}/score"))
            .header("authorization", format!("Bearer {key}"))
            .body(Full::new(Bytes::from_static(body.as_bytes())))
            .unwrap()
    }

    /// A POST of `body` to the score path of `service` with `key`, answered.
    pub async fn score(&mut self, service: &str, key: &str, body: &'static str) -> Answer {
        self.call(self.score_request(service, key, body)).await
    }

    /// Whether the connection is at its end.
    pub fn is_closed(&self) -> bool {
        self.requests.is_closed()
    }

    /// Sends a request; the answer's body is still to come.
    pub async fn start(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> hyper::Result<Response<hyper::body::Incoming>> {
        self.requests.ready().await?;
        self.requests.send_request(request).await
    }

    /// Sends a request and reads the whole answer.
    pub async fn call(&mut self, request: Request<Full<Bytes>>) -> Answer {
        let (parts, body) = self.start(request).await.unwrap().into_parts();
        let headers = parts.headers.iter();
        let headers =
            headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap_or("?").to_owned()));
        let (status, headers) = (parts.status.as_u16(), headers.collect());
        Answer { status, headers, body: body.collect().await.unwrap().to_bytes().to_vec() }
    }
}

pub(super) async fn handshake(
    address: SocketAddr,
    name: &str,
    ca: &Path,
    alpn: ClientAlpn,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let source = ClientTlsSource { ca: Some(ca.to_owned()), certificate: None, alpn };
    let client = client_config(&source).unwrap();
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    TlsConnector::from(Arc::clone(&client.config))
        .connect(ServerName::try_from(name.to_owned()).unwrap(), tcp)
        .await
}

fn parse_head(head: &str) -> (u16, HashMap<String, String>) {
    let mut lines = head.trim_end().split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let mut headers: HashMap<String, String> = HashMap::new();
    for line in lines {
        let (name, value) = line.split_once(':').unwrap();
        let values = headers.entry(name.to_ascii_lowercase()).or_default();
        if !values.is_empty() {
            values.push_str(", ");
        }
        values.push_str(value.trim());
    }
    (status, headers)
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
