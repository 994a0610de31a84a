//! The replicas of one deployment and how the next attempt's is chosen.

use std::ops::Deref;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::replica::{InFlightGuard, Replica};
use crate::error::{Error, Kind};

/// The replicas of one deployment. Outlives snapshots while the settings stay.
pub struct ReplicaSet {
    members: ArcSwap<Box<[Arc<Replica>]>>,
}

/// What the next attempt asks for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Choice<'a> {
    /// For `hash` balancing: the hash of what calls are kept together by.
    pub hash: Option<u64>,
    /// Replicas that this call has tried in vain.
    pub tried: &'a [Arc<Replica>],
    /// `concurrent_requests_per_replica`.
    pub per_replica: Option<u32>,
}

impl ReplicaSet {
    /// A set of `members`.
    #[must_use]
    pub fn new(members: Vec<Arc<Replica>>) -> Arc<Self> {
        Arc::new(Self { members: ArcSwap::from_pointee(members.into()) })
    }

    /// A replica that may take a call now, counted as in flight; one that was tried only if nobody else is left.
    ///
    /// # Errors
    /// [`Kind::NoReadyReplica`].
    pub fn pick(&self, choice: &Choice<'_>) -> Result<InFlightGuard, Error> {
        let members = self.members.load();
        let untried = |replica: &&Arc<Replica>| !choice.tried.iter().any(|tried| Arc::ptr_eq(tried, replica));
        let ready: Vec<_> = members.iter().filter(|replica| replica.may_serve()).collect();
        let mut candidates: Vec<_> = ready.iter().copied().filter(untried).collect();
        if candidates.is_empty() {
            candidates = ready;
        }
        fastrand::shuffle(&mut candidates);
        let chosen = candidates.into_iter().take(2).min_by_key(|replica| replica.in_flight());
        chosen
            .map(Replica::start_call)
            .ok_or_else(|| Error::new(Kind::NoReadyReplica, "no replica of the deployment is ready"))
    }

    /// All replicas, whatever their state.
    pub fn members(&self) -> impl Deref<Target = [Arc<Replica>]> {
        Members(self.members.load_full())
    }

    /// Names were resolved anew: members that stay are the same `Arc` and keep counts, health and pooled connections.
    pub fn replace_members(&self, members: Vec<Arc<Replica>>) {
        self.members.store(Arc::new(members.into()));
    }

    /// Members that may take calls now.
    #[must_use]
    pub fn serving(&self) -> usize {
        self.members.load().iter().filter(|replica| replica.may_serve()).count()
    }
}

struct Members(Arc<Box<[Arc<Replica>]>>);

impl Deref for Members {
    type Target = [Arc<Replica>];

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}
