//! HTTP/2 to a replica: hyper's client over one connection per worker and replica, which all calls share.

use std::cell::{Cell, RefCell};
use std::error::Error as _;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri, Version, header};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::Instant;

use super::pool::ReplicaPool;
use super::replica::Replica;
use super::settings::Deadlines;
use super::{SendError, connect, first_byte_timeout, idle_timeout, protocol_violation, reset};
use crate::error::{Error, Kind};
use crate::wire::Body;
use crate::wire::deadline::Deadline;
use crate::wire::framing::permitted_trailers;

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
        let call = Call::new();
        let upload = Upload { body, call: Rc::clone(&call.0) };
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
        let answer =
            Answer { incoming, call, deadline: Deadline::new(), deadlines: *deadlines, home: self.home };
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
    Request::from_parts(parts, upload.body)
}

/// Waits for the answer's head, as long as the replica may take for it.
async fn first_byte<T>(
    answer: impl Future<Output = T>,
    call: &Call,
    deadlines: &Deadlines,
    home: &ReplicaPool,
) -> Result<T, Error> {
    let mut answer = pin!(answer);
    let mut deadline = Deadline::new();
    poll_fn(|cx| {
        if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
            return Poll::Ready(Ok(answer));
        }
        loop {
            // Looked at anew each time: hyper sends the request without our taking part.
            let until = call.waiting_since() + deadlines.first_byte;
            if !deadline.is_set() {
                deadline.set(until);
            }
            ready!(deadline.poll_expired(cx));
            if until <= Instant::now() {
                return Poll::Ready(Err(first_byte_timeout(deadlines, home.label())));
            }
            deadline.set(until);
        }
    })
    .await
}

/// What the two halves of a call tell each other: hyper's task pulls the request, the call's own waits for the answer.
struct CallState {
    sending: Cell<Sending>,
    failure: RefCell<Option<Error>>,
    /// Wakes hyper's task when it waits for the request's source.
    puller: Cell<Option<Waker>>,
}

#[derive(Clone, Copy)]
enum Sending {
    /// Moved on, or ended, at this time.
    Moved(Instant),
    /// Waits for its source.
    Starved,
    /// The call is over; what is not sent is not wanted any more.
    Abandoned,
}

/// A call's own half. When it goes, the sending of the request ends, too.
struct Call(Rc<CallState>);

impl Call {
    fn new() -> Self {
        Self(Rc::new(CallState {
            sending: Cell::new(Sending::Moved(Instant::now())),
            failure: RefCell::default(),
            puller: Cell::default(),
        }))
    }

    /// Since when the replica is what the call waits for: never yet, if the client's turn is now.
    fn waiting_since(&self) -> Instant {
        match self.0.sending.get() {
            Sending::Moved(at) => at,
            Sending::Starved | Sending::Abandoned => Instant::now(),
        }
    }

    /// Whose fault it is: the request's source has told, or it is the replica's.
    fn failure(&self, cause: &hyper::Error, home: &ReplicaPool) -> Error {
        if let Some(error) = self.0.failure.borrow_mut().take() {
            return error;
        }
        let h2 = cause.source().and_then(|source| source.downcast_ref::<h2::Error>());
        let detail = h2.map_or_else(|| cause.to_string(), ToString::to_string);
        if h2.is_some_and(h2::Error::is_library) {
            protocol_violation(home.label(), detail)
        } else {
            reset("the replica broke the call off", home.label(), detail)
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.0.sending.set(Sending::Abandoned);
        if let Some(puller) = self.0.puller.take() {
            puller.wake();
        }
    }
}

/// The request's body as hyper pulls it.
struct Upload {
    body: Body,
    call: Rc<CallState>,
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        if matches!(this.call.sending.get(), Sending::Abandoned) {
            let error = Error::new(Kind::ClientGone, "the call is over");
            return Poll::Ready(Some(Err(error)));
        }
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        match &polled {
            Poll::Pending => {
                this.call.sending.set(Sending::Starved);
                this.call.puller.set(Some(cx.waker().clone()));
            }
            Poll::Ready(Some(Err(error))) => {
                *this.call.failure.borrow_mut() = Some(error.clone());
            }
            Poll::Ready(_) => this.call.sending.set(Sending::Moved(Instant::now())),
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The answer's body; dropped before its end it resets the stream.
struct Answer {
    incoming: Incoming,
    call: Call,
    deadline: Deadline,
    deadlines: Deadlines,
    home: Rc<ReplicaPool>,
}

impl Answer {
    /// Whole if it is at hand, as small answers are, else to be pulled.
    async fn into_body(mut self) -> Result<Body, Error> {
        if self.incoming.is_end_stream() {
            return Ok(Body::empty());
        }
        let exact = self.incoming.size_hint().exact();
        let first = poll_fn(|cx| Poll::Ready(Pin::new(&mut self).poll_frame(cx))).await;
        let first = match first {
            Poll::Pending => return Ok(Body::stream(self)),
            Poll::Ready(None) => return Ok(Body::empty()),
            Poll::Ready(Some(frame)) => frame?,
        };
        match first.into_data() {
            Ok(data) if self.incoming.is_end_stream() && exact.is_none_or(|n| n == data.len() as u64) => {
                Ok(Body::full(data))
            }
            Ok(data) => Ok(Body::stream(Begun { first: Some(Frame::data(data)), rest: self })),
            Err(trailers) => Ok(Body::stream(Begun { first: Some(trailers), rest: self })),
        }
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        match Pin::new(&mut this.incoming).poll_frame(cx) {
            Poll::Ready(frame) => {
                this.deadline.clear();
                Poll::Ready(frame.map(|frame| match frame {
                    Ok(frame) => Ok(sift_trailers(frame)),
                    Err(cause) => Err(this.call.failure(&cause, &this.home)),
                }))
            }
            Poll::Pending => {
                if !this.deadline.is_set() {
                    this.deadline.set(Instant::now() + this.deadlines.idle);
                }
                ready!(this.deadline.poll_expired(cx));
                let error = idle_timeout(&this.deadlines, this.home.label());
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

fn sift_trailers(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(trailers) => Frame::<Bytes>::trailers(permitted_trailers(trailers)),
        Err(frame) => frame,
    }
}

/// An answer whose first frame was at hand, but not its end.
struct Begun {
    first: Option<Frame<Bytes>>,
    rest: Answer,
}

impl http_body::Body for Begun {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        match this.first.take() {
            Some(first) => Poll::Ready(Some(Ok(first))),
            None => Pin::new(&mut this.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let first = self.first.as_ref().and_then(Frame::data_ref).map_or(0, Bytes::len) as u64;
        match self.rest.size_hint().exact() {
            Some(rest) => SizeHint::with_exact(first + rest),
            None => SizeHint::default(),
        }
    }
}

/// Runs hyper's parts of a connection on the worker that owns it.
#[derive(Clone)]
struct LocalExecutor;

impl<F: Future + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}
