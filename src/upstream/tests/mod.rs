//! Calls over real sockets to replicas that follow a script.

mod h1;
mod h2;
mod pool;

use std::convert::Infallible;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::*;
use crate::error::Kind;

/// Long enough never to pass in a test that does not wait for it.
const DEADLINES: Deadlines = Deadlines {
    connect: Duration::from_secs(20),
    first_byte: Duration::from_secs(20),
    idle: Duration::from_secs(20),
};

const SOON: Duration = Duration::from_millis(20);

async fn listen(protocol: ReplicaProtocol) -> (TcpListener, Arc<Replica>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let replica = replica_at(listener.local_addr().unwrap().port(), protocol);
    (listener, replica)
}

fn replica_at(port: u16, protocol: ReplicaProtocol) -> Arc<Replica> {
    Replica::new(ReplicaSettings {
        origin: Origin { host: "127.0.0.1".into(), port },
        protocol,
        tls: None,
        policy: None,
    })
}

fn post(body: Body) -> Request<Body> {
    Request::post("/score?x=1").header("host", "iris.example").body(body).unwrap()
}

async fn call(
    pools: &Pools,
    replica: &Arc<Replica>,
    request: Request<Body>,
) -> Result<Response<Body>, Error> {
    let connection = pools.connection(replica, &DEADLINES).await?;
    let answer = connection.send(request, &DEADLINES).await;
    answer.map_err(|failure| failure.error)
}

/// The body and the trailers.
async fn read(response: Response<Body>) -> Result<(Bytes, Option<HeaderMap>), Error> {
    let collected = response.into_body().collect().await?;
    let trailers = collected.trailers().cloned();
    Ok((collected.to_bytes(), trailers))
}

async fn text(response: Response<Body>) -> Result<String, Error> {
    let (body, _) = read(response).await?;
    Ok(String::from_utf8(body.to_vec()).unwrap())
}

/// A body that comes piece by piece, of unknown length.
fn pieces(frames: impl IntoIterator<Item = Result<Frame<Bytes>, Error>> + 'static) -> Body {
    let frames: Vec<_> = frames.into_iter().collect();
    Body::stream(StreamBody::new(futures_util::stream::iter(frames)))
}

/// A body that is fed through the sender.
fn fed() -> (tokio::sync::mpsc::UnboundedSender<Result<Frame<Bytes>, Error>>, Body) {
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    let stream = futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|frame| (frame, receiver))
    });
    (sender, Body::stream(StreamBody::new(stream)))
}

fn data(text: &'static str) -> Result<Frame<Bytes>, Error> {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

/// Reads until what has come ends with `end`.
async fn read_until(socket: &mut TcpStream, end: &str) -> String {
    let mut read = Vec::new();
    while !read.ends_with(end.as_bytes()) {
        assert_ne!(socket.read_buf(&mut read).await.unwrap(), 0, "closed early");
    }
    String::from_utf8(read).unwrap()
}

/// Whether the peer closes, whatever it sends before.
async fn closes(socket: &mut TcpStream) {
    let mut read = vec![0; 64 * 1024];
    while !matches!(socket.read(&mut read).await, Ok(0) | Err(_)) {}
}
