//! HTTP/2 to a replica: hyper's client over one connection per worker and replica, which all calls share.
//!
//! This file holds the connection and a call's course; `call` ties the request on its way to the wait for its answer,
//! `answer` is the body that comes back.

mod answer;
mod call;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use http::{Request, Response, Uri, Version, header};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::Instant;

use self::answer::Answer;
use self::call::{Call, Upload, first_byte};
use super::pool::ReplicaPool;
use super::replica::Replica;
use super::settings::Deadlines;
use super::{SendError, connect};
use crate::error::{Error, Kind};
use crate::wire::Body;

/// Bytes of one answer that the replica may send ahead of its reader.
const STREAM_WINDOW: u32 = 256 * 1024;

/// Bytes of all answers that the replica may send ahead of their readers.
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Bounds of an answer's head, as h2 counts it.
const MAX_HEAD_BYTES: u32 = 64 * 1024;

/// While calls are under way the connection is probed this often, and given up when no answer to that comes in
/// [`PING_TIMEOUT`]: all calls share it, so that one dead path would otherwise cost each of them its whole deadline.
const PING_INTERVAL: Duration = Duration::from_secs(20);

const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// The one connection of a worker to a replica, if it is open.
#[derive(Default)]
pub(super) struct Shared {
    open: RefCell<Option<Open>>,
    /// Held while connecting, so that calls that come meanwhile wait for that connection.
    connecting: tokio::sync::Mutex<()>,
}

struct Open {
    sender: SendRequest<Upload>,
    generation: u64,
    last_used: Instant,
}

/// The right to make one call on the shared connection.
pub(super) struct Lease {
    sender: SendRequest<Upload>,
    generation: u64,
    home: Rc<ReplicaPool>,
}

impl Shared {
    /// Gives the connection up if its last use was at a time for which `is_old` holds; calls under way go on.
    pub(super) fn close_if(&self, is_old: impl Fn(Instant) -> bool) {
        let mut open = self.open.borrow_mut();
        if open.as_ref().is_some_and(|open| is_old(open.last_used) || open.sender.is_closed()) {
            *open = None;
        }
    }

    /// Makes sure that no further call takes this connection.
    fn give_up(&self, generation: u64) {
        let mut open = self.open.borrow_mut();
        if open.as_ref().is_some_and(|open| open.generation == generation) {
            *open = None;
        }
    }

    fn open(&self, sender: SendRequest<Upload>, now: Instant) -> u64 {
        thread_local! {
            static GENERATION: Cell<u64> = const { Cell::new(0) };
        }
        let generation = GENERATION.get() + 1;
        GENERATION.set(generation);
        *self.open.borrow_mut() = Some(Open { sender, generation, last_used: now });
        generation
    }
}

impl Lease {
    /// A place on the open connection, if there is one.
    pub(super) fn of_open(home: &Rc<ReplicaPool>) -> Option<Self> {
        let mut open = home.h2().open.borrow_mut();
        let open = open.as_mut().filter(|open| !open.sender.is_closed())?;
        open.last_used = home.now();
        Some(Self { sender: open.sender.clone(), generation: open.generation, home: Rc::clone(home) })
    }

    /// Connects, unless another call has just done so.
    pub(super) async fn of_new(home: Rc<ReplicaPool>, replica: &Replica) -> Result<Self, Error> {
        let turn = home.h2().connecting.lock().await;
        if let Some(lease) = Self::of_open(&home) {
            return Ok(lease);
        }
        let io = connect::dial(replica).await?;
        let (sender, connection) = Builder::new(LocalExecutor)
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(MAX_HEAD_BYTES)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .handshake(TokioIo::new(io))
            .await
            .map_err(|cause| {
                let detail = format_args!("{}: {cause}", replica.label()).to_string();
                Error::new(Kind::ConnectFailed, "the HTTP/2 handshake with the replica failed")
                    .with_detail(detail)
            })?;
        // Ends by itself when the connection does, which is when the last sender and the last call are gone.
        crate::lifecycle::spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "HTTP/2 connection to a replica ended");
            }
        });
        let generation = home.h2().open(sender.clone(), home.now());
        drop(turn);
        Ok(Self { sender, generation, home })
    }

    /// See [`super::Connection::send`].
    pub(super) async fn send(
        mut self,
        request: Request<Body>,
        deadlines: &Deadlines,
    ) -> Result<Response<Body>, SendError> {
        let (mut parts, body) = request.into_parts();
        let (target, host) = (parts.uri.clone(), parts.headers.remove(header::HOST));
        parts.uri = absolute(&target, host.as_ref(), &self.home)?;
        parts.version = Version::HTTP_2;
        parts.headers.remove(header::CONTENT_LENGTH);
        let call = Call::new(parts.extensions.get());
        let upload = call.upload(body);
        let answer = self.sender.try_send_request(Request::from_parts(parts, upload));
        let answer = match first_byte(answer, &call, deadlines, &self.home).await? {
            Ok(answer) => answer,
            Err(mut failure) => {
                let error = call.failure(failure.error(), &self.home);
                let unsent = failure.take_message().map(|request| {
                    self.home.h2().give_up(self.generation);
                    Box::new(restore(request, target, host))
                });
                return Err(SendError { error, unsent });
            }
        };
        let (mut parts, incoming) = answer.into_parts();
        parts.headers.remove(header::CONTENT_LENGTH);
        let answer = Answer::new(incoming, call, *deadlines, self.home);
        Ok(Response::from_parts(parts, answer.into_body().await?))
    }
}

/// HTTP/2 has the host in the target (RFC 9113 8.3.1).
fn absolute(target: &Uri, host: Option<&http::HeaderValue>, home: &ReplicaPool) -> Result<Uri, Error> {
    let authority = host.map_or(home.label().as_bytes(), http::HeaderValue::as_bytes);
    let path = target.path_and_query().map_or("/", |path| path.as_str());
    Uri::builder().scheme(home.scheme().clone()).authority(authority).path_and_query(path).build().map_err(
        |cause| Error::new(Kind::Internal, "the request cannot be put into HTTP/2").with_detail(cause),
    )
}

fn restore(request: Request<Upload>, target: Uri, host: Option<http::HeaderValue>) -> Request<Body> {
    let (mut parts, upload) = request.into_parts();
    parts.uri = target;
    parts.version = Version::HTTP_11;
    if let Some(host) = host {
        parts.headers.insert(header::HOST, host);
    }
    Request::from_parts(parts, upload.into_body())
}

/// Runs hyper's parts of a connection on the worker that owns it.
#[derive(Clone)]
struct LocalExecutor;

impl<F: Future + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        crate::lifecycle::spawn_local(async move {
            future.await;
        });
    }
}
