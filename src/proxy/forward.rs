//! One call to a replica: choose it, write the request as it should see it, and try again where nothing was sent.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use http::uri::PathAndQuery;
use http::{Request, Response, Uri};

use crate::error::Error;
use crate::upstream::{Connection, Replica};
use crate::wire::Body;

use super::body::RequestBody;
use super::context::Exchange;
use super::{ConnectionFacts, Deployment, Inbound, Service, Worker, headers};

/// Attempts of one call at most. Only attempts that sent nothing are followed by another.
const MOST_ATTEMPTS: u32 = 3;

/// Has `request` answered by a replica of the deployment.
pub(super) async fn forward(
    worker: &Rc<Worker>,
    exchange: &mut Exchange,
    deployment: &Deployment,
    mut request: Request<Body>,
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
        match upstream.send(request, deadlines).await {
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

/// The request for `path` of the container, as the replica is to see it; takes fields and body out of `inbound`.
pub(super) fn request(
    connection: &ConnectionFacts,
    exchange: &Exchange,
    service: &Service,
    path: PathAndQuery,
    inbound: &mut Inbound,
) -> Request<Body> {
    let body = RequestBody::wrap(std::mem::take(&mut inbound.body), service, exchange.request_meter());
    let mut request = Request::new(body);
    *request.method_mut() = inbound.method.clone();
    *request.uri_mut() = Uri::from(path);
    let headers = request.headers_mut();
    *headers = std::mem::take(&mut inbound.headers);
    headers::prepare_request(headers, connection, exchange, service.authenticator.mode());
    headers::set_forwarded_host(headers, inbound.authority.take());
    request
}
