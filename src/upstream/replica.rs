//! One upstream address, with what is counted about it across all workers.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use http::HeaderValue;

use super::health::{AttemptOutcome, Health, Verdict};
use super::names::HostAddresses;
use super::settings::ReplicaSettings;

static NEXT_ID: AtomicU64 = AtomicU64::new(0);

/// One replica. Outlives snapshots: as long as the configuration keeps the same settings, the same `Arc` is carried on,
/// and with it the count of calls and the pooled connections.
pub struct Replica {
    settings: ReplicaSettings,
    label: Arc<str>,
    host: HeaderValue,
    id: u64,
    addresses: HostAddresses,
    in_flight: AtomicU32,
    health: Health,
}

impl Replica {
    /// A replica that no call has gone to.
    #[must_use]
    pub fn new(settings: ReplicaSettings) -> Arc<Self> {
        let origin = &settings.origin;
        let address = origin.host.parse::<IpAddr>().ok();
        let address = address.map(|ip| SocketAddr::new(ip, origin.port));
        Self::at(settings, address.into_iter().collect())
    }

    /// A replica that no call has gone to, at one of the hosts that its name means. It goes by its address, but for `Host`
    /// and TLS, which have the name. A host of several addresses goes by the name.
    #[must_use]
    pub fn at(settings: ReplicaSettings, addresses: HostAddresses) -> Arc<Self> {
        let origin = settings.origin.to_string();
        let label: Arc<str> = match *addresses {
            [address] => address.to_string().into(),
            _ => origin.as_str().into(),
        };
        Arc::new(Self {
            // A host that could be parsed out of a URL can be written in a header.
            host: HeaderValue::from_str(&origin).unwrap_or(HeaderValue::from_static("")),
            label,
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            addresses,
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

    /// Host and port as in its URL.
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
    #[must_use]
    pub fn may_serve(&self) -> bool {
        self.health.serves()
    }

    /// Never given twice in this process.
    #[must_use]
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// Where to connect, in the order to be tried; empty: what the name means has to be looked up.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
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
    fn a_host_of_a_name_goes_by_its_address_and_is_told_the_name() {
        let at = |addresses: &[&str]| {
            let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
            let replica = Replica::at(replica("model").settings().clone(), addresses);
            assert_eq!(replica.host_header(), "model:5001");
            replica.label().to_string()
        };
        assert_eq!(at(&["10.0.0.7:5001"]), "10.0.0.7:5001");
        assert_eq!(at(&["[fd00::7]:5001"]), "[fd00::7]:5001");
        assert_eq!(at(&["[::1]:5001", "127.0.0.1:5001"]), "model:5001");
        assert_eq!(at(&[]), "model:5001");
    }

    #[test]
    fn only_addresses_need_no_look_up() {
        assert_eq!(replica("::1").addresses(), ["[::1]:5001".parse().unwrap()]);
        assert_eq!(replica("127.0.0.1").addresses(), ["127.0.0.1:5001".parse().unwrap()]);
        assert!(replica("model").addresses().is_empty());
        assert_ne!(replica("a").id(), replica("a").id());
    }
}
