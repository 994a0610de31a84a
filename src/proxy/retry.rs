//! One call's right to another attempt, and the copy of its request that makes one possible after something was sent.

mod kept;

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use tokio::time::Instant;

use crate::error::{Error, Kind};
use crate::telemetry::metrics::{Metrics, Retried};
use crate::telemetry::record::TryEnd;
use crate::upstream::{Deadlines, Replica, ReplicaSet};
use crate::wire::Body;

use super::Service;
use kept::Kept;

/// The attempts of one call: what was tried, and whether there may be another.
pub(super) struct Attempts<'a> {
    service: &'a Service,
    made: u32,
    /// Empty, and so without an allocation, but for calls that failed somewhere.
    tried: Vec<Arc<Replica>>,
    /// `scoring_timeout`, for all attempts together.
    whole: Duration,
    deadlines: Deadlines,
    /// When the first attempt began that sent something.
    sent: Option<Instant>,
    /// Only for calls that may be sent twice.
    kept: Option<Box<Kept>>,
    last_error: Option<Error>,
}

/// An attempt that led to no answer that is to be passed on.
pub(super) enum Failed {
    /// There was no connection.
    Connect(Error, Request<Body>),
    /// The connection was closed when it was to be used.
    Unsent(Error, Request<Body>),
    /// Something was sent.
    Sent(Error),
    /// The replica has answered with a status that the service counts as a failure.
    Answered(Response<Body>),
}

/// What follows a failed attempt.
pub(super) enum Then {
    /// Another one, with this request.
    Again(Request<Body>),
    /// Nothing: the failure stands.
    Stands(Failed),
}

impl<'a> Attempts<'a> {
    /// Begins; keeps a copy of `request` if the service allows to send it twice.
    pub fn begin(service: &'a Service, deadlines: &Deadlines, request: &mut Request<Body>) -> Self {
        let settings = &service.settings.retry;
        let kept = match &service.retry_budget {
            Some(budget) if settings.replays(request.method()) => {
                budget.earn(Instant::now());
                Kept::of(request, settings.body_bytes).map(Box::new)
            }
            _ => None,
        };
        Self {
            service,
            made: 0,
            tried: Vec::new(),
            whole: deadlines.first_byte,
            deadlines: *deadlines,
            sent: None,
            kept,
            last_error: None,
        }
    }

    /// Another attempt begins.
    pub const fn count(&mut self) {
        self.made += 1;
    }

    /// Replicas that were tried in vain.
    pub fn tried(&self) -> &[Arc<Replica>] {
        &self.tried
    }

    /// The waits of the next attempt: what passed since something was sent counts against `scoring_timeout`.
    pub const fn deadlines(&self) -> &Deadlines {
        &self.deadlines
    }

    /// What the last attempt failed with, before `other`.
    pub fn last_error_or(&mut self, other: Error) -> Error {
        self.last_error.take().unwrap_or(other)
    }

    /// Whether the service counts an answer with `status` as a failure, and has a copy of the request left to try again.
    pub fn takes_for_failure(&self, status: StatusCode) -> bool {
        self.kept.is_some() && self.service.settings.retry.statuses.contains(&status)
    }

    /// What follows after an attempt at `replica`, one of `all`, that began at `started` and failed.
    pub fn after(
        &mut self,
        (replica, all): (Arc<Replica>, &ReplicaSet),
        started: Instant,
        failed: Failed,
        metrics: &Metrics,
    ) -> Then {
        let failed = match failed {
            Failed::Sent(error) => Failed::Sent(self.told_of_all(error)),
            failed => failed,
        };
        if self.made >= self.service.settings.retry.attempts {
            return Then::Stands(failed);
        }
        let (why, then) = match failed {
            Failed::Connect(error, request) => {
                self.tried.push(replica);
                if !self.has_untried(all) {
                    return Then::Stands(Failed::Connect(error, request));
                }
                self.last_error = Some(error);
                (Retried::ConnectFailed, request)
            }
            // It says nothing about the replica.
            Failed::Unsent(error, request) => {
                self.last_error = Some(error);
                (Retried::Unsent, request)
            }
            // A replica that is slow, or that answers what is no HTTP, would only get more of it.
            Failed::Sent(error) if error.kind != Kind::UpstreamReset => {
                return Then::Stands(Failed::Sent(error));
            }
            failed @ (Failed::Sent(_) | Failed::Answered(_)) => {
                let Some(request) = self.replay(started, metrics) else {
                    return Then::Stands(failed);
                };
                self.tried.push(replica);
                match failed {
                    Failed::Sent(error) => {
                        self.last_error = Some(error);
                        (Retried::Reset, request)
                    }
                    Failed::Connect(..) | Failed::Unsent(..) | Failed::Answered(_) => {
                        (Retried::Status, request)
                    }
                }
            }
        };
        self.service.metrics(metrics).retried(why);
        Then::Again(then)
    }

    /// The request once more, if it is still at hand, and time and budget are left.
    fn replay(&mut self, started: Instant, metrics: &Metrics) -> Option<Request<Body>> {
        let now = Instant::now();
        let begun = *self.sent.get_or_insert(started);
        let left = self.whole.saturating_sub(now.saturating_duration_since(begun));
        let kept = self.kept.as_mut().filter(|kept| !left.is_zero() && kept.is_whole())?;
        let budget = self.service.retry_budget.as_ref()?;
        if !budget.spend(now) {
            self.service.metrics(metrics).retry_budget_exhausted();
            return None;
        }
        self.deadlines.first_byte = left;
        self.deadlines.connect = self.deadlines.connect.min(left);
        Some(kept.request())
    }

    /// A wait that began with what others had left of it is told as what it is.
    fn told_of_all(&self, error: Error) -> Error {
        if error.kind != Kind::UpstreamTimeout || self.sent.is_none() {
            return error;
        }
        let (limit, made) = (self.whole, self.made);
        let message = format!(
            "the replicas did not answer within limits.scoring_timeout ({limit:?}), over {made} attempts"
        );
        Error { message: message.into(), ..error }
    }

    fn has_untried(&self, all: &ReplicaSet) -> bool {
        let is_tried = |replica: &Arc<Replica>| self.tried.iter().any(|tried| Arc::ptr_eq(tried, replica));
        !all.members().iter().all(is_tried)
    }
}

impl Failed {
    /// How the attempt ended.
    pub fn end(&self) -> TryEnd {
        match self {
            Self::Answered(response) => TryEnd { status: Some(response.status().as_u16()), error: None },
            Self::Connect(error, _) | Self::Unsent(error, _) | Self::Sent(error) => {
                TryEnd { status: None, error: Some(error.reason()) }
            }
        }
    }

    /// The answer after all, or what there is none for.
    pub fn into_outcome(self) -> Result<Response<Body>, Error> {
        match self {
            Self::Answered(response) => Ok(response),
            Self::Connect(error, _) | Self::Unsent(error, _) | Self::Sent(error) => Err(error),
        }
    }
}
