//! The replicas of one deployment: how the next attempt's is chosen, and who hears of it when their number changes.

use std::ops::Deref;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;

use super::balance::{self, Balancing, Candidate};
use super::ejection::{Cause, EjectionSettings};
use super::health::{Clock, Standing, Verdict};
use super::replica::{InFlightGuard, Replica};
use super::search::Search;
use crate::error::Error;

/// How a deployment's replicas share its calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BalancingSettings {
    /// `balancing`: who gets the next call.
    pub policy: Balancing,
    /// `slow_start`: how long a replica that (re)enters beside others takes to get its full share, growing evenly.
    pub slow_start: Duration,
    /// `ejection`: when failing replicas are left out; `None`: never.
    pub ejection: Option<EjectionSettings>,
}

impl BalancingSettings {
    /// Longest `slow_start`.
    pub const MOST_SLOW_START: Duration = Duration::from_secs(60 * 60);
}

/// Those of a deployment that sets none.
impl Default for BalancingSettings {
    fn default() -> Self {
        Self {
            policy: Balancing::default(),
            slow_start: Duration::ZERO,
            ejection: Some(EjectionSettings::default()),
        }
    }
}

/// The replicas of one deployment, shared by all workers. Outlives snapshots while the settings stay.
///
/// A replica whose attempts fail so many times in a row is **ejected**: it gets no calls for a time that grows with each
/// ejection in a row. After that it is on trial: one call at a time goes there, and the first that goes well brings it
/// back, with a slow start. Two causes differ in who must be left:
///
/// - It answers 5xx, resets, breaks the protocol or answers too late. That may be the fault of the calls, so a floor is
///   kept (`keep` percent, and always one): a deployment of one replica is never ejected for what its model answers. Where
///   the floor is broken all the same, since the others are gone, such a replica is better than nobody and gets calls.
/// - It takes no connections. Nothing is lost by leaving it out, so there is no floor: with all replicas dead, calls fail
///   at once with `no_ready_replica` and do not wait for connects. Once a second and replica one call tries anyway, and so
///   does any call that could not be sent to another replica; a connection made brings it back at once.
///
/// What probes say stands before all of it.
pub struct ReplicaSet {
    name: Box<str>,
    settings: BalancingSettings,
    members: ArcSwap<Box<[Arc<Replica>]>>,
    /// Of round robin.
    turn: AtomicUsize,
    ejections: Arc<AtomicU64>,
    /// Held while members or what they may get changes, so that the floor is judged and numbers are told in order.
    changing: Mutex<Told>,
}

/// Whoever wants to know how many members serve.
#[derive(Default)]
struct Told {
    serving: Option<usize>,
    listener: Option<Box<dyn Fn(usize) + Send>>,
}

/// What the next attempt asks for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Choice<'a> {
    /// For [`Balancing::Hash`]: the [`stable_hash`](super::stable_hash) of what keeps calls together.
    pub hash: Option<u64>,
    /// Replicas that this call has tried in vain, with nothing sent or where it may be sent again.
    pub tried: &'a [Arc<Replica>],
    /// `concurrent_requests_per_replica`: no replica gets more calls at once.
    pub per_replica: Option<u32>,
}

/// Members by what they may get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct States {
    /// Their full share.
    pub ready: usize,
    /// Part of it, in their slow start.
    pub slow_start: usize,
    /// Nothing, since they are ejected.
    pub ejected: usize,
    /// Nothing yet, say probes.
    pub starting: usize,
    /// Nothing any more, say probes.
    pub not_ready: usize,
}

impl States {
    /// Each with its name in metrics.
    #[must_use]
    pub const fn named(&self) -> [(&'static str, usize); 5] {
        [
            ("ready", self.ready),
            ("slow_start", self.slow_start),
            ("ejected", self.ejected),
            ("starting", self.starting),
            ("not_ready", self.not_ready),
        ]
    }
}

impl ReplicaSet {
    /// The replicas of the deployment `name`, which logs say. Until [`ReplicaSet::take_charge`] is called, failures eject
    /// nobody.
    #[must_use]
    pub fn new(
        name: impl Into<Box<str>>,
        settings: BalancingSettings,
        members: Vec<Arc<Replica>>,
    ) -> Arc<Self> {
        Self::counting_on(Arc::default(), name, settings, members)
    }

