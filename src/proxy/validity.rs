//! Whether what let a caller in still does, for services that cut answers when it does not (`AtExpiry::Cut`).

use std::task::{Context, Poll};
use std::time::SystemTime;

use tokio::time::Instant;

use crate::auth::{self, Grant};
use crate::error::Error;
use crate::wire::deadline::Deadline;

use super::worker::{Watch, Worker};
use super::{Service, Snapshot};

/// What one call was let in by, looked at again whenever another snapshot is published, and when it expires by itself.
pub(super) struct Validity {
    grant: Grant,
    /// Generation in which it was last found good.
    generation: u64,
    expiry: Deadline,
    watch: Watch,
}

impl Validity {
    /// `grant` was good in the snapshot `generation` just now.
    pub fn new(grant: Grant, generation: u64, worker: &Worker) -> Self {
        let mut expiry = Deadline::new();
        let left = grant.until().map(|until| until.duration_since(SystemTime::now()).unwrap_or_default());
        if let Some(at) = left.and_then(|left| Instant::now().checked_add(left)) {
            expiry.set(at);
        }
        Self { grant, generation, expiry, watch: worker.watch() }
    }

    /// Whether the call may go on just now; `began` is its service as it was found.
    ///
    /// # Errors
    /// What let the caller in is no longer good.
    pub fn check(&mut self, running: &Snapshot, began: &Service) -> Result<(), Error> {
        let Some(service) = running.service(began.settings.name.as_str()) else {
            return Err(auth::ended());
        };
        service.authenticator.still_admits(&began.authenticator, &self.grant, SystemTime::now())?;
        self.generation = running.generation;
        Ok(())
    }

    /// Ready when the call is to be cut. A publication is noticed by the next piece of the answer, without one when the
    /// worker looks for it, which it does each second.
    pub fn poll_ended(&mut self, cx: &mut Context<'_>, worker: &Worker, began: &Service) -> Poll<Error> {
        self.watch.register(cx.waker());
        let running = worker.snapshot();
        if running.generation != self.generation
            && let Err(error) = self.check(&running, began)
        {
            return Poll::Ready(error);
        }
        self.expiry.poll_expired(cx).map(|()| auth::ended())
    }
}
