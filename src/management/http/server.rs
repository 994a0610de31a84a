//! The management port: TLS always, HTTP/1.1 and HTTP/2 by ALPN, and a bound on everything that a client can hold.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::Response;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_rustls::server::TlsStream;
use tower_service::Service as _;

use crate::lifecycle::{self, Phase, PhaseReceiver};
use crate::listener::{Alpn, handshake};
use crate::tls::ServerTls;

/// Connections at once; further ones wait to be accepted.
const MAX_CONNECTIONS: usize = 256;
/// Longest TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for a request head on HTTP/1.1, and so the longest rest between two requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// A connection without a call for one to two of these is brought to an end.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest life of a connection: what a client holds by reading nothing, it does not hold for ever.
const LIFETIME: Duration = Duration::from_secs(600);
/// How long a connection that is being brought to an end may finish its calls; no call takes longer.
const GRACE: Duration = Duration::from_secs(35);
/// How long the rest of a refused body is read and thrown away, so that the client gets to read the refusal: closing with
/// unread data resets the connection (RFC 9112 section 9.6).
const LINGER: Duration = Duration::from_secs(2);
/// Largest request head, and HTTP/2 header list, in bytes.
const MAX_HEAD: usize = 32 * 1024;
/// Calls at once on one HTTP/2 connection.
const MAX_STREAMS: u32 = 64;

/// What is served, and how.
pub struct Server {
    /// All routes.
    pub router: Router,
    /// Certificates in force; a reload swaps them.
    pub tls: Arc<ArcSwap<ServerTls>>,
    /// Ends the server.
    pub phases: PhaseReceiver,
}

impl Server {
    /// Serves until the drain begins, then lets calls in flight finish. Returns when no connection is left, or at
    /// [`Phase::Cut`], when those that are left have been cut.
    pub async fn serve(self, listener: TcpListener) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let draining = reached(self.phases.clone(), Phase::Draining);
        tokio::select! {
            () = self.accept(&listener, &places) => {}
            () = draining => {}
        }
        drop(listener);
        let all = u32::try_from(MAX_CONNECTIONS).unwrap_or(u32::MAX);
        tokio::select! {
            _ = places.acquire_many(all) => {}
            () = reached(self.phases.clone(), Phase::Cut) => {}
        }
    }

    async fn accept(&self, listener: &TcpListener, places: &Arc<Semaphore>) {
        loop {
            // Closed by nobody.
            let Ok(place) = Arc::clone(places).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((tcp, client)) => {
                    let connection = Connection {
                        client,
                        router: self.router.clone(),
                        calls: Arc::default(),
                        phases: self.phases.clone(),
                        _place: place,
                    };
                    let config = Arc::clone(&self.tls.load().config);
                    lifecycle::spawn("management connection", async move {
                        let deadline = Instant::now() + HANDSHAKE_TIMEOUT;
                        match handshake(tcp, config, deadline).await {
                            Ok(established) => match established.alpn {
                                Alpn::H1 => connection.http1(*established.stream).await,
                                Alpn::H2 => connection.http2(*established.stream).await,
                            },
                            Err(error) => {
                                tracing::debug!(%client, %error, "management port: no TLS connection")
                            }
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "management port: accept failed");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

/// Waits until `phase` or a later one; the end of the process's phases counts.
async fn reached(mut phases: PhaseReceiver, phase: Phase) {
    let _ = phases.wait_for(|now| *now >= phase).await;
}

/// One client's connection.
struct Connection {
    client: SocketAddr,
    router: Router,
    calls: Arc<Calls>,
    phases: PhaseReceiver,
    _place: OwnedSemaphorePermit,
}

/// The calls of one connection.
#[derive(Default)]
struct Calls {
    begun: AtomicUsize,
    in_flight: AtomicUsize,
}

/// Counts one call until it is answered or given up.
struct CallGuard(Arc<Calls>);

impl Drop for CallGuard {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Calls {
    fn begin(self: &Arc<Self>) -> CallGuard {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        CallGuard(Arc::clone(self))
    }

    /// Resolves after a whole [`IDLE_TIMEOUT`] without any call.
    async fn idle(&self) {
        let mut begun_before = self.begun.load(Ordering::Relaxed);
        loop {
            tokio::time::sleep(IDLE_TIMEOUT).await;
            let begun = self.begun.load(Ordering::Relaxed);
            if begun == begun_before && self.in_flight.load(Ordering::Relaxed) == 0 {
                return;
            }
            begun_before = begun;
        }
    }
}

impl Connection {
    async fn http1(self, stream: TlsStream<TcpStream>) {
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(stream), self.service());
        let ending = self.ending();
        let served = {
            let mut ending = pin!(ending);
            let mut ending_begun = false;
            let mut grace = pin!(tokio::time::sleep(LIFETIME + GRACE));
            std::future::poll_fn(|cx| {
                if !ending_begun && ending.as_mut().poll(cx).is_ready() {
                    ending_begun = true;
                    Pin::new(&mut connection).graceful_shutdown();
                    grace.as_mut().reset(Instant::now() + GRACE);
                }
                if grace.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(false);
                }
                connection.poll_without_shutdown(cx).map(|served| served.is_ok())
            })
            .await
        };
        if served {
            linger(connection.into_parts().io.into_inner()).await;
        }
    }

    async fn http2(self, stream: TlsStream<TcpStream>) {
        let connection = http2::Builder::new(Streams)
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEAD as u32)
            .keep_alive_interval(HEAD_TIMEOUT)
            .keep_alive_timeout(HANDSHAKE_TIMEOUT)
            .serve_connection(TokioIo::new(stream), self.service());
        let mut connection = pin!(connection);
        tokio::select! {
            _ = connection.as_mut() => return,
            () = self.ending() => {}
        }
        connection.as_mut().graceful_shutdown();
        let _ = tokio::time::timeout(GRACE, connection).await;
    }

    /// Resolves when the connection is to be brought to an end.
    async fn ending(&self) {
        tokio::select! {
            () = self.calls.idle() => {}
            () = tokio::time::sleep(LIFETIME) => {}
            () = reached(self.phases.clone(), Phase::Draining) => {}
        }
    }

    fn service(
        &self,
    ) -> impl hyper::service::Service<
        Request<Incoming>,
        Response = Response,
        Error = Infallible,
        Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>,
    > + Unpin
    + use<> {
        let (router, calls, client) = (self.router.clone(), Arc::clone(&self.calls), self.client);
        hyper::service::service_fn(move |request: Request<Incoming>| {
            let call = calls.begin();
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(ConnectInfo(client));
            let answer = router.clone().call(request);
            let answer: Pin<Box<dyn Future<Output = _> + Send>> = Box::pin(async move {
                let answer = answer.await;
                drop(call);
                answer
            });
            answer
        })
    }
}

/// Says goodbye and reads what the client still sends, for a while.
async fn linger(mut stream: TlsStream<TcpStream>) {
    let goodbye = async {
        stream.shutdown().await?;
        let mut thrown_away = [0; 8 * 1024];
        while stream.read(&mut thrown_away).await? > 0 {}
        Ok::<_, std::io::Error>(())
    };
    // A client that is gone or goes on for ever is no event.
    let _ = tokio::time::timeout(LINGER, goodbye).await;
}

/// Runs the calls of HTTP/2 connections.
#[derive(Clone, Copy)]
struct Streams;

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, call: F) {
        lifecycle::spawn("management call", call);
    }
}