    /// The same in the place of `before`, whose count of ejections goes on.
    #[must_use]
    pub fn in_place_of(before: &Self, settings: BalancingSettings, members: Vec<Arc<Replica>>) -> Arc<Self> {
        Self::counting_on(Arc::clone(&before.ejections), before.name.clone(), settings, members)
    }

    fn counting_on(
        ejections: Arc<AtomicU64>,
        name: impl Into<Box<str>>,
        settings: BalancingSettings,
        members: Vec<Arc<Replica>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            settings,
            members: ArcSwap::from_pointee(members.into()),
            turn: AtomicUsize::new(0),
            ejections,
            changing: Mutex::default(),
        })
    }

    /// From now on this set decides over its members, and `listener` is told how many of them serve: at once and at each
    /// change, in order, by whoever makes the change; so it must be quick and must not change the set. To be called when
    /// the set is published, not before: members may still be another set's till then.
    pub fn take_charge(self: &Arc<Self>, listener: impl Fn(usize) + Send + 'static) {
        let mut told = self.changing();
        *told = Told { serving: None, listener: Some(Box::new(listener)) };
        self.adopt(&self.members.load());
        self.tell(&mut told);
    }

    /// A replica that may take a call now, counted as in flight; one that was tried already only if nobody else is left.
    ///
    /// # Errors
    /// [`Kind::NoReadyReplica`](crate::error::Kind::NoReadyReplica) if no replica takes calls,
    /// [`Kind::QueueFull`](crate::error::Kind::QueueFull) if all that do have `per_replica` of them.
    pub fn pick(&self, choice: &Choice<'_>) -> Result<InFlightGuard, Error> {
        let members = self.members.load();
        match self.less_busy_of_two_sound(&members, choice) {
            Some(guard) => Ok(guard),
            None => Search::new(self, &members, choice).run(),
        }
    }

    /// The way of nearly all calls: two draws, no look at anybody else and none at the clock.
    fn less_busy_of_two_sound(&self, members: &[Arc<Replica>], choice: &Choice<'_>) -> Option<InFlightGuard> {
        if !choice.tried.is_empty() {
            return None;
        }
        let chosen = match members {
            [only] => only,
            [_, _, ..] if self.settings.policy == Balancing::LeastBusy => {
                let first = fastrand::usize(..members.len());
                let second = fastrand::usize(..members.len() - 1);
                let (one, other) = (&members[first], &members[second + usize::from(second >= first)]);
                if !(one.health().is_sound() && other.health().is_sound()) {
                    return None;
                }
                if one.in_flight() <= other.in_flight() { one } else { other }
            }
            _ => return None,
        };
        if chosen.health().is_sound() { chosen.start_call(choice.per_replica) } else { None }
    }

    /// The one of `candidates` whose turn it is.
    pub(super) fn choose<'a>(
        &self,
        hash: Option<u64>,
        candidates: &(impl Iterator<Item = Candidate<'a>> + Clone),
    ) -> Option<&'a Arc<Replica>> {
        balance::choose(&self.settings.policy, &self.turn, hash, candidates)
    }

    /// All replicas, whatever their state.
    pub fn members(&self) -> impl Deref<Target = [Arc<Replica>]> + use<> {
        Members(self.members.load_full())
    }

    /// Names were resolved anew. Members that stay are the same `Arc` and keep counts, health and pooled connections; new
    /// ones start slowly.
    pub fn replace_members(self: &Arc<Self>, members: Vec<Arc<Replica>>) {
        let mut told = self.changing();
        self.members.store(Arc::new(members.into()));
        self.adopt(&self.members.load());
        self.tell(&mut told);
    }

    /// Members that may take calls now, which is what places are counted from. One whose ejection is over counts again
    /// when its trial has gone well.
    #[must_use]
    pub fn serving(&self) -> usize {
        self.members.load().iter().filter(|replica| replica.health().serves()).count()
    }

    /// Members by what they may get.
    #[must_use]
    pub fn states(&self) -> States {
        let clock = Clock::default();
        let mut states = States::default();
        for replica in self.members.load().iter() {
            let state = match replica.health().standing(self.settings.slow_start, &clock) {
                Standing::Full => &mut states.ready,
                Standing::Slow(_) => &mut states.slow_start,
                Standing::OnTrial | Standing::Ejected(_) => &mut states.ejected,
                Standing::Barred if replica.verdict() == Verdict::Starting => &mut states.starting,
                Standing::Barred => &mut states.not_ready,
            };
            *state += 1;
        }
        states
    }

    /// Ejections so far, of this set and those it took the place of.
    #[must_use]
    pub fn ejections(&self) -> u64 {
        self.ejections.load(Ordering::Relaxed)
    }

    /// How its replicas share its calls.
    #[must_use]
    pub const fn settings(&self) -> &BalancingSettings {
        &self.settings
    }

    /// Takes `replica` out, unless the floor forbids it; prolongs its ejection if it is out and its trial has failed.
    pub(super) fn eject(&self, replica: &Replica, cause: Cause) {
        let (mut told, clock) = (self.changing(), Clock::default());
        let members = self.members.load();
        let Some(settings) = &self.settings.ejection else { return };
        // A worker that came too late, or a call that outlived the membership.
        let is_member = members.iter().any(|member| std::ptr::eq(&raw const **member, replica));
        let was_serving = replica.health().serves();
        if !is_member || (was_serving && cause == Cause::Failing && !may_eject(settings, &members)) {
            return;
        }
        if !was_serving && !matches!(self.standing(replica, &clock), Standing::OnTrial) {
            return;
        }
        let time = replica.health().eject(cause, settings, &clock);
        self.ejections.fetch_add(1, Ordering::Relaxed);
        self.tell(&mut told);
        drop(told);
        self.hand_on(replica);
        let (deployment, replica, cause) = (&*self.name, &**replica.label(), cause.as_str());
        let serving = self.serving();
        tracing::warn!(deployment, replica, cause, ?time, serving, "replica ejected");
    }

    /// Takes `replica` back: its trial went well.
    pub(super) fn give_back(&self, replica: &Replica) {
        let mut told = self.changing();
        if replica.health().ejected().is_none() {
            return;
        }
        replica.health().give_back(&Clock::default());
        self.tell(&mut told);
        drop(told);
        self.hand_on(replica);
        let (deployment, replica, serving) = (&*self.name, &**replica.label(), self.serving());
        tracing::warn!(deployment, replica, serving, "replica is back: its trial went well");
    }

    /// What probes say of `replica`.
    pub(super) fn set_verdict(&self, replica: &Replica, verdict: Verdict) {
        let mut told = self.changing();
        replica.health().set_verdict(verdict, &Clock::default());
        self.tell(&mut told);
        drop(told);
        self.hand_on(replica);
    }

    /// Another set may have taken charge of `replica` while this one changed it.
    fn hand_on(&self, replica: &Replica) {
        if let Some(home) = replica.home()
            && !std::ptr::eq(&raw const *home, self)
        {
            home.tell(&mut home.changing());
        }
    }

    /// Makes `members` its own; those that nobody had start slowly if there are others.
    fn adopt(self: &Arc<Self>, members: &[Arc<Replica>]) {
        let threshold = self.settings.ejection.map_or(0, |ejection| ejection.failures);
        let is_new = |replica: &Arc<Replica>| replica.home().is_none();
        let clock = Clock::default();
        if !members.iter().all(is_new) {
            members.iter().filter(|it| is_new(it)).for_each(|it| it.health().start_slowly(&clock));
        }
        for replica in members {
            replica.health().set_threshold(threshold);
            replica.set_home(self);
        }
    }

    fn tell(&self, told: &mut Told) {
        let serving = self.serving();
        if told.serving.replace(serving) != Some(serving)
            && let Some(listener) = &told.listener
        {
            listener(serving);
        }
    }

    /// What `replica` may get now.
    pub(super) fn standing(&self, replica: &Replica, clock: &Clock) -> Standing {
        replica.health().standing(self.settings.slow_start, clock)
    }

    fn changing(&self) -> MutexGuard<'_, Told> {
        // A panic of a listener leaves it untold of one number; the next one is right again.
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the floor lets one more of `members` be ejected for its answers.
fn may_eject(settings: &EjectionSettings, members: &[Arc<Replica>]) -> bool {
    let (mut reachable, mut out) = (0, 0);
    for replica in members {
        match replica.health().ejected() {
            Some(Cause::Failing) => (reachable, out) = (reachable + 1, out + 1),
            Some(Cause::Unreachable) => {}
            None => reachable += usize::from(replica.health().serves()),
        }
    }
    settings.may_eject(reachable, out)
}

struct Members(Arc<Box<[Arc<Replica>]>>);

impl Deref for Members {
    type Target = [Arc<Replica>];

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

#[cfg(test)]
mod tests;
