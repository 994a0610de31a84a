//! One call to a replica: choose it, write the request as it should see it, and try again where nothing was sent.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use http::uri::PathAndQuery;
use http::{HeaderMap, Request, Response, Uri};

use crate::error::Error;
use crate::upstream::{AttemptOutcome, Balancing, Choice, Connection, stable_hash};
use crate::wire::Body;

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
    let per_replica = deployment.admission.per_replica();
    let hash = hash(deployment, request.headers());
    // Empty, and so without an allocation, but for calls that failed somewhere.
    let mut tried = Vec::new();
    let mut last_error = None;
    loop {
        let guard = match deployment.replicas.pick(&Choice { hash, tried: &tried, per_replica }) {
            Ok(guard) => guard,
            Err(error) => return Err(last_error.unwrap_or(error)),
        };
        let replica = guard.replica();
        exchange.record.attempts += 1;
        exchange.record.replica = Some(Arc::clone(replica.label()));
        let may_retry = exchange.record.attempts < MOST_ATTEMPTS;
        let started = Instant::now();
        let upstream: Connection = match worker.pools.connection(replica, deadlines).await {
            Ok(upstream) => upstream,
            Err(error) => {
                replica.report(AttemptOutcome::ConnectFailed);
                if !may_retry || deployment.replicas.members().len() == 1 {
                    return Err(error);
                }
                tried.push(Arc::clone(replica));
                last_error = Some(error);
                continue;
            }
        };
        exchange.record.connect = upstream.connect_time();
        if upstream.connect_time().is_some() {
            replica.report(AttemptOutcome::Connected);
        }
        headers::set_host(request.headers_mut(), replica.host_header());
        match upstream.send(request, deadlines).await {
            Ok(response) => {
                replica.report(AttemptOutcome::Answered(response.status()));
                exchange.record.first_byte = Some(started.elapsed());
                exchange.hold_replica(guard);
                return Ok(response);
            }
            Err(failed) => match failed.unsent {
                // A pooled connection that closed at the moment of use says nothing about the replica.
                Some(unsent) if may_retry => request = *unsent,
                _ => {
                    if let Some(outcome) = AttemptOutcome::of_failure(failed.error.kind) {
                        replica.report(outcome);
                    }
                    return Err(failed.error);
                }
            },
        }
    }
}

/// What keeps calls together, where the deployment is balanced by that.
fn hash(deployment: &Deployment, headers: &HeaderMap) -> Option<u64> {
    match &deployment.replicas.settings().policy {
        Balancing::Hash(name) => headers.get(name).map(|value| stable_hash(value.as_bytes())),
        Balancing::LeastBusy | Balancing::RoundRobin => None,
    }
}

/// The request as the replica is to see it; takes fields and body out of `inbound`.
pub(super) fn request(
    connection: &ConnectionFacts,
    exchange: &Exchange,
    service: &Service,
    path: PathAndQuery,
    inbound: &mut Inbound,
) -> Request<Body> {
    let mut request = Request::new(std::mem::take(&mut inbound.body));
    *request.method_mut() = inbound.method.clone();
    *request.uri_mut() = Uri::from(path);
    let headers = request.headers_mut();
    *headers = std::mem::take(&mut inbound.headers);
    headers::prepare_request(headers, connection, exchange, service.authenticator.mode());
    headers::set_forwarded_host(headers, inbound.authority.take());
    request
}
