//! The exchange: what is known of one call while it is under way, and the guard that leaves its record behind.

mod attempts;

use std::cell::Cell;
use std::net::IpAddr;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Instant, SystemTime};

use http::{HeaderMap, HeaderValue};
use http_body::Body as _;

use crate::auth::Grant;
use crate::catalog::{Methods, Profile};
use crate::error::{EndedBy, Error, Kind, Reason};
use crate::lifecycle::Phase;
use crate::limit::{Permit, PrincipalId};
use crate::telemetry::record::{Principal, Record, RequestId, RequestUrl};
use crate::telemetry::{InFlight, InTunnel};
use crate::upstream::InFlightGuard;
use crate::wire::deadline::Deadline;

use super::collect::Collecting;
use super::usage::UsageWatch;
use super::validity::Validity;
use super::worker::WorkerSnapshot;
use super::{ConnectionFacts, Inbound, Service, Worker, grpc, headers};

/// One call, from its head to its last byte. However it ends (answered, cancelled, cut, panicked), dropping this
/// writes its one record, unless that was [written ahead](Self::record_ahead).
pub(super) struct Exchange {
    /// The facts so far. Phases set them; only the end writes them.
    pub record: Record,
    /// What the answer's head carries whoever makes it.
    pub answer: AnswerFacts,
    progress: Progress,
    /// The record is written: what happens yet is not in it.
    is_recorded: bool,
    worker: Rc<Worker>,
    started: Instant,
    /// While an attempt is under way.
    attempt_began: Option<Instant>,
    answered: Option<Instant>,
    /// While the call waits for a place.
    waits_since: Option<Instant>,
    request_bytes: Rc<Cell<u64>>,
    served_by: Option<ServedBy>,
    /// Only for services that cut answers.
    validity: Option<Box<Validity>>,
    /// When the answer must have ended; only for services with `limits.answer_timeout`.
    answer_end: Option<Box<Deadline>>,
    /// Only for services of the OpenAI profile.
    usage: Option<Box<UsageWatch>>,
    /// Only for calls whose input or output is collected.
    pub collecting: Option<Box<Collecting>>,
    held: Held,
}

/// How far the exchange has come; decides what its end means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// No answer yet: an end now means that the caller left or the process cut the call.
    Waiting,
    /// The answer's head is out: an end now leaves a cut answer.
    Answering,
    /// Nothing more to come; reason and status stand.
    Done,
}

/// The service that the call found, in the snapshot that the call began with.
struct ServedBy {
    // Before the snapshot: counts that nobody holds any more may be added to others.
    #[expect(dead_code, reason = "held for its drop")]
    in_flight: InFlight,
    snapshot: WorkerSnapshot,
    service: usize,
}

impl ServedBy {
    fn service(&self) -> &Service {
        &self.snapshot.services[self.service]
    }
}

/// Places taken in the name of this call, given back with it.
#[derive(Default)]
struct Held {
    // Before the place: whoever gets that next must find room at a replica.
    replica: Option<InFlightGuard>,
    place: Option<Permit>,
}

/// What the answer's head carries whoever makes it.
pub(super) struct AnswerFacts {
    /// The request's id.
    pub request_id: HeaderValue,
    /// The origin that may read the answer (CORS).
    pub allowed_origin: Option<HeaderValue>,
    /// The deployment that answered.
    pub deployment: Option<HeaderValue>,
    /// How a refusal is written.
    pub form: AnswerForm,
    /// The methods of what was asked for.
    pub methods: Methods,
}

/// How the caller wants to be told that the gateway refuses its call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AnswerForm {
    /// By status and body.
    Http,
    /// By the status of gRPC: the call is one.
    Grpc,
}

impl Exchange {
    /// Begins the exchange of `inbound`.
    pub fn begin(worker: &Rc<Worker>, connection: &ConnectionFacts, inbound: &Inbound<'_>) -> Box<Self> {
        let mut exchange = Self::nameless(worker, connection);
        if inbound.body.is_buffered() {
            exchange.request_bytes.set(inbound.body.size_hint().exact().unwrap_or_default());
        }
        if grpc::is_call(inbound.version, &inbound.headers) {
            exchange.answer.form = AnswerForm::Grpc;
        }
        let record = &mut exchange.record;
        record.method = Some(inbound.method.clone());
        record.user_agent = inbound.headers.get(http::header::USER_AGENT).cloned();
        record.url.authority = inbound.authority.clone();
        record.url.path_and_query = inbound.target.clone();
        record.protocol = inbound.version;
        record.client_request_id = headers::client_request_id(&inbound.headers);
        record.parent = headers::trace_parent(&inbound.headers);
        exchange
    }

