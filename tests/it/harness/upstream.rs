//! Upstreams that do what a test says, byte for byte.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// A request as it reached the upstream.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Number of the connection it came on, from 0.
    pub connection: usize,
    /// Request line and fields, as on the wire.
    pub head: String,
    /// The body, unchunked.
    pub body: Vec<u8>,
}

impl Seen {
    /// A header's value, or nothing; the name in any case.
    pub fn header(&self, name: &str) -> &str {
        let fields = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
            .next()
            .unwrap_or("")
    }

    /// Method and target.
    pub fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }
}

/// A server on a free port of 127.0.0.1; ends with the test's runtime.
pub struct Upstream {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    accepted: Arc<Mutex<usize>>,
}

impl Upstream {
    /// Answers each request, keep-alive, with 200 and the request's body.
    pub async fn echo() -> Self {
        Self::answering(|seen| ok(&seen.body)).await
    }

    /// Answers each request, keep-alive, with the bytes that `answer` makes of it.
    pub async fn answering(answer: impl Fn(&Seen) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let answer = Arc::new(answer);
        Self::serving(move |mut tcp, connection, log| {
            let answer = Arc::clone(&answer);
            async move {
                let mut buffer = Vec::new();
                while let Some(seen) = read_request(&mut tcp, &mut buffer, connection).await {
                    let bytes = answer(&seen);
                    log.lock().unwrap().push(seen);
                    if tcp.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
            }
        })
        .await
    }

    /// Answers the first request of each connection with `bytes` and closes.
    pub async fn once(bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref().to_vec();
        Self::serving(move |mut tcp, connection, log| {
            let bytes = bytes.clone();
            async move {
                if let Some(seen) = read_request(&mut tcp, &mut Vec::new(), connection).await {
                    log.lock().unwrap().push(seen);
                    let _ = tcp.write_all(&bytes).await;
                    let _ = tcp.shutdown().await;
                }
            }
        })
        .await
    }

    /// Answers the first request of each connection with `bytes`, and closes for a permit of the gate.
    pub async fn cut(bytes: impl AsRef<[u8]>) -> (Self, Arc<Semaphore>) {
        let bytes = bytes.as_ref().to_vec();
        let gate = Arc::new(Semaphore::new(0));
        let held = Arc::clone(&gate);
        let upstream = Self::serving(move |mut tcp, connection, log| {
            let (bytes, gate) = (bytes.clone(), Arc::clone(&held));
            async move {
                if let Some(seen) = read_request(&mut tcp, &mut Vec::new(), connection).await {
                    log.lock().unwrap().push(seen);
                    let _ = tcp.write_all(&bytes).await;
                    gate.acquire().await.unwrap().forget();
                }
            }
        });
        (upstream.await, gate)
    }

    /// Gives each call that comes by HTTP/2, over TLS if `tls` is given, to `answer`.
    pub async fn h2<F>(
        tls: Option<Arc<rustls::ServerConfig>>,
        answer: impl Fn(H2Request, H2Respond) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let answer = Arc::new(answer);
        Self::serving(move |tcp, _, _| {
            let (answer, tls) = (Arc::clone(&answer), tls.clone());
            async move {
                match tls {
                    Some(tls) => {
                        if let Ok(tls) = tokio_rustls::TlsAcceptor::from(tls).accept(tcp).await {
                            serve_h2(tls, answer).await;
                        }
                    }
                    None => serve_h2(tcp, answer).await,
                }
            }
        })
        .await
    }

    /// Echoes by HTTP/1.1 over TLS.
    pub async fn tls(config: Arc<rustls::ServerConfig>) -> Self {
        Self::serving(move |tcp, connection, log| {
            let config = Arc::clone(&config);
            async move {
                let Ok(mut tls) = tokio_rustls::TlsAcceptor::from(config).accept(tcp).await else { return };
                let mut buffer = Vec::new();
                while let Some(seen) = read_request(&mut tls, &mut buffer, connection).await {
                    let bytes = ok(&seen.body);
                    log.lock().unwrap().push(seen);
                    if tls.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
            }
        })
        .await
    }

    /// Answers each request, keep-alive, as [`echo`](Self::echo) does, but only for a permit of the gate.
    pub async fn held() -> (Self, Arc<Semaphore>) {
        let gate = Arc::new(Semaphore::new(0));
        let held = Arc::clone(&gate);
        let upstream = Self::serving(move |mut tcp, connection, log| {
            let gate = Arc::clone(&held);
            async move {
                let mut buffer = Vec::new();
                while let Some(seen) = read_request(&mut tcp, &mut buffer, connection).await {
                    let answer = ok(&seen.body);
                    log.lock().unwrap().push(seen);
                    gate.acquire().await.unwrap().forget();
                    if tcp.write_all(&answer).await.is_err() {
                        return;
                    }
                }
            }
        });
        (upstream.await, gate)
    }

    /// Waits until this many requests have arrived whole.
    pub async fn until_seen(&self, count: usize) {
        super::eventually(&format!("{count} requests upstream"), async || {
            (self.seen().len() >= count).then_some(())
        })
        .await;
    }

    /// Gives each connection, its number and the log of requests to `serve`.
    pub async fn serving<F, S>(serve: S) -> Self
    where
        S: Fn(TcpStream, usize, Arc<Mutex<Vec<Seen>>>) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let accepted = Arc::new(Mutex::new(0));
        let (log, count) = (Arc::clone(&seen), Arc::clone(&accepted));
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let connection = {
                    let mut count = count.lock().unwrap();
                    *count += 1;
                    *count - 1
                };
                tokio::spawn(serve(tcp, connection, Arc::clone(&log)));
            }
        });
        Self { address, seen, accepted }
    }

    /// The requests that arrived whole, in order.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> usize {
        *self.accepted.lock().unwrap()
    }
}

