//! One call to a replica: choose it, write the request as it should see it, and try again where nothing was sent.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{Request, Response, Uri};

use crate::catalog::Endpoint;
use crate::error::{Error, Kind};
use crate::route::Target;
use crate::upstream::{Connection, Replica};
use crate::wire::{Body, Interim};

use super::body::{Pace, RequestBody};
use super::context::{AnswerForm, Exchange};
use super::{ConnectionFacts, Deployment, Inbound, Service, Worker, headers};

/// Attempts of one call at most. Only attempts that sent nothing are followed by another.
const MOST_ATTEMPTS: u32 = 3;

/// Has `request` answered by a replica of the deployment.
pub(super) async fn forward(
    worker: &Rc<Worker>,
    exchange: &mut Exchange,
    deployment: &Deployment,
    mut request: Request<Body>,
    interim: &dyn Interim,
) -> Result<Response<Body>, Error> {
    let deadlines = &deployment.deadlines;
    let mut last_failed = None;
    loop {
        let replica = pick(&deployment.replicas, last_failed.as_ref());
        exchange.record.attempts += 1;
        exchange.record.replica = Some(Arc::clone(replica.label()));
        exchange.hold_replica(replica.start_call());
        let may_retry = exchange.record.attempts < MOST_ATTEMPTS;
        let started = Instant::now();
        let upstream: Connection = match worker.pools.connection(replica, deadlines).await {
            Ok(upstream) => upstream,
            Err(_) if may_retry && deployment.replicas.len() > 1 => {
                last_failed = Some(Arc::clone(replica));
                continue;
            }
            Err(error) => return Err(error),
        };
        exchange.record.connect = upstream.connect_time();
        headers::set_host(request.headers_mut(), replica.host_header());
        match upstream.send_for(request, deadlines, &headers::PassedOn(interim)).await {
            Ok(response) => {
                exchange.record.first_byte = Some(started.elapsed());
                return Ok(response);
            }
            Err(failed) => match failed.unsent {
                Some(unsent) if may_retry => request = *unsent,
                _ => return Err(failed.error),
            },
        }
    }
}

/// The less busy of two replicas taken at random (the power of two choices), passing over the one that just failed.
fn pick<'a>(replicas: &'a [Arc<Replica>], failed: Option<&Arc<Replica>>) -> &'a Arc<Replica> {
    let draw = || {
        let place = fastrand::usize(..replicas.len());
        let is_failed = failed.is_some_and(|failed| Arc::ptr_eq(failed, &replicas[place]));
        &replicas[if is_failed { (place + 1) % replicas.len() } else { place }]
    };
    if replicas.len() == 1 {
        return &replicas[0];
    }
    let (one, other) = (draw(), draw());
    if one.in_flight() <= other.in_flight() { one } else { other }
}

/// The request as the replica is to see it; takes fields and body out of `inbound`.
pub(super) fn request(
    connection: &ConnectionFacts,
    exchange: &Exchange,
    (service, deployment): (&Service, &Deployment),
    (endpoint, target): (Endpoint, &Target),
    inbound: &mut Inbound<'_>,
) -> Result<Request<Body>, Error> {
    let pace = match exchange.answer.form {
        AnswerForm::Http => Pace::Steady,
        AnswerForm::Grpc => Pace::Free,
    };
    let body = std::mem::take(&mut inbound.body);
    let body = RequestBody::wrap(body, service, exchange.request_meter(), pace);
    let mut request = Request::new(body);
    *request.method_mut() = inbound.method.clone();
    *request.uri_mut() = upstream_uri(deployment.paths.of(endpoint), target)?;
    let headers = request.headers_mut();
    *headers = std::mem::take(&mut inbound.headers);
    headers::prepare_request(headers, connection, exchange, service.authenticator.mode());
    headers::set_forwarded_host(headers, inbound.authority.take());
    Ok(request)
}

/// The container's own path with the caller's query.
fn upstream_uri(path: &PathAndQuery, target: &Target) -> Result<Uri, Error> {
    let query = target.query_with_mark();
    if query.is_empty() {
        return Ok(Uri::from(path.clone()));
    }
    let mut whole = Vec::with_capacity(path.as_str().len() + query.len());
    whole.extend_from_slice(path.as_str().as_bytes());
    whole.extend_from_slice(query);
    PathAndQuery::from_maybe_shared(Bytes::from(whole))
        .map(Uri::from)
        .map_err(|e| Error::new(Kind::Malformed, "the query is not acceptable").with_detail(e))
}