    /// Begins the exchange of a call whose head could not be read.
    pub fn nameless(worker: &Rc<Worker>, connection: &ConnectionFacts) -> Box<Self> {
        let request_id = RequestId::new();
        Box::new(Self {
            record: Record {
                method: None,
                user_agent: None,
                compute_type: None,
                url: RequestUrl { tls: connection.tls.is_some(), ..RequestUrl::default() },
                status: STATUS_CLIENT_GONE,
                request_id,
                time: SystemTime::now(),
                duration: std::time::Duration::ZERO,
                service: None,
                deployment: None,
                replica: None,
                auth: None,
                principal: Principal::Anonymous,
                model_status: None,
                reason: Reason::ClientGone,
                ended_by: EndedBy::Client,
                attempts: 0,
                request_bytes: 0,
                response_bytes: 0,
                client_request_id: None,
                parent: None,
                tries: Vec::new(),
                client_address: connection.client.ip(),
                protocol: http::Version::HTTP_11,
                queue: None,
                connect: None,
                first_byte: None,
                stream: None,
                usage: None,
            },
            answer: AnswerFacts {
                request_id: headers::id_value(&request_id),
                allowed_origin: None,
                deployment: None,
                form: AnswerForm::Http,
                methods: Methods::GetAndPost,
            },
            progress: Progress::Waiting,
            is_recorded: false,
            worker: Rc::clone(worker),
            started: Instant::now(),
            attempt_began: None,
            answered: None,
            waits_since: None,
            request_bytes: Rc::new(Cell::new(0)),
            served_by: None,
            validity: None,
            answer_end: None,
            usage: None,
            collecting: None,
            held: Held::default(),
        })
    }

    /// The call has found its service.
    pub fn serve_by(&mut self, snapshot: &WorkerSnapshot, place: usize) {
        let service = &snapshot.services[place];
        self.record.service = Some(service.settings.name.shared());
        self.record.compute_type = Some(service.settings.compute_type);
        self.record.auth = Some(service.authenticator.mode());
        let in_flight = service.metrics(&self.worker.metrics).start();
        self.served_by = Some(ServedBy { snapshot: Rc::clone(snapshot), service: place, in_flight });
    }

    /// The service that the call found.
    pub fn service(&self) -> Option<&Service> {
        self.served_by.as_ref().map(ServedBy::service)
    }

    /// The snapshot that the call began with, and the service's place in it.
    pub fn served_by(&self) -> Option<(&WorkerSnapshot, usize)> {
        self.served_by.as_ref().map(|by| (&by.snapshot, by.service))
    }

    /// From now on the call lasts only as long as what let the caller in.
    pub fn hold_to(&mut self, grant: Grant) {
        if let Some(by) = &self.served_by {
            let generation = by.snapshot.generation;
            self.validity = Some(Box::new(Validity::new(grant, generation, &self.worker)));
        }
    }

    /// The answer is the gateway's own: nobody's credential ends it, and it is no output of a model.
    pub fn hold_to_nothing(&mut self) {
        self.validity = None;
        if let Some(collecting) = &mut self.collecting {
            collecting.has_no_output();
        }
    }

    /// Whether what let the caller in is still good, where that matters.
    ///
    /// # Errors
    /// It is not.
    pub fn check_grant(&mut self) -> Result<(), Error> {
        match (&mut self.validity, &self.served_by) {
            (Some(validity), Some(by)) => validity.check(&self.worker.snapshot(), by.service()),
            _ => Ok(()),
        }
    }

