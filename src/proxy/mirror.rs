//! Copies of calls to another deployment of the same service.
//!
//! The caller neither waits for a copy nor hears of it: a task of its own sends it, on the worker that has the call, once the
//! call's whole body has passed. Everything about it is bounded, and whatever cannot be done at once is not done: there is a
//! place among those under way or there is none, the body stays within its limit or it does not, the deployment has a free
//! place or it has not; each way is counted. A copy is one attempt and has no record of its own, and nothing tells the model
//! that it is one. At the end of the process copies are dropped where they are: the drain waits for calls, not for them.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request, Uri};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::time::Instant;

use crate::catalog::Endpoint;
use crate::error::Error;
use crate::lifecycle;
use crate::route::{Split, Target};
use crate::telemetry::metrics::Mirrored;
use crate::upstream::Special;
use crate::wire::Body;

use super::context::Exchange;
use super::forward::{attempt, choice};
use super::retry::Failed;
use super::worker::WorkerSnapshot;
use super::{Deployment, MirrorSettings, Service, Worker, headers};

/// Where copies of a service's calls go, and how many are under way.
#[derive(Debug)]
pub struct Mirror {
    settings: MirrorSettings,
    /// Share 1 is that of the copies.
    turns: Split,
    under_way: AtomicU32,
}

/// One of the copies that may be under way at once; given back on drop.
struct Place(Arc<Mirror>);

impl Mirror {
    /// No copy is under way.
    #[must_use]
    pub fn new(settings: MirrorSettings) -> Arc<Self> {
        let percent = settings.percent.min(100);
        Arc::new(Self {
            turns: Split::new(&[100 - percent, percent]),
            settings,
            under_way: AtomicU32::new(0),
        })
    }

    /// What it was made from.
    #[must_use]
    pub const fn settings(&self) -> &MirrorSettings {
        &self.settings
    }

    fn is_copied_now(&self) -> bool {
        self.turns.pick() == Some(1)
    }

    fn place(self: &Arc<Self>) -> Option<Place> {
        let most = self.settings.concurrent;
        let taken = self.under_way.try_update(Relaxed, Relaxed, |count| (count < most).then_some(count + 1));
        taken.is_ok().then(|| Place(Arc::clone(self)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Relaxed);
    }
}

/// The call that may be copied: where it goes and what it asks for there.
#[derive(Clone, Copy)]
pub(super) struct Original<'a> {
    pub deployment: &'a Deployment,
    pub endpoint: Endpoint,
    pub target: &'a Target,
}

/// Has `request` copied if the service wants it to be and its turn has come; the body is then one that keeps what passes.
/// Not for calls that name a deployment.
pub(super) fn copy(
    worker: &Rc<Worker>,
    exchange: &Exchange,
    original: &Original<'_>,
    request: &mut Request<Body>,
) {
    let Some((snapshot, place_of_service)) = exchange.served_by() else { return };
    let service = &snapshot.services[place_of_service];
    let Some(mirror) = &service.mirror else { return };
    // A call that is special, such as a WebSocket's, is a conversation: nobody could hold up the copy's end of it.
    let is_special = request.extensions().get::<Special>().is_some();
    if is_special || !is_scoring(original.endpoint, request.method()) {
        return;
    }
    let mut all = service.deployments.iter();
    let wanted = mirror.settings.deployment.as_str();
    let Some(place) = all.position(|deployment| &*deployment.name == wanted) else { return };
    let target = &service.deployments[place];
    // One that goes there anyway is not a turn.
    if std::ptr::eq(target, original.deployment) || !mirror.is_copied_now() {
        return;
    }
    let count = |outcome| service.metrics(&worker.metrics).mirrored(outcome);
    let limit = mirror.settings.body_bytes;
    if request.body().size_hint().exact().is_some_and(|size| size > limit as u64) {
        return count(Mirrored::TooLarge);
    }
    let Some(taken) = mirror.place() else { return count(Mirrored::Behind) };
    // The target has no path for it, so that there is nothing to copy to.
    let Ok(path) = target.paths.upstream(original.endpoint, original.target) else {
        return count(Mirrored::Failed);
    };
    let mut headers = request.headers().clone();
    // The call itself: it is what causes the copy, and a copy has no span of its own that anybody could look up.
    headers::set_trace_parent(&mut headers, exchange.span(0));
    let copy = Copy {
        worker: Rc::clone(worker),
        snapshot: Rc::clone(snapshot),
        service: place_of_service,
        deployment: place,
        method: request.method().clone(),
        uri: path.into(),
        headers,
        _taken: taken,
    };
    match request.body().try_clone() {
        Some(body) => copy.send_aside(body),
        None => {
            let body = std::mem::take(request.body_mut());
            let kept = BytesMut::new();
            *request.body_mut() = Body::stream(Copying { body, limit, kept, copy: Some(copy) });
        }
    }
}

