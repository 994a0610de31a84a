//! The careful way to a replica: who may take the call, in which order, and how it is begun there.

use std::sync::Arc;

use super::ejection::Cause;
use super::health::{Clock, Standing, WHOLE};
use super::replica::{InFlightGuard, Replica};
use super::set::{Choice, ReplicaSet};
use crate::error::{Error, Kind};

/// The careful choice: somebody is ejected, barred, slow or full, or the call has tried already, or order matters.
pub(super) struct Search<'a> {
    set: &'a ReplicaSet,
    members: &'a [Arc<Replica>],
    choice: &'a Choice<'a>,
    clock: Clock,
}

/// Who is asked, in this order; the next ones only if there is nobody of those before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tier {
    /// Serving or on trial, and not tried.
    Fresh,
    /// Ejected and not tried, for a call that has tried others in vain: nobody else is left to lose a call to.
    Ejected,
    /// Serving, and tried.
    Again,
    /// Ejected for its answers.
    Failing,
    /// Ejected as unreachable: for the one call that sees whether it is back.
    Unreachable,
}

/// What asking a tier came to.
enum Found {
    Guard(InFlightGuard),
    /// There are members, each with as many calls as it may get.
    Full,
    Nobody,
}

impl<'a> Search<'a> {
    /// A search among `members`.
    pub fn new(set: &'a ReplicaSet, members: &'a [Arc<Replica>], choice: &'a Choice<'a>) -> Self {
        Self { set, members, choice, clock: Clock::default() }
    }

    /// A replica, counted as in flight.
    ///
    /// # Errors
    /// As [`ReplicaSet::pick`].
    pub fn run(&self) -> Result<InFlightGuard, Error> {
        let is_first = self.choice.tried.is_empty();
        let tiers: &[Tier] = if is_first {
            &[Tier::Fresh, Tier::Failing, Tier::Unreachable]
        } else {
            &[Tier::Fresh, Tier::Ejected, Tier::Again, Tier::Failing]
        };
        let mut is_full = false;
        for tier in tiers {
            match self.ask(*tier) {
                Found::Guard(guard) => return Ok(guard),
                // Whoever serves has no room; the ejected are no way around a cap.
                Found::Full if is_first => return Err(self.full()),
                Found::Full => is_full = true,
                Found::Nobody => {}
            }
        }
        Err(if is_full { self.full() } else { none_ready() })
    }

    fn ask(&self, tier: Tier) -> Found {
        let per_replica = self.choice.per_replica;
        // Whoever loses a race for the last room of a replica asks again; each loss is another call's gain.
        for _ in 0..=self.members.len() {
            let members = self.members.iter();
            let all = members.filter_map(|replica| self.share(tier, replica).map(|share| (replica, share)));
            let with_room = all.clone().filter(|(replica, _)| replica.has_room(per_replica));
            let Some(chosen) = self.set.choose(self.choice.hash, &with_room) else {
                return if all.clone().next().is_some() { Found::Full } else { Found::Nobody };
            };
            if let Some(guard) = self.start(tier, chosen) {
                return Found::Guard(guard);
            }
        }
        Found::Full
    }

    /// The share of `replica` in this tier, in thousandths; `None`: it is not in it.
    fn share(&self, tier: Tier, replica: &Arc<Replica>) -> Option<u16> {
        let is_tried = self.choice.tried.iter().any(|tried| Arc::ptr_eq(tried, replica));
        let health = replica.health();
        match (tier, self.set.standing(replica, &self.clock)) {
            (Tier::Fresh, Standing::Full) if !is_tried => Some(WHOLE),
            (Tier::Fresh, Standing::Slow(share)) if !is_tried => Some(share),
            (Tier::Fresh, Standing::OnTrial) if !is_tried && !health.is_on_trial() => Some(WHOLE),
            (Tier::Again, Standing::Full | Standing::Slow(_)) => Some(WHOLE),
            (Tier::Ejected, Standing::Ejected(_) | Standing::OnTrial) if !is_tried => Some(WHOLE),
            (Tier::Failing, Standing::Ejected(Cause::Failing)) => Some(WHOLE),
            (Tier::Failing, Standing::OnTrial) if health.ejected() == Some(Cause::Failing) => Some(WHOLE),
            (Tier::Unreachable, Standing::Ejected(Cause::Unreachable))
                if !health.is_on_trial() && health.is_early_trial_due(&self.clock) =>
            {
                Some(WHOLE)
            }
            _ => None,
        }
    }

    fn start(&self, tier: Tier, replica: &Arc<Replica>) -> Option<InFlightGuard> {
        let guard = replica.start_call(self.choice.per_replica)?;
        let health = replica.health();
        if health.ejected().is_none() {
            return Some(guard);
        }
        match tier {
            Tier::Fresh | Tier::Unreachable => {
                health.begin_trial(&self.clock).map(|trial| guard.on_trial(trial))
            }
            Tier::Ejected | Tier::Again | Tier::Failing => Some(guard.on_trial(health.join_trial())),
        }
    }

    fn full(&self) -> Error {
        let limit = self.choice.per_replica.unwrap_or_default();
        Error::new(
            Kind::QueueFull,
            format!(
                "too many requests: every ready replica is busy (limits.concurrent_requests_per_replica is {limit})"
            ),
        )
    }
}

fn none_ready() -> Error {
    Error::new(Kind::NoReadyReplica, "no replica of the deployment is ready")
}
