//! One worker's connections to replicas that are ready for the next call.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use http::uri::Scheme;
use tokio::time::Instant;

use super::replica::Replica;
use super::rest::{Rest, Reuse};
use super::settings::{Deadlines, ReplicaProtocol};
use super::{Connection, connect, h1, h2};
use crate::error::Error;

/// HTTP/1.1 connections kept per worker and replica. Above what one worker has under way at once under a heavy load: each
/// one too few costs a connect, and age ends those that are too many.
const MAX_IDLE: usize = 1024;

/// Longest time that a connection is kept unused. Below the 60 s after which many servers and balancers close. How long one
/// may rest and still be used is another matter, see [`Rest`]; a witness of it is kept beyond that.
const MAX_IDLE_TIME: Duration = Duration::from_secs(55);

/// The pools of one worker, one per replica. Clones share them.
#[derive(Clone)]
pub struct Pools(Rc<Inner>);

struct Inner {
    by_replica: RefCell<BTreeMap<u64, Rc<ReplicaPool>>>,
    clock: Rc<Cell<Instant>>,
}

/// The connections to one replica.
pub(super) struct ReplicaPool {
    /// Held weakly: a replica that no snapshot and no call holds any more is gone, and its pool with it.
    replica: Weak<Replica>,
    label: Arc<str>,
    scheme: Scheme,
    /// Oldest first; taken from the end, so that under low load the surplus gets old and is closed.
    idle: RefCell<Vec<Idle>>,
    rest: Rest,
    h2: h2::Shared,
    clock: Rc<Cell<Instant>>,
}

struct Idle {
    connection: h1::Connection,
    since: Instant,
}

impl Default for Pools {
    fn default() -> Self {
        Self::new()
    }
}

impl Pools {
    /// Pools without a connection.
    #[must_use]
    pub fn new() -> Self {
        Self(Rc::new(Inner { by_replica: RefCell::default(), clock: Rc::new(Cell::new(Instant::now())) }))
    }

    /// Tells the time, so that no taking of a connection has to read a clock; [`Pools::sweep`] does as well.
    pub fn advance(&self, now: Instant) {
        self.0.clock.set(now);
    }

    /// A connection to `replica` that can take a call now: a pooled one that is still good, else a new one.
    ///
    /// # Errors
    /// [`crate::error::Kind::ConnectFailed`] if none can be made within `deadlines.connect`.
    pub async fn connection(
        &self,
        replica: &Arc<Replica>,
        deadlines: &Deadlines,
    ) -> Result<Connection, Error> {
        let pool = self.of(replica);
        let pooled = match replica.settings().protocol {
            ReplicaProtocol::H1 => h1::Lease::of_idle(&pool).map(Connection::pooled_h1),
            ReplicaProtocol::H2 => h2::Lease::of_open(&pool).map(Connection::pooled_h2),
        };
        match pooled {
            Some(connection) => Ok(connection),
            // Boxed: the rare case must not make the future of every call as large as a TLS handshake.
            None => Box::pin(new_connection(pool, replica, deadlines.connect)).await,
        }
    }

    /// Closes connections that have been idle too long or that the replica has closed, and forgets replicas that are
    /// gone. The worker calls it about once a second.
    pub fn sweep(&self, now: Instant) {
        self.advance(now);
        self.0.by_replica.borrow_mut().retain(|_, pool| {
            pool.sweep(now);
            pool.replica.strong_count() > 0
        });
    }

    fn of(&self, replica: &Arc<Replica>) -> Rc<ReplicaPool> {
        let mut pools = self.0.by_replica.borrow_mut();
        let pool = pools.entry(replica.id()).or_insert_with(|| {
            Rc::new(ReplicaPool {
                replica: Arc::downgrade(replica),
                label: Arc::clone(replica.label()),
                scheme: match replica.settings().tls {
                    Some(_) => Scheme::HTTPS,
                    None => Scheme::HTTP,
                },
                idle: RefCell::default(),
                rest: Rest::default(),
                h2: h2::Shared::default(),
                clock: Rc::clone(&self.0.clock),
            })
        });
        Rc::clone(pool)
    }

    #[cfg(test)]
    pub(super) fn idle(&self) -> usize {
        let pools = self.0.by_replica.borrow();
        pools.values().map(|pool| pool.idle.borrow().len()).sum()
    }

    #[cfg(test)]
    pub(super) fn replicas(&self) -> usize {
        self.0.by_replica.borrow().len()
    }
}

async fn new_connection(
    pool: Rc<ReplicaPool>,
    replica: &Replica,
    limit: Duration,
) -> Result<Connection, Error> {
    let start = Instant::now();
    match replica.settings().protocol {
        ReplicaProtocol::H1 => {
            let io = connect::within(limit, replica, connect::dial(replica)).await?;
            Ok(Connection::new_h1(h1::Lease::of_new(io, pool), start.elapsed()))
        }
        ReplicaProtocol::H2 => {
            let lease = connect::within(limit, replica, h2::Lease::of_new(pool, replica)).await?;
            Ok(Connection::new_h2(lease, start.elapsed()))
        }
    }
}

impl ReplicaPool {
    /// For logs.
    pub(super) fn label(&self) -> &str {
        &self.label
    }

    /// As in the replica's URL.
    pub(super) const fn scheme(&self) -> &Scheme {
        &self.scheme
    }

    pub(super) fn h2(&self) -> &h2::Shared {
        &self.h2
    }

    /// The time as the pools were told it last; never ahead.
    pub(super) fn now(&self) -> Instant {
        self.clock.get()
    }

    /// What is known of how long the replica keeps idle connections.
    pub(super) const fn rest(&self) -> &Rest {
        &self.rest
    }

    /// The connection used last of those that may still be used; the ones found closed on the way are gone.
    pub(super) fn take(&self) -> Option<h1::Connection> {
        let now = self.now();
        let mut idle = self.idle.borrow_mut();
        while let Some(Idle { mut connection, since }) = idle.pop() {
            let quiet = match self.rest.judge(since, now) {
                Reuse::AsItIs => connection.is_quiet(),
                Reuse::AskSocket => connection.is_surely_quiet(),
                Reuse::Leave => {
                    // All others have rested longer. The one that has longest stays, as a witness of how long that can be.
                    idle.truncate(1);
                    if idle.is_empty() {
                        idle.push(Idle { connection, since });
                    }
                    return None;
                }
            };
            if quiet {
                return Some(connection);
            }
            self.rest.seen_closed(now.saturating_duration_since(since), now);
        }
        None
    }

    /// Keeps a connection whose last answer is wholly read, if there is room.
    pub(super) fn put(&self, connection: h1::Connection) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < MAX_IDLE {
            let since = if self.rest.needs_exact_clock() { Instant::now() } else { self.now() };
            idle.push(Idle { connection, since });
        }
    }

    fn sweep(&self, now: Instant) {
        let cutoff = now.checked_sub(MAX_IDLE_TIME);
        let is_old = |since: Instant| cutoff.is_some_and(|cutoff| since < cutoff);
        let mut longest = Duration::ZERO;
        self.idle.borrow_mut().retain_mut(|idle| {
            let rested = now.saturating_duration_since(idle.since);
            if !idle.connection.is_quiet() {
                self.rest.seen_closed(rested, now);
                return false;
            }
            longest = longest.max(rested);
            !is_old(idle.since)
        });
        self.rest.seen_open(longest);
        self.h2.close_if(is_old);
    }
}
