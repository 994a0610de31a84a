//! The upstream leg: replicas, the connections to them, and one attempt to have a request answered.
//!
//! A call takes a [`Connection`] from its worker's [`Pools`] and gives it the request; the answer's body carries the
//! connection on and gives it back at a clean end. Whatever is odd closes the connection, so that no call can ever get
//! a byte that was meant for another. Dropping a future or a body cancels the call at the replica.

mod balance;
mod connect;
mod ejection;
mod h1;
mod h2;
mod health;
mod names;
mod policy;
mod pool;
mod probe;
mod replica;
mod rest;
mod retry;
mod search;
mod set;
mod settings;
mod special;
mod url;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use http::{Request, Response};

use crate::error::{Error, Kind};
use crate::wire::{Body, Interim};

pub use balance::{Balancing, stable_hash};
pub use connect::{Io, connect_apart};
pub use ejection::{AttemptOutcome, EjectionSettings};
pub use health::Verdict;
pub use names::{HostAddresses, Hosts, MAX_HOSTS, NamesSettings};
pub use policy::{AddressPolicy, Forbidden};
pub use pool::Pools;
pub use probe::{Check, HealthSettings, ProbeSettings, ReadinessSettings, Statuses};
pub use replica::{InFlightGuard, Replica};
pub use retry::{RetryBudget, RetrySettings};
pub use set::{BalancingSettings, Choice, ReplicaSet, States};
pub use settings::{Deadlines, Origin, ReplicaProtocol, ReplicaSettings, ReplicaTls};
pub use special::Special;
pub use url::{ReplicaUrl, certificate_name, http_url};

/// The right to make one call to a replica.
pub struct Connection {
    transport: Transport,
    connect_time: Option<Duration>,
}

enum Transport {
    H1(h1::Lease),
    H2(h2::Lease),
}

/// A call under way.
pub type Sent<'a> = Pin<Box<dyn Future<Output = Result<Response<Body>, SendError>> + 'a>>;

/// A call that got no answer.
#[derive(Debug)]
pub struct SendError {
    /// What went wrong. A fault of the client's body is passed on as its source told it.
    pub error: Error,
    /// The request, untouched, if not one byte of it went out, as happens on a pooled connection that the replica has
    /// just closed: another connection may be tried. A request that may have reached the replica is never given back.
    pub unsent: Option<Box<Request<Body>>>,
}

impl Connection {
    /// How long look-up and handshakes took; `None` if the connection was there already.
    #[must_use]
    pub const fn connect_time(&self) -> Option<Duration> {
        self.connect_time
    }

    /// Sends `request` and waits for the answer's head; the answer's body is pulled from the connection.
    ///
    /// The request has its final fields, `Host` among them, but those that frame it: these follow from the body. The
    /// target is path and query. The returned fields are free of framing and hop-by-hop fields as well; the body's size
    /// hint is exact if the replica told the length.
    ///
    /// # Errors
    /// [`SendError`]; kinds [`Kind::UpstreamTimeout`], [`Kind::UpstreamReset`], [`Kind::UpstreamProtocol`] and whatever
    /// the request's body fails with. The answer's body fails with the same kinds.
    pub fn send(self, request: Request<Body>, deadlines: &Deadlines) -> Sent<'_> {
        self.send_for(request, deadlines, &())
    }

    /// The same for a client, which `interim` passes interim answers to. Of HTTP/2 replicas there are none: hyper skips
    /// them.
    ///
    /// A [`Special`] among the request's extensions says what is special about the call. The answer 101 comes to a
    /// [`Special::WebSocket`] alone, and its body is then [`Body::upgraded`].
    ///
    /// # Errors
    /// Those of [`Connection::send`].
    pub fn send_for<'a>(
        self,
        request: Request<Body>,
        deadlines: &'a Deadlines,
        interim: &'a dyn Interim,
    ) -> Sent<'a> {
        // Boxed: each future on the way here holds the next one and is moved when it is made, so what is large at the
        // bottom is copied on every floor: by the sizes of the types 2 KiB less on each, against one short allocation.
        match self.transport {
            Transport::H1(lease) => Box::pin(lease.send(request, deadlines, interim)),
            Transport::H2(lease) => Box::pin(lease.send(request, deadlines)),
        }
    }

    const fn pooled_h1(lease: h1::Lease) -> Self {
        Self { transport: Transport::H1(lease), connect_time: None }
    }

    const fn pooled_h2(lease: h2::Lease) -> Self {
        Self { transport: Transport::H2(lease), connect_time: None }
    }

    const fn new_h1(lease: h1::Lease, connect_time: Duration) -> Self {
        Self { transport: Transport::H1(lease), connect_time: Some(connect_time) }
    }

    const fn new_h2(lease: h2::Lease, connect_time: Duration) -> Self {
        Self { transport: Transport::H2(lease), connect_time: Some(connect_time) }
    }
}

impl From<Error> for SendError {
    fn from(error: Error) -> Self {
        Self { error, unsent: None }
    }
}

fn first_byte_timeout(deadlines: &Deadlines, label: &str) -> Error {
    let limit = deadlines.first_byte;
    let message = format!("the replica did not answer within limits.scoring_timeout ({limit:?})");
    Error::new(Kind::UpstreamTimeout, message).with_detail(label)
}

fn idle_timeout(deadlines: &Deadlines, label: &str) -> Error {
    let limit = deadlines.idle;
    let message = format!("the replica's answer paused for limits.idle_timeout ({limit:?})");
    Error::new(Kind::UpstreamTimeout, message).with_detail(label)
}

fn silence_timeout(deadlines: &Deadlines, label: &str) -> Error {
    let limit = deadlines.idle;
    let message = format!("neither client nor replica sent anything for limits.idle_timeout ({limit:?})");
    Error::new(Kind::UpstreamTimeout, message).with_detail(label)
}

fn reset(message: &'static str, label: &str, cause: impl std::fmt::Display) -> Error {
    Error::new(Kind::UpstreamReset, message).with_detail(format_args!("{label}: {cause}"))
}

fn protocol_violation(label: &str, cause: impl std::fmt::Display) -> Error {
    const MESSAGE: &str = "the replica's answer is not acceptable HTTP";
    Error::new(Kind::UpstreamProtocol, MESSAGE).with_detail(format_args!("{label}: {cause}"))
}

#[cfg(test)]
mod tests;
