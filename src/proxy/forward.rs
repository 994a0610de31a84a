//! One call to a replica: choose it, write the request as it should see it, and try again where that is right.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderMap, Request, Response, Uri};
use tokio::time::Instant;

use crate::error::{Error, Kind};
use crate::upstream::{AttemptOutcome, Balancing, Choice, Deadlines, InFlightGuard, Replica, stable_hash};
use crate::wire::{Body, Interim};

use super::context::Exchange;
use super::retry::{Attempts, Failed, Then};
use super::{ConnectionFacts, Deployment, Inbound, Service, Worker, headers};

/// Has `request` answered by a replica of the deployment.
pub(super) async fn forward(
    worker: &Rc<Worker>,
    exchange: &mut Exchange,
    (service, deployment): (&Service, &Deployment),
    mut request: Request<Body>,
    interim: &dyn Interim,
) -> Result<Response<Body>, Error> {
    let choice = choice(deployment, request.headers());
    let mut attempts = Attempts::begin(service, &deployment.deadlines, &mut request);
    loop {
        let choice = Choice { tried: attempts.tried(), ..choice };
        let guard = match deployment.replicas.pick(&choice) {
            Err(error) if error.kind == Kind::QueueFull => wait_for_room(deployment, exchange, &choice).await,
            picked => picked,
        };
        let guard = guard.map_err(|error| attempts.last_error_or(error))?;
        let replica = Arc::clone(guard.replica());
        attempts.count();
        exchange.hold_replica(guard);
        let started = Instant::now();
        exchange.begin_attempt(replica.label(), started.into_std());
        headers::set_trace_parent(request.headers_mut(), exchange.span(exchange.record.attempts));
        let waits = (attempts.deadlines(), started);
        let failed = match attempt(worker, &replica, request, waits, &headers::PassedOn(interim)).await {
            Ok(sent) => {
                exchange.record.connect = sent.connect;
                if !attempts.takes_for_failure(sent.response.status()) {
                    exchange.record.first_byte = Some(started.elapsed());
                    return Ok(sent.response);
                }
                Failed::Answered(sent.response)
            }
            Err(failed) => failed,
        };
        let end = failed.end();
        match attempts.after((replica, &deployment.replicas), started, failed, &worker.metrics) {
            Then::Again(again) => {
                exchange.end_attempt(end);
                exchange.release_replica();
                request = again;
            }
            Then::Stands(failed) => {
                if let Failed::Answered(_) = failed {
                    exchange.record.first_byte = Some(started.elapsed());
                }
                return failed.into_outcome();
            }
        }
    }
}

/// A place stands for room at some replica. Where that one has just gone, the call waits for another's as long as it may.
async fn wait_for_room(
    deployment: &Deployment,
    exchange: &mut Exchange,
    choice: &Choice<'_>,
) -> Result<InFlightGuard, Error> {
    exchange.begin_wait();
    let picked = deployment.admission.wait_for_room(|| deployment.replicas.pick(choice)).await;
    exchange.end_wait();
    picked
}

/// What the choice of a replica for a call with `headers` depends on, before it was tried.
pub(super) fn choice(deployment: &Deployment, headers: &HeaderMap) -> Choice<'static> {
    let hash = match &deployment.replicas.settings().policy {
        Balancing::Hash(name) => headers.get(name).map(|value| stable_hash(value.as_bytes())),
        Balancing::LeastBusy | Balancing::RoundRobin => None,
    };
    Choice { hash, tried: &[], per_replica: deployment.admission.per_replica() }
}

/// An attempt that was answered.
pub(super) struct Sent {
    /// The answer's body is still to come.
    pub response: Response<Body>,
    /// How long it took to connect; `None` if there was a connection.
    pub connect: Option<Duration>,
}

/// One attempt at `replica`, begun at `started`; the replica hears how it went, and `interim` what it says before its answer.
pub(super) async fn attempt(
    worker: &Worker,
    replica: &Arc<Replica>,
    mut request: Request<Body>,
    (deadlines, started): (&Deadlines, Instant),
    interim: &dyn Interim,
) -> Result<Sent, Failed> {
    worker.pools.advance(started);
    let connection = match worker.pools.connection(replica, deadlines).await {
        Ok(connection) => connection,
        Err(error) => {
            replica.report(AttemptOutcome::ConnectFailed);
            return Err(Failed::Connect(error, request));
        }
    };
    let connect = connection.connect_time();
    if connect.is_some() {
        replica.report(AttemptOutcome::Connected);
    }
    headers::set_host(request.headers_mut(), replica.host_header());
    match connection.send_for(request, deadlines, interim).await {
        Ok(response) => {
            replica.report(AttemptOutcome::Answered(response.status()));
            Ok(Sent { response, connect })
        }
        Err(failed) => match failed.unsent {
            // A pooled connection that closed at the moment of use says nothing about the replica.
            Some(unsent) => Err(Failed::Unsent(failed.error, *unsent)),
            None => {
                if let Some(outcome) = AttemptOutcome::of_failure(failed.error.kind) {
                    replica.report(outcome);
                }
                Err(Failed::Sent(failed.error))
            }
        },
    }
}

/// The request as the replica is to see it; takes fields and body out of `inbound`.
pub(super) fn request(
    connection: &ConnectionFacts,
    exchange: &Exchange,
    service: &Service,
    path: PathAndQuery,
    inbound: &mut Inbound<'_>,
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
