//! Who serves whom has changed: the word to those on the control plane who follow it, and the tasks that they keep.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;

use tokio::sync::watch;

use crate::lifecycle;

/// Tells that services, their replicas, or what is thought of these have changed. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Topology(Arc<watch::Sender<()>>);

impl Default for Topology {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(())))
    }
}

impl Topology {
    /// Wakes everybody who follows.
    pub fn changed(&self) {
        self.0.send_replace(());
    }

    /// A view that misses no change from now on.
    pub fn follow(&self) -> watch::Receiver<()> {
        self.0.subscribe()
    }
}

/// One task per key. Each goes by the plan that it was given last, and ends when its key goes.
pub(super) struct Tasks<K, P> {
    name: &'static str,
    running: HashMap<K, watch::Sender<P>>,
}

impl<K: Eq + Hash, P: Clone + PartialEq + Send + Sync + 'static> Tasks<K, P> {
    /// No task yet; `name` is in every log line of theirs.
    pub fn new(name: &'static str) -> Self {
        Self { name, running: HashMap::new() }
    }

    /// Makes the tasks those of `wanted`: starts new ones by `start`, tells new plans, ends what is not wanted any more.
    pub fn reconcile<F>(&mut self, mut wanted: HashMap<K, P>, start: impl Fn(Plan<P>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.running.retain(|key, running| {
            // One that has ended by itself (a panic) is started anew.
            if running.is_closed() {
                return false;
            }
            let Some(plan) = wanted.remove(key) else { return false };
            running.send_if_modified(|before| {
                let differs = *before != plan;
                if differs {
                    *before = plan;
                }
                differs
            });
            true
        });
        for (key, plan) in wanted {
            let plan = watch::Sender::new(plan);
            lifecycle::spawn(self.name, start(Plan(plan.subscribe())));
            self.running.insert(key, plan);
        }
    }
}

/// A task's view of its plan.
pub(super) struct Plan<P>(watch::Receiver<P>);

impl<P: Clone> Plan<P> {
    /// As it is now.
    pub fn now(&self) -> P {
        self.0.borrow().clone()
    }

    /// Does `work` by the plan as it is, and anew by each new one; returns when the task is not wanted any more. `work` is
    /// dropped where it stands.
    pub async fn follow<F: Future<Output = ()>>(&mut self, work: impl Fn(P) -> F) {
        loop {
            let plan = self.0.borrow_and_update().clone();
            let working = async {
                work(plan).await;
                std::future::pending().await
            };
            let changed = tokio::select! {
                changed = self.0.changed() => changed,
                never = working => never,
            };
            if changed.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn tasks_follow_their_plans_and_end_with_their_keys() {
        let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let running = Arc::new(AtomicUsize::new(0));
        let start = |mut plan: Plan<u32>| {
            let (told, running) = (told.clone(), Arc::clone(&running));
            running.fetch_add(1, Ordering::Relaxed);
            async move {
                plan.follow(async |plan| told.send(plan).unwrap()).await;
                running.fetch_sub(1, Ordering::Relaxed);
                told.send(0).unwrap();
            }
        };
        let mut tasks = Tasks::new("test");
        tasks.reconcile(HashMap::from([("a", 1)]), start);
        assert_eq!(heard.recv().await, Some(1));
        tasks.reconcile(HashMap::from([("a", 1), ("b", 2)]), start);
        assert_eq!(heard.recv().await, Some(2), "an unchanged plan is not told again");
        tasks.reconcile(HashMap::from([("a", 3), ("b", 2)]), start);
        assert_eq!(heard.recv().await, Some(3));
        assert_eq!(running.load(Ordering::Relaxed), 2);
        tasks.reconcile(HashMap::from([("b", 2)]), start);
        assert_eq!(heard.recv().await, Some(0));
        assert_eq!(running.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn no_change_is_missed() {
        let topology = Topology::default();
        let mut follower = topology.follow();
        topology.changed();
        topology.clone().changed();
        follower.changed().await.unwrap();
        assert!(!follower.has_changed().unwrap());
    }
}
