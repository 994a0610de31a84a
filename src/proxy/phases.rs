//! The steps of every call, in the order they are taken.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Response, header};
use http_body::Body as _;

use crate::catalog::{AtExpiry, Endpoint, Methods, UnknownDeployment};
use crate::error::{Error, Kind};
use crate::route::{Host, Target};
use crate::upstream::Special;
use crate::wire::{Body, Handshake};

use super::body::{self, Pace};
use super::context::{AnswerForm, Exchange};
use super::headers::DEPLOYMENT;
use super::worker::WorkerSnapshot;
use super::{
    ConnectionFacts, Deployment, Inbound, Service, Snapshot, TlsFacts, Worker, collect, forward, grpc,
    mirror, respond,
};

/// An answer before the gateway's own fields are set.
pub(super) enum Answer {
    /// The replica's.
    Model(Response<Body>),
    /// The gateway's own to a CORS preflight.
    Preflight(Response<Body>),
}

/// Takes one call through all steps.
pub(super) async fn run(
    worker: &Rc<Worker>,
    connection: &ConnectionFacts,
    exchange: &mut Exchange,
    inbound: &mut Inbound<'_>,
) -> Result<Answer, Error> {
    let snapshot = worker.snapshot();
    if inbound.method == Method::CONNECT {
        // Its target is no path: nothing below could make sense of it.
        check_method(&inbound.method, Methods::GetAndPost)?;
    }
    // One canonical form first: every later step sees the same path and host.
    let target = Target::parse(inbound.target.clone())?;
    let (service, endpoint, target) =
        route(&snapshot, connection, exchange, inbound.authority.as_ref(), target)?;
    allow_origin(service, exchange, &inbound.headers);
    if let Some(preflight) = preflight(service, inbound) {
        return Ok(Answer::Preflight(preflight));
    }
    check_method(&inbound.method, endpoint.methods())?;
    // The rest of what can be refused without reading the body comes after the caller is known, so that a stranger
    // learns nothing about limits or deployments.
    let admitted = service.authenticator.authenticate(&inbound.headers, exchange.record.time).await?;
    exchange.record.principal = admitted.principal;
    if service.settings.at_expiry == AtExpiry::Cut {
        exchange.hold_to(admitted.grant);
    }
    check_sizes(service, inbound)?;
    let special = special(service, exchange, inbound)?;
    if let Some(rates) = &service.rates {
        rates.take(exchange.caller())?;
    }

    let deployment = choose_deployment(service, exchange, &inbound.headers)?;
    let path = deployment.paths.upstream(endpoint, &target)?;
    let wait = take_place((service, deployment), exchange, &mut inbound.body).await?;
    let newest = (wait == Wait::Some).then(|| worker.snapshot());
    let deployment = newest.as_ref().map_or(deployment, |newest| as_it_is_now(newest, service, deployment));
    let named = inbound.headers.contains_key(DEPLOYMENT);
    let mut request = forward::request(connection, exchange, service, path, inbound);
    if let Some(special) = special {
        request.extensions_mut().insert(special);
    } else {
        if let Some(settings) = &service.settings.collect {
            collect::begin(worker, exchange, (service, settings, endpoint), &mut request);
        }
        if service.mirror.is_some() && !named {
            let original = mirror::Original { deployment, endpoint, target: &target };
            mirror::copy(worker, exchange, &original, &mut request);
        }
    }
    let answer = forward::forward(worker, exchange, (service, deployment), request, inbound.interim).await?;
    exchange.check_grant()?;
    Ok(Answer::Model(answer))
}

impl TlsFacts {
    /// Refuses a host that this connection was not made for: the client named another one in its handshake, and that
    /// other one has another certificate (RFC 9110 15.5.20).
    ///
    /// # Errors
    /// [`Kind::Misdirected`].
    pub fn check_authority(&self, host: &Host) -> Result<(), Error> {
        match self.server_name.as_deref() {
            None => Ok(()),
            Some(name) if name == host.as_str() => Ok(()),
            Some(name) if self.certificates.same_certificate(Some(name), host.as_str()) => Ok(()),
            Some(_) => Err(Error::new(
                Kind::Misdirected,
                "this connection was made for another host, which has a certificate of its own; open a new one",
            )),
        }
    }
}

/// The service, what is wanted of it, and the target under it.
fn route<'a>(
    snapshot: &'a WorkerSnapshot,
    connection: &ConnectionFacts,
    exchange: &mut Exchange,
    authority: Option<&HeaderValue>,
    target: Target,
) -> Result<(&'a Service, Endpoint, Target), Error> {
    let host = Host::parse(authority.map_or(b"", HeaderValue::as_bytes))?;
    if let Some(tls) = &connection.tls {
        tls.check_authority(&host)?;
    }
    let routed = snapshot.routes.find(&host, &target)?;
    exchange.serve_by(snapshot, routed.service);
    let endpoint = routed.endpoint?;
    exchange.answer.methods = endpoint.methods();
    Ok((&snapshot.services[routed.service], endpoint, target.under(routed.prefix)))
}

fn allow_origin(service: &Service, exchange: &mut Exchange, headers: &HeaderMap) {
    if let (Some(cors), Some(origin)) = (&service.cors, headers.get(header::ORIGIN)) {
        exchange.answer.allowed_origin = cors.allows(origin);
    }
}

fn preflight(service: &Service, inbound: &Inbound<'_>) -> Option<Response<Body>> {
    let cors = service.cors.as_ref()?;
    is_preflight(&inbound.method, &inbound.headers).then(|| respond::preflight(cors))
}