/// Whether such a call may be copied. Health and description are no model's work; the streams of gRPC have no end that could
/// be waited for.
#[must_use]
pub fn is_scoring(endpoint: Endpoint, method: &Method) -> bool {
    match endpoint {
        Endpoint::Score => true,
        Endpoint::Open(_) => *method == Method::POST,
        Endpoint::Swagger | Endpoint::Health | Endpoint::Grpc => false,
    }
}

/// A request to be sent a second time, elsewhere.
struct Copy {
    worker: Rc<Worker>,
    snapshot: WorkerSnapshot,
    service: usize,
    deployment: usize,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    _taken: Place,
}

impl Copy {
    fn service(&self) -> &Service {
        &self.snapshot.services[self.service]
    }

    fn count(&self, outcome: Mirrored) {
        self.service().metrics(&self.worker.metrics).mirrored(outcome);
    }

    fn send_aside(self, body: Body) {
        lifecycle::spawn_local(async move {
            let outcome = self.send(body).await;
            self.count(outcome);
        });
    }

    async fn send(&self, body: Body) -> Mirrored {
        let deployment = &self.service().deployments[self.deployment];
        let Some(_permit) = deployment.admission.try_admit() else { return Mirrored::Busy };
        let mut request = Request::new(body);
        request.method_mut().clone_from(&self.method);
        request.uri_mut().clone_from(&self.uri);
        request.headers_mut().clone_from(&self.headers);
        let bound = bound(deployment);
        match tokio::time::timeout(bound, self.exchange(deployment, request)).await {
            Ok(Ok(())) => Mirrored::Sent,
            Ok(Err(error)) => {
                let (service, deployment) = (&self.service().settings.name, &deployment.name);
                tracing::debug!(%service, %deployment, %error, "a copy of a call failed");
                Mirrored::Failed
            }
            Err(_elapsed) => Mirrored::Failed,
        }
    }

    /// Sends it and reads the answer to its end.
    async fn exchange(&self, deployment: &Deployment, mut request: Request<Body>) -> Result<(), Error> {
        loop {
            let guard = deployment.replicas.pick(&choice(deployment, request.headers()))?;
            let replica = Arc::clone(guard.replica());
            let waits = (&deployment.deadlines, Instant::now());
            let sent = attempt(&self.worker, &replica, request, waits, &()).await;
            let mut answer = match sent {
                Ok(sent) => sent.response.into_body(),
                // Ends: each time a pooled connection is used up.
                Err(Failed::Unsent(_, unsent)) => {
                    request = unsent;
                    continue;
                }
                Err(failed) => return failed.into_outcome().map(drop),
            };
            while let Some(frame) = answer.frame().await {
                frame?;
            }
            return Ok(());
        }
    }
}

/// How long a copy may take in all, so that an answer without an end does not keep its place for ever.
fn bound(deployment: &Deployment) -> Duration {
    let waits = &deployment.deadlines;
    waits.connect + waits.first_byte + waits.idle
}

/// A body on its way to the call's own replica that keeps what passes, for the copy.
struct Copying {
    body: Body,
    limit: usize,
    kept: BytesMut,
    /// `None` when it is sent or given up.
    copy: Option<Copy>,
}

impl Copying {
    fn keep(&mut self, data: &[u8]) {
        if self.kept.len() + data.len() <= self.limit {
            self.kept.extend_from_slice(data);
        } else if let Some(copy) = self.copy.take() {
            self.kept = BytesMut::new();
            copy.count(Mirrored::TooLarge);
        }
    }

    fn send(&mut self) {
        if let Some(copy) = self.copy.take() {
            copy.send_aside(Body::full(std::mem::take(&mut self.kept).freeze()));
        }
    }
}

impl http_body::Body for Copying {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        if this.copy.is_none() {
            return polled;
        }
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    this.keep(data);
                }
                if this.body.is_end_stream() {
                    this.send();
                }
            }
            Poll::Ready(None) => this.send(),
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
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

impl Drop for Copying {
    fn drop(&mut self) {
        if let Some(copy) = self.copy.take() {
            copy.count(Mirrored::Incomplete);
        }
    }
}