/// A call as it reached an HTTP/2 upstream.
pub type H2Request = http::Request<h2::RecvStream>;
/// Where its answer goes.
pub type H2Respond = h2::server::SendResponse<bytes::Bytes>;

async fn serve_h2<S, F>(io: S, answer: Arc<impl Fn(H2Request, H2Respond) -> F + Send + Sync + 'static>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let Ok(mut connection) = h2::server::handshake(io).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(answer(request, respond));
    }
}

/// A 200 with `body` that keeps the connection.
pub fn ok(body: &[u8]) -> Vec<u8> {
    let mut answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    answer.extend_from_slice(body);
    answer
}

/// Reads one request, chunked or with a length; `None` at the end of the connection.
pub async fn read_request(
    tcp: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
    connection: usize,
) -> Option<Seen> {
    let end = loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        fill(tcp, buffer).await?;
    };
    let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
    buffer.drain(..end);
    let mut seen = Seen { connection, head, body: Vec::new() };
    if seen.header("transfer-encoding").eq_ignore_ascii_case("chunked") {
        loop {
            let line = take_line(tcp, buffer).await?;
            let size = usize::from_str_radix(&line, 16).unwrap();
            let chunk = take(tcp, buffer, size).await?;
            if size == 0 {
                while !take_line(tcp, buffer).await?.is_empty() {}
                return Some(seen);
            }
            seen.body.extend(chunk);
            take(tcp, buffer, 2).await?;
        }
    }
    let length = seen.header("content-length").parse().unwrap_or(0);
    seen.body = take(tcp, buffer, length).await?;
    Some(seen)
}

async fn take(tcp: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>, count: usize) -> Option<Vec<u8>> {
    while buffer.len() < count {
        fill(tcp, buffer).await?;
    }
    Some(buffer.drain(..count).collect())
}

async fn take_line(tcp: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(end) = buffer.windows(2).position(|window| window == b"\r\n") {
            let line: Vec<u8> = buffer.drain(..end + 2).collect();
            return Some(String::from_utf8_lossy(&line[..end]).into_owned());
        }
        fill(tcp, buffer).await?;
    }
}

async fn fill(tcp: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> Option<()> {
    let mut bytes = [0; 16 * 1024];
    match tcp.read(&mut bytes).await {
        Ok(0) | Err(_) => None,
        Ok(read) => {
            buffer.extend_from_slice(&bytes[..read]);
            Some(())
        }
    }
}
