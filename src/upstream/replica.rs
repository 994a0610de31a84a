//! One upstream address, with what is counted about it across all workers.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use http::HeaderValue;

use super::health::{AttemptOutcome, Health, Verdict};
use super::settings::ReplicaSettings;

static NEXT_ID: AtomicU64 = AtomicU64::new(0);

/// One replica. Outlives snapshots: as long as the configuration keeps the same settings, the same `Arc` is carried on,
/// and with it the count of calls and the pooled connections.
pub struct Replica {
    settings: ReplicaSettings,
    label: Arc<str>,
    host: HeaderValue,
    id: u64,
    address: Option<SocketAddr>,
    in_flight: AtomicU32,
    health: Health,
}

impl Replica {
    /// A replica that no call has gone to.
    #[must_use]
    pub fn new(settings: ReplicaSettings) -> Arc<Self> {
        let origin = &settings.origin;
        let address = origin.host.parse::<IpAddr>().ok();
        let label: Arc<str> = origin.to_string().into();
        Arc::new(Self {
            // A host that could be parsed out of a URL can be written in a header.
            host: HeaderValue::from_str(&label).unwrap_or(HeaderValue::from_static("")),
            label,
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            address: address.map(|ip| SocketAddr::new(ip, origin.port)),
            in_flight: AtomicU32::new(0),
            health: Health::default(),
            settings,
        })
    }

    /// What it was made from.
    #[must_use]
    pub const fn settings(&self) -> &ReplicaSettings {
        &self.settings
    }

    /// `host:port`, for records, metrics and logs.
    #[must_use]
    pub const fn label(&self) -> &Arc<str> {
        &self.label
    }

    /// The same as the value of `Host`.
    #[must_use]
    pub const fn host_header(&self) -> &HeaderValue {
        &self.host
    }

    /// Calls under way, over all workers.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Counts a call as under way until the guard is dropped.
    #[must_use]
    pub fn start_call(self: &Arc<Self>) -> InFlightGuard {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlightGuard(Arc::clone(self))
    }

    /// Tells how an attempt went. Costs one relaxed load as long as all is well.
    pub fn report(&self, outcome: AttemptOutcome) {
        self.health.report(outcome);
    }

    /// What probes make of it.
    pub fn set_verdict(&self, verdict: Verdict) {
        self.health.set_verdict(verdict);
    }

    /// What probes made of it last.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.health.verdict()
    }

    /// Whether it may take calls.
    pub(super) fn may_serve(&self) -> bool {
        self.health.serves()
    }

    /// Never given twice in this process.
    pub(super) const fn id(&self) -> u64 {
        self.id
    }

    /// Where to connect, if the host is an address and needs no look-up.
    pub(super) const fn address(&self) -> Option<SocketAddr> {
        self.address
    }
}

impl fmt::Debug for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replica")
            .field("label", &self.label)
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

/// One call under way to a replica.
#[derive(Debug)]
pub struct InFlightGuard(Arc<Replica>);

impl InFlightGuard {
    /// The replica that the call goes to.
    #[must_use]
    pub const fn replica(&self) -> &Arc<Replica> {
        &self.0
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::{Origin, ReplicaProtocol};

    fn replica(host: &str) -> Arc<Replica> {
        Replica::new(ReplicaSettings {
            origin: Origin { host: host.into(), port: 5001 },
            protocol: ReplicaProtocol::H1,
            tls: None,
            policy: None,
        })
    }

    #[test]
    fn calls_are_counted_until_their_guards_drop() {
        let replica = replica("::1");
        assert_eq!(&**replica.label(), "[::1]:5001");
        let first = replica.start_call();
        let second = first.replica().start_call();
        assert_eq!(replica.in_flight(), 2);
        drop((first, second));
        assert_eq!(replica.in_flight(), 0);
    }

    #[test]
    fn only_addresses_need_no_look_up() {
        assert!(replica("::1").address().is_some());
        assert!(replica("127.0.0.1").address().is_some());
        assert!(replica("model").address().is_none());
        assert_ne!(replica("a").id(), replica("a").id());
    }
}
