//! An issuer on loopback for tests: serves a key set, counts the fetches, and can be made to fail.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{ServerConfig, crypto::aws_lc_rs};

use super::super::settings::JwksSource;
use super::lock;

/// What the issuer does with a request.
#[derive(Clone)]
pub(in crate::auth) enum Answer {
    /// 200 with a length.
    Document(Vec<u8>),
    /// 200 in chunks.
    Chunked(Vec<u8>),
    /// No document.
    Status(u16),
    /// The connection ends in the middle of the document.
    Cut,
    /// No answer at all.
    Never,
}

/// A running issuer; it ends when dropped.
pub(in crate::auth) struct Issuer {
    address: SocketAddr,
    ca: Vec<CertificateDer<'static>>,
    state: Arc<State>,
    accepting: JoinHandle<()>,
}

struct State {
    answer: Mutex<Answer>,
    fetches: AtomicUsize,
}

impl Issuer {
    pub(in crate::auth) async fn start(document: &[u8]) -> Self {
        Self::serve(document, None).await
    }

    pub(in crate::auth) async fn start_tls(document: &[u8]) -> Self {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let chain = vec![made.cert.der().clone()];
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain.clone(), key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let mut issuer = Self::serve(document, Some(acceptor)).await;
        issuer.ca = chain;
        issuer
    }

    pub(in crate::auth) fn source(&self) -> JwksSource {
        let scheme = if self.ca.is_empty() { "http" } else { "https" };
        JwksSource::Url {
            url: format!("{scheme}://{}/keys?v=1", self.address).parse().unwrap(),
            ca: self.ca.clone(),
        }
    }

    pub(in crate::auth) fn ca(&self) -> &[CertificateDer<'static>] {
        &self.ca
    }

    pub(in crate::auth) fn answer(&self, answer: Answer) {
        *lock(&self.state.answer) = answer;
    }

    /// Requests so far.
    pub(in crate::auth) fn fetches(&self) -> usize {
        self.state.fetches.load(Ordering::SeqCst)
    }

    async fn serve(document: &[u8], tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            answer: Mutex::new(Answer::Document(document.to_vec())),
            fetches: AtomicUsize::new(0),
        });
        let shared = Arc::clone(&state);
        let accepting = tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                match &tls {
                    None => drop(tokio::spawn(connection(tcp, state))),
                    Some(tls) => {
                        let handshake = tls.accept(tcp);
                        drop(tokio::spawn(async move {
                            if let Ok(stream) = handshake.await {
                                connection(stream, state).await;
                            }
                        }));
                    }
                }
            }
        });
        Self { address, ca: Vec::new(), state, accepting }
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn connection<S>(stream: S, state: Arc<State>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let service = service_fn(|request| respond(request, Arc::clone(&state)));
    // Ends with an error when the test wants it so.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

type Body = BoxBody<Bytes, std::io::Error>;

async fn respond(request: Request<Incoming>, state: Arc<State>) -> Result<Response<Body>, Infallible> {
    assert_eq!(request.uri(), "/keys?v=1");
    state.fetches.fetch_add(1, Ordering::SeqCst);
    let answer = lock(&state.answer).clone();
    let in_frames = |frames: Vec<Result<Bytes, std::io::Error>>| {
        let frames = frames.into_iter().map(|frame| frame.map(Frame::data));
        BodyExt::boxed(StreamBody::new(stream::iter(frames)))
    };
    let whole = |bytes: Vec<u8>| Full::from(bytes).map_err(|never| match never {}).boxed();
    Ok(match answer {
        Answer::Document(bytes) => Response::new(whole(bytes)),
        Answer::Chunked(bytes) => {
            let (first, second) = bytes.split_at(bytes.len() / 2);
            let halves = [first, second].map(|half| Ok(Bytes::copy_from_slice(half)));
            Response::new(in_frames(halves.into()))
        }
        Answer::Status(status) => Response::builder()
            .status(status)
            .header("location", "/keys?v=1")
            .body(whole(Vec::new()))
            .unwrap(),
        Answer::Cut => {
            let broken = Err(std::io::Error::other("cut by the test"));
            Response::new(in_frames(vec![Ok(Bytes::from_static(b"{\"keys\":")), broken]))
        }
        Answer::Never => std::future::pending().await,
    })
}
