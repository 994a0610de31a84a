//! The one way in which anything is changed: authorised, logged, in one commit, then in effect.
//!
//! 1. The caller must hold the action where the resource is. If not, both events of the refused attempt go into the log.
//! 2. The event of the start is committed by itself. If it cannot be, nothing happens at all. A crash from here on leaves
//!    a start without an end, which is the truth: an end is only ever committed together with what it tells of.
//! 3. The body reads, checks and fills a batch. One commit makes its changes and the event of the end happen, or neither.
//! 4. What the data plane needs to know is handed to it. Steps 3 and 4 are one write at a time, so that the data plane
//!    sees changes in the order of their commits.
//!
//! The head of the log is a condition of that commit, and every write moves it: what a body has read is still so when its
//! batch happens, whichever process of the store writes. Only what is written without an event needs conditions of its own.
//!
//! The store is the truth. If the data plane cannot build what was committed (a defect: the body should have refused it),
//! the caller is told so and a second end event says it; scoring goes on as before until the next change of that service
//! or the next start.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use time::OffsetDateTime;

use super::activity::{Entry, Tail, is_head, prune};
use super::resource::Resource;
use super::{ActivityEvent, Operations, Versioned};
use crate::catalog::Action;
use crate::management::{Caller, Cause, Refusal, RequestFacts};
use crate::proxy::ServiceChanges;
use crate::store::{Batch, StoreError};

/// How often a write is tried when other processes append to the log at the same time. Each lost round is a won one of
/// somebody else, so that this many in a row means that something is wrong.
const HEAD_ROUNDS: u32 = 50;

/// How often a write is tried when what it read changes under it.
const ROW_ROUNDS: u32 = 8;

/// Longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Attempts of strangers that are logged in one [`STRANGERS_WINDOW`]; the rest is counted only. Whoever needs no
/// credential must not be able to fill the disk.
const STRANGERS_LOGGED: u32 = 60;

/// See [`STRANGERS_LOGGED`].
const STRANGERS_WINDOW: Duration = Duration::from_secs(60);

/// What writes share.
#[derive(Default)]
pub(super) struct Writes {
    /// Held from the reading of what a write is based on until the data plane has its outcome.
    order: Mutex<()>,
    strangers: Mutex<Strangers>,
}

/// How many strangers knocked lately.
#[derive(Default)]
struct Strangers {
    since: Option<Instant>,
    seen: u32,
}

/// Why one try came to nothing.
enum Failed {
    Refused(Refusal),
    Store(StoreError),
}

impl Operations {
    /// Does what `body` says to `resource`, as the module tells. The version of the answer is the number of the commit,
    /// which is the version of every row that it has written.
    ///
    /// `body` may run several times, each time on a new batch, when somebody else was faster: it reads what it needs
    /// anew and judges preconditions by what it reads. It puts a condition on each row that its decision rests on, writes
    /// each row at most once, and leaves the activity log alone. It may ask for further rights.
    ///
    /// # Errors
    /// The refusal of `body` or of the store; nothing has changed then. [`Cause::Internal`] with the change kept if the
    /// data plane cannot follow.
    pub(super) fn write<T>(
        &self,
        caller: &Caller,
        action: Action,
        resource: &Resource,
        body: impl FnMut(&mut Batch) -> Result<(T, ServiceChanges), Refusal>,
    ) -> Result<Versioned<T>, Refusal> {
        let entry = self.admit(caller, action, resource)?;
        self.perform(&entry, body)
    }

    /// Does `work`, which changes nothing in the store, under the same rules: authorised, with both events.
    ///
    /// # Errors
    /// The refusal of `work` or of the store.
    pub(super) fn act<T>(
        &self,
        caller: &Caller,
        action: Action,
        resource: &Resource,
        work: impl FnOnce() -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let entry = self.admit(caller, action, resource)?;
        let outcome = work();
        match &outcome {
            Ok(_) => self.append_if_possible(&[entry.succeeded()]),
            Err(refusal) => self.append_if_possible(&[entry.failed(refusal)]),
        }
        outcome
    }

    /// Logs the start of an operation that needs no right.
    ///
    /// # Errors
    /// The log cannot be written: the operation must not go on.
    pub(super) fn begin(&self, entry: &Entry) -> Result<(), Refusal> {
        self.append(&[entry.started()])
    }

    /// Does what `body` says for an operation whose start is logged.
    pub(super) fn perform<T>(
        &self,
        entry: &Entry,
        mut body: impl FnMut(&mut Batch) -> Result<(T, ServiceChanges), Refusal>,
    ) -> Result<Versioned<T>, Refusal> {
        let outcome = {
            let _order = lock(&self.writes.order);
            self.committed(entry, &mut body).and_then(|(done, changes)| {
                self.put_into_effect(changes)?;
                Ok(done)
            })
        };
        if let Err(refusal) = &outcome {
            self.append_if_possible(&[entry.failed(refusal)]);
        }
        outcome
    }