    /// Ready when the answer is to be cut: it has taken as long as it may, or what let the caller in is no longer good.
    pub fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        if let Some(end) = &mut self.answer_end
            && end.poll_expired(cx).is_ready()
        {
            return Poll::Ready(self.answer_timeout());
        }
        match (&mut self.validity, &self.served_by) {
            (Some(validity), Some(by)) => validity.poll_ended(cx, &self.worker, by.service()),
            _ => Poll::Pending,
        }
    }

    fn answer_timeout(&self) -> Error {
        let limit = self.service().and_then(|service| service.settings.limits.answer).unwrap_or_default();
        let message = format!("the answer took longer than limits.answer_timeout ({limit:?})");
        Error::new(Kind::UpstreamTimeout, message)
    }

    /// Counts the call as a tunnel until the guard is dropped.
    pub fn start_tunnel(&self) -> Option<InTunnel> {
        self.service().map(|service| service.metrics(&self.worker.metrics).start_tunnel())
    }

    /// The container has answered with `fields`; where its kind of server tells of model and tokens, that is noted.
    pub fn watch_usage(&mut self, fields: &HeaderMap) {
        let is_openai = |service: &Service| service.settings.opens.profile == Profile::OpenAi;
        if self.service().is_some_and(is_openai) {
            self.usage = UsageWatch::of(fields).map(Box::new);
        }
    }

    /// A piece of the answer passes.
    pub fn see_piece(&mut self, piece: &[u8]) {
        self.record.response_bytes += piece.len() as u64;
        if let Some(usage) = &mut self.usage {
            usage.see(piece);
        }
        if let Some(collecting) = &mut self.collecting {
            collecting.see_output(piece);
        }
    }

    /// Who calls, as whoever shares something out among callers tells them apart: a token's subject, one of the service's
    /// keys, or else the client's address. Each key is a caller of its own.
    pub fn caller(&self) -> PrincipalId {
        match &self.record.principal {
            Principal::Anonymous => PrincipalId::of(&share_of(self.record.client_address)),
            named => PrincipalId::of(named),
        }
    }

    /// The call waits for a place from now on.
    pub fn begin_wait(&mut self) {
        self.waits_since = Some(Instant::now());
    }

    /// The wait for a place is over, however it ended.
    pub fn end_wait(&mut self) {
        if let Some(since) = self.waits_since.take() {
            self.record.queue = Some(self.record.queue.unwrap_or_default() + since.elapsed());
        }
    }

    /// Holds the deployment's place until the call is over.
    pub fn hold_place(&mut self, permit: Permit) {
        self.held.place = Some(permit);
    }

    /// Counts the call as in flight at the replica until it is over.
    pub fn hold_replica(&mut self, guard: InFlightGuard) {
        self.held.replica = Some(guard);
    }

    /// The call is no more in flight at the replica that it was in vain at.
    pub fn release_replica(&mut self) {
        self.held.replica = None;
    }

    /// Where the request body is counted as it arrives.
    pub fn request_meter(&self) -> Rc<Cell<u64>> {
        Rc::clone(&self.request_bytes)
    }

    /// The answer is decided: its status and why.
    pub fn answer(&mut self, status: http::StatusCode, reason: Reason) {
        self.record.status = status.as_u16();
        self.set_reason(reason);
        self.progress = Progress::Answering;
        let now = Instant::now();
        self.answered = Some(now);
        if let Some(limit) = self.service().and_then(|service| service.settings.limits.answer) {
            let mut end = Deadline::new();
            end.set(tokio::time::Instant::from_std(now) + limit);
            self.answer_end = Some(Box::new(end));
        }
    }

    /// The replica has answered, and says behind its answer that it failed.
    pub fn model_failed(&mut self) {
        if self.record.reason == Reason::Ok {
            self.set_reason(Reason::ModelError);
        }
    }

    /// The answer is wholly handed over.
    pub fn complete(&mut self) {
        self.progress = Progress::Done;
    }

    /// The answer broke off.
    pub fn break_off(&mut self, error: &Error) {
        if self.progress != Progress::Done {
            self.set_reason(error.reason());
            self.progress = Progress::Done;
        }
    }

    /// What was handed over did not get through after all.
    pub fn reopen(&mut self) {
        self.progress = Progress::Answering;
    }

    /// The next bytes for the client are the last ones of the answer. Where records are written ahead, this one is written
    /// now, and tells of an answer that was whole. Whether that is so.
    pub fn record_ahead(&mut self) -> bool {
        if !self.worker.records.is_ahead() {
            return false;
        }
        if !self.is_recorded {
            self.complete();
            self.leave_record();
        }
        true
    }

    fn set_reason(&mut self, reason: Reason) {
        self.record.reason = reason;
        self.record.ended_by = reason.ended_by();
    }

    fn settle(&mut self) {
        if self.progress != Progress::Done {
            self.set_reason(if std::thread::panicking() {
                Reason::Internal
            } else if self.worker.drain.phase() == Phase::Cut {
                self.log_cut();
                Reason::Draining
            } else {
                Reason::ClientGone
            });
        }
        // A caller that left while it waited has waited all the same.
        self.end_wait();
        if let Some(usage) = self.usage.take() {
            self.record.usage = usage.read().map(Box::new);
        }
        let now = Instant::now();
        self.end_last_attempt(now);
        self.record.duration = now - self.started;
        self.record.request_bytes = self.request_bytes.get();
        if self.record.first_byte.is_some() {
            self.record.stream = self.answered.map(|answered| now - answered);
        }
    }

    fn leave_record(&mut self) {
        self.is_recorded = true;
        self.settle();
        match self.service() {
            Some(service) => service.metrics(&self.worker.metrics).observe(&self.record),
            None => self.worker.metrics.unrouted().observe(&self.record),
        }
        self.worker.records.write(&self.record);
    }

    fn log_cut(&self) {
        let record = &self.record;
        let (service, replica) = (record.service.as_deref(), record.replica.as_deref());
        let (request_id, elapsed) = (record.request_id.as_str(), self.started.elapsed());
        tracing::warn!(service, replica, request_id, ?elapsed, "call cut: drain.timeout is over");
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if !self.is_recorded {
            self.leave_record();
        }
        if let Some(collecting) = self.collecting.take() {
            collecting.finish(&self.record);
        }
    }
}

/// The part of an address that one client has: all of an IPv4 address, the network of an IPv6 address, of which it can have
/// any number (RFC 6177).
fn share_of(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits() >> 64 << 64,
    }
}

/// What records show when the caller left before an answer was decided (nginx's convention; never sent).
const STATUS_CLIENT_GONE: u16 = 499;