/// Whether a browser asks with this call if it may make another one (Fetch standard, 3.2.2).
#[must_use]
pub fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::OPTIONS
        && headers.contains_key(header::ORIGIN)
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// Lets pass what the endpoint takes.
///
/// # Errors
/// [`Kind::MethodNotAllowed`].
pub fn check_method(method: &Method, allowed: Methods) -> Result<(), Error> {
    if allowed.allow(method.as_str()) {
        return Ok(());
    }
    let message = match allowed {
        Methods::GetAndPost => "services take GET and POST only",
        Methods::Get => "this path takes GET only",
        Methods::Post => "this path takes POST only",
    };
    Err(Error::new(Kind::MethodNotAllowed, message))
}

fn check_sizes(service: &Service, inbound: &Inbound<'_>) -> Result<(), Error> {
    let limit = service.settings.limits.header_bytes;
    if inbound.head_bytes > limit {
        let size = inbound.head_bytes;
        return Err(Error::new(
            Kind::HeadersTooLarge,
            format!("the request head is {size} bytes; this service takes {limit} (limits.header_bytes)"),
        ));
    }
    let limit = service.settings.limits.body_bytes;
    match inbound.body.size_hint().exact() {
        Some(size) if size > limit => Err(Error::new(
            Kind::BodyTooLarge,
            format!("the request body is {size} bytes; this service takes {limit} (limits.body_bytes)"),
        )),
        _ => Ok(()),
    }
}

/// What the replica is to know of a call that is more than a request and then an answer.
fn special(
    service: &Service,
    exchange: &Exchange,
    inbound: &mut Inbound<'_>,
) -> Result<Option<Special>, Error> {
    match exchange.answer.form {
        AnswerForm::Grpc => Ok(Some(grpc::prepare(&mut inbound.headers))),
        AnswerForm::Http if inbound.websocket && service.settings.websocket => {
            let handshake = Handshake::of_request(&inbound.headers);
            let handshake = handshake.map_err(|flaw| Error::new(Kind::Malformed, flaw.0))?;
            Ok(Some(Special::WebSocket(handshake)))
        }
        AnswerForm::Http => Ok(None),
    }
}

/// The deployment that the caller names, or else the one whose turn it is.
fn choose_deployment<'a>(
    service: &'a Service,
    exchange: &mut Exchange,
    headers: &HeaderMap,
) -> Result<&'a Deployment, Error> {
    let named = headers.get(DEPLOYMENT);
    let found = named.and_then(|named| {
        let mut all = service.deployments.iter();
        all.find(|deployment| deployment.name.as_bytes() == named.as_bytes())
    });
    let deployment = match found {
        Some(deployment) => deployment,
        None if named.is_some() && service.settings.split.unknown == UnknownDeployment::Refuse => {
            return Err(unknown_deployment());
        }
        None => share_out(service, headers).ok_or_else(no_traffic)?,
    };
    exchange.record.deployment = Some(Arc::clone(&deployment.name));
    exchange.answer.deployment = Some(deployment.header.clone());
    Ok(deployment)
}

/// The deployment whose turn it is, or the one that keeps calls with the same value of the service's header.
fn share_out<'a>(service: &'a Service, headers: &HeaderMap) -> Option<&'a Deployment> {
    let sticky = service.settings.split.sticky.as_ref().and_then(|name| headers.get(name));
    let place = match sticky {
        Some(value) => service.split.pick_for(value.as_bytes()),
        None => service.split.pick(),
    };
    place.map(|place| &service.deployments[place])
}

/// What a caller is told who names a deployment that the service does not have.
#[must_use]
pub fn unknown_deployment() -> Error {
    Error::new(
        Kind::UnknownDeployment,
        "the service has no deployment of the name in azureml-model-deployment",
    )
}

/// What a caller is told who names no deployment where none has a share of the traffic.
#[must_use]
pub fn no_traffic() -> Error {
    Error::new(Kind::UnknownDeployment, "the service has no deployment with traffic")
}

/// Whether a call had to wait before it had its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    None,
    Some,
}

/// Gets the call its place. A body that is still to come has to begin before that, so that nobody holds a place while his
/// body does not come; nothing more of it is read while the call waits.
async fn take_place(
    (service, deployment): (&Service, &Deployment),
    exchange: &mut Exchange,
    body: &mut Body,
) -> Result<Wait, Error> {
    if body.is_buffered() {
        return admit(deployment, exchange).await;
    }
    if let Err(refused) = deployment.admission.check_room(exchange.caller()) {
        // Before a client that asks first is told to go on.
        exchange.record.queue = Some(Duration::ZERO);
        return Err(refused);
    }
    let pace = match exchange.answer.form {
        AnswerForm::Http => Pace::Steady,
        AnswerForm::Grpc => Pace::Free,
    };
    body::prepare(body, pace, service, exchange.request_meter()).await?;
    admit(deployment, exchange).await?;
    Ok(Wait::Some)
}

async fn admit(deployment: &Deployment, exchange: &mut Exchange) -> Result<Wait, Error> {
    if let Some(permit) = deployment.admission.try_admit() {
        exchange.record.queue = Some(Duration::ZERO);
        exchange.hold_place(permit);
        return Ok(Wait::None);
    }
    exchange.begin_wait();
    let admitted = deployment.admission.admit(exchange.caller()).await;
    exchange.end_wait();
    exchange.hold_place(admitted?);
    Ok(Wait::Some)
}

/// The deployment in the `newest` snapshot, for a call that has waited: its place may be one of replicas that have come
/// meanwhile, and others may have gone. One that is there no more serves the calls that it has let in.
fn as_it_is_now<'a>(newest: &'a Snapshot, service: &Service, deployment: &'a Deployment) -> &'a Deployment {
    let service = newest.service(service.settings.name.as_str());
    let mut all = service.into_iter().flat_map(|service| &service.deployments);
    all.find(|now| Arc::ptr_eq(&now.admission, &deployment.admission)).unwrap_or(deployment)
}