    /// Does what nobody has asked for and what changes nothing that anybody sees: without an event, and without a commit if
    /// `body` changes nothing.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub(super) fn upkeep(
        &self,
        mut body: impl FnMut(&mut Batch) -> Result<ServiceChanges, Refusal>,
    ) -> Result<(), Refusal> {
        let _order = lock(&self.writes.order);
        let outcome = in_rounds(|| {
            let mut batch = Batch::default();
            let changes = body(&mut batch).map_err(Failed::Refused)?;
            if !batch.changes.is_empty() {
                self.store.commit(batch)?;
            }
            Ok(changes)
        });
        self.put_into_effect(outcome.map_err(Failed::into_refusal)?)
    }

    /// Logs an attempt that was refused before there was a caller (no or a bad credential on a write).
    ///
    /// At most 60 of them a minute; further ones are only counted, in the gateway's own log.
    pub fn log_stranger(
        &self,
        operation_name: &str,
        resource_id: &str,
        request: &RequestFacts,
        why: &Refusal,
    ) {
        let verdict = lock(&self.writes.strangers).knock(Instant::now());
        if let Some(unlogged) = verdict.unlogged {
            tracing::warn!(unlogged, "attempts without a credential were too many to be logged one by one");
        }
        if verdict.log {
            let entry = Entry::of_request(request, "", operation_name, resource_id);
            self.append_if_possible(&[entry.started(), entry.failed(why)]);
        }
    }

    /// Lets the caller pass and logs the start; logs the refused attempt otherwise.
    fn admit(&self, caller: &Caller, action: Action, resource: &Resource) -> Result<Entry, Refusal> {
        let entry = Entry::new(caller, action.as_str(), resource.id());
        if let Err(refusal) = caller.check(action, resource.scope()) {
            self.append_if_possible(&[entry.started(), entry.failed(&refusal)]);
            return Err(refusal);
        }
        self.begin(&entry)?;
        Ok(entry)
    }

    /// Runs `body` and commits what it wants together with the event of its end.
    fn committed<T>(
        &self,
        entry: &Entry,
        body: &mut impl FnMut(&mut Batch) -> Result<(T, ServiceChanges), Refusal>,
    ) -> Result<(Versioned<T>, ServiceChanges), Refusal> {
        let outcome = in_rounds(|| {
            let mut batch = Batch::default();
            // First, so that another process's write is seen as that and not as a change of some row.
            let mut tail = Tail::open(&*self.store, &mut batch)?;
            let (value, changes) = body(&mut batch).map_err(Failed::Refused)?;
            tail.push(entry.succeeded(), &mut batch)?;
            tail.close(&mut batch)?;
            let version = self.store.commit(batch)?;
            self.logged.notify_one();
            Ok((Versioned { value, version }, changes))
        });
        outcome.map_err(Failed::into_refusal)
    }

    fn put_into_effect(&self, changes: ServiceChanges) -> Result<(), Refusal> {
        if changes.upsert.is_empty() && changes.remove.is_empty() {
            return Ok(());
        }
        self.published.apply(changes).map_err(|error| {
            tracing::error!(error, "a change is stored but not in effect");
            Refusal::new(
                Cause::Internal,
                "the change is stored, but the gateway could not put it into effect; calls are served as before it",
            )
        })
    }

    /// Appends to the activity log, and removes a few events whose time is over.
    fn append(&self, events: &[ActivityEvent]) -> Result<(), Refusal> {
        let _order = lock(&self.writes.order);
        let oldest = OffsetDateTime::now_utc()
            .checked_sub(self.settings.activity_retention.try_into().unwrap_or(time::Duration::MAX));
        let outcome = in_rounds(|| {
            let mut batch = Batch::default();
            let mut tail = Tail::open(&*self.store, &mut batch)?;
            for event in events {
                tail.push(event.clone(), &mut batch)?;
            }
            tail.close(&mut batch)?;
            if let Some(oldest) = oldest {
                prune(&*self.store, oldest, &mut batch)?;
            }
            self.store.commit(batch)?;
            self.logged.notify_one();
            Ok(())
        });
        outcome.map_err(Failed::into_refusal)
    }

    /// For events of what has been refused anyway: that the log cannot be written is told to the gateway's own log.
    fn append_if_possible(&self, events: &[ActivityEvent]) {
        if let Err(refusal) = self.append(events) {
            tracing::error!(%refusal, "events are missing in the activity log");
        }
    }
}

/// Tries until nobody was faster, within bounds.
fn in_rounds<T>(mut attempt: impl FnMut() -> Result<T, Failed>) -> Result<T, Failed> {
    let (mut head_rounds, mut row_rounds) = (1, 1);
    loop {
        match attempt() {
            Err(Failed::Store(StoreError::Conflict(table, key))) if is_head(table, &key) => {
                if head_rounds == HEAD_ROUNDS {
                    return Err(Failed::Store(StoreError::Io("the activity log is never at rest".into())));
                }
                head_rounds += 1;
                pause(head_rounds);
            }
            Err(Failed::Store(StoreError::Conflict(..))) if row_rounds < ROW_ROUNDS => {
                row_rounds += 1;
                pause(row_rounds);
            }
            outcome => return outcome,
        }
    }
}

/// Longer and longer, by chance, so that those who collide do not do so in step.
fn pause(round: u32) {
    let longest = Duration::from_millis(1 << round.min(6)).min(LONGEST_PAUSE);
    std::thread::sleep(longest.mul_f64(fastrand::f64()));
}

struct Knock {
    log: bool,
    /// Those of the window before that were not logged.
    unlogged: Option<u32>,
}

impl Strangers {
    fn knock(&mut self, now: Instant) -> Knock {
        let mut unlogged = None;
        if self.since.is_none_or(|since| now.duration_since(since) >= STRANGERS_WINDOW) {
            unlogged = self.seen.checked_sub(STRANGERS_LOGGED).filter(|more| *more > 0);
            *self = Self { since: Some(now), seen: 0 };
        }
        self.seen = self.seen.saturating_add(1);
        Knock { log: self.seen <= STRANGERS_LOGGED, unlogged }
    }
}

impl Failed {
    fn into_refusal(self) -> Refusal {
        match self {
            Self::Refused(refusal) => refusal,
            Self::Store(error) => error.into(),
        }
    }
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// A panic under these locks leaves nothing half done: the store's commit is whole or not there.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
