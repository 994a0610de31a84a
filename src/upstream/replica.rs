//! One upstream address, with what is counted about it across all workers.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use http::HeaderValue;

use super::balance::stable_hash;
use super::ejection::{AttemptOutcome, Evidence};
use super::health::{Clock, Health, Trial, Verdict};
use super::names::HostAddresses;
use super::set::ReplicaSet;
use super::settings::ReplicaSettings;

static NEXT_ID: AtomicU64 = AtomicU64::new(0);

/// One replica. Outlives snapshots: as long as the configuration keeps the same settings, the same `Arc` is carried on,
/// and with it the count of calls, the health and the pooled connections.
pub struct Replica {
    settings: ReplicaSettings,
    label: Arc<str>,
    host: HeaderValue,
    id: u64,
    /// Where it stands among others for a key; the same in every process.
    seed: u64,
    addresses: HostAddresses,
    in_flight: AtomicU32,
    health: Health,
    /// The set that decides over it; none before the first snapshot with it is published.
    home: Mutex<Weak<ReplicaSet>>,
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
            seed: seed(&label, &addresses),
            label,
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            addresses,
            in_flight: AtomicU32::new(0),
            health: Health::default(),
            home: Mutex::default(),
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

    /// Tells how an attempt went; no lock and no clock as long as all is well.
    pub fn report(&self, outcome: AttemptOutcome) {
        match outcome.evidence() {
            Evidence::Good if self.health.note_success() => self.at_home(ReplicaSet::give_back),
            Evidence::Reachable if self.health.note_reachable() => self.at_home(ReplicaSet::give_back),
            Evidence::Against(cause) if self.health.note_failure() => {
                self.at_home(|set, replica| set.eject(replica, cause));
            }
            Evidence::Good | Evidence::Reachable | Evidence::Against(_) => {}
        }
    }

    /// Takes what probes make of it: without [`Verdict::Unprobed`] or [`Verdict::Ready`] it gets no calls. One that is
    /// ready again enters anew: slowly, and with nothing held against it.
    pub fn set_verdict(&self, verdict: Verdict) {
        match self.home() {
            Some(set) => set.set_verdict(self, verdict),
            None => self.health.set_verdict(verdict, &Clock::default()),
        }
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

    /// Counts a call as under way until the guard is dropped, if fewer than `most` are.
    pub(super) fn start_call(self: &Arc<Self>, most: Option<u32>) -> Option<InFlightGuard> {
        match most {
            None => {
                self.in_flight.fetch_add(1, Ordering::Relaxed);
            }
            Some(most) => {
                let room = |count| (count < most).then_some(count + 1);
                self.in_flight.try_update(Ordering::Relaxed, Ordering::Relaxed, room).ok()?;
            }
        }
        Some(InFlightGuard { replica: Arc::clone(self), call: Call::Ordinary })
    }

    /// Whether fewer than `most` calls are under way.
    pub(super) fn has_room(&self, most: Option<u32>) -> bool {
        most.is_none_or(|most| self.in_flight() < most)
    }

    pub(super) const fn health(&self) -> &Health {
        &self.health
    }

    /// Where it stands for the key with this hash; of all replicas the one with the highest number gets it.
    pub(super) const fn rank(&self, hash: u64) -> u64 {
        super::balance::mix(hash ^ self.seed)
    }

    /// The set that decides over it.
    pub(super) fn home(&self) -> Option<Arc<ReplicaSet>> {
        self.home.lock().unwrap_or_else(PoisonError::into_inner).upgrade()
    }

    /// From now on `set` decides over it.
    pub(super) fn set_home(&self, set: &Arc<ReplicaSet>) {
        *self.home.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(set);
    }

    fn at_home(&self, change: impl FnOnce(&ReplicaSet, &Self)) {
        if let Some(set) = self.home() {
            change(&set, self);
        }
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

/// Where a replica stands among others for a key, from what is the same for every gateway: its address, or, before that is
/// known, its name.
fn seed(label: &str, addresses: &[SocketAddr]) -> u64 {
    match addresses.iter().min() {
        Some(address) => stable_hash(address.to_string().as_bytes()),
        None => stable_hash(label.as_bytes()),
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
pub struct InFlightGuard {
    replica: Arc<Replica>,
    call: Call,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Ordinary,
    /// The replica was ejected when it was chosen.
    Trial(Trial),
}

impl InFlightGuard {
    /// The replica that the call goes to.
    #[must_use]
    pub const fn replica(&self) -> &Arc<Replica> {
        &self.replica
    }

    /// The call counts as a trial, which the caller has begun.
    pub(super) const fn on_trial(mut self, trial: Trial) -> Self {
        self.call = Call::Trial(trial);
        self
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        if let Call::Trial(trial) = self.call {
            self.replica.health.end_trial(trial);
        }
        self.replica.in_flight.fetch_sub(1, Ordering::Relaxed);
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
        let first = replica.start_call(None);
        let second = replica.start_call(Some(2));
        assert!(first.is_some() && second.is_some());
        assert!(replica.start_call(Some(2)).is_none());
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
