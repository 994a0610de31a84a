//! What one data-plane thread owns: its view of the snapshot, its upstream connections, its record buffer.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

use arc_swap::ArcSwap;

use crate::lifecycle::Drain;
use crate::telemetry::trace::Tracing;
use crate::telemetry::{Metrics, SampleSink, WorkerSink};
use crate::upstream::Pools;

use super::Snapshot;

/// A snapshot as the requests of one worker share it: counted without an atomic, so that no count is shared between cores.
pub type WorkerSnapshot = Rc<Arc<Snapshot>>;

/// One data-plane thread's own things. Requests of one thread share it by `Rc`; nothing in it is shared with another
/// thread but what the snapshot and the metrics share by design.
pub struct Worker {
    published: Arc<ArcSwap<Snapshot>>,
    current: RefCell<WorkerSnapshot>,
    watchers: Rc<Watchers>,
    /// Upstream connections.
    pub pools: Pools,
    /// Where records go.
    pub records: WorkerSink,
    /// Process-wide metrics.
    pub metrics: Arc<Metrics>,
    /// How calls take part in traces; `None`: a caller's trace passes through untouched.
    pub tracing: Option<Tracing>,
    /// Where copies of inputs and outputs go; `None`: nothing is collected.
    pub samples: Option<SampleSink>,
    /// How far the process is on its way out.
    pub drain: Drain,
}

impl Worker {
    /// A worker that follows `published`.
    pub fn new(
        published: Arc<ArcSwap<Snapshot>>,
        records: WorkerSink,
        metrics: Arc<Metrics>,
        drain: Drain,
    ) -> Self {
        let current = RefCell::new(Rc::new(published.load_full()));
        let (watchers, pools) = (Rc::default(), Pools::default());
        let (tracing, samples) = (None, None);
        Self { published, current, watchers, pools, records, metrics, tracing, samples, drain }
    }

    /// Has its calls take part in traces.
    #[must_use]
    pub fn with_tracing(self, tracing: Option<Tracing>) -> Self {
        Self { tracing, ..self }
    }

    /// Has inputs and outputs of its calls collected.
    #[must_use]
    pub fn with_samples(self, samples: Option<SampleSink>) -> Self {
        Self { samples, ..self }
    }

    /// The newest snapshot; the `Arc` inside is touched once per worker and publication.
    pub fn snapshot(&self) -> WorkerSnapshot {
        let newest = self.published.load();
        let mut current = self.current.borrow_mut();
        if !Arc::ptr_eq(&newest, &current) {
            *current = Rc::new(Arc::clone(&newest));
            self.watchers.wake();
        }
        Rc::clone(&current)
    }

    /// A place from which to be woken when another snapshot is there.
    pub(super) fn watch(&self) -> Watch {
        let id = self.watchers.next.get();
        self.watchers.next.set(id + 1);
        Watch { watchers: Rc::clone(&self.watchers), id }
    }
}

/// Calls of this worker that want to know of another snapshot.
#[derive(Default)]
struct Watchers {
    waiting: RefCell<BTreeMap<u64, Waker>>,
    next: Cell<u64>,
}

impl Watchers {
    fn wake(&self) {
        self.waiting.take().into_values().for_each(Waker::wake);
    }
}

/// One call's wish to know of another snapshot; gone when dropped.
pub(super) struct Watch {
    watchers: Rc<Watchers>,
    id: u64,
}

impl Watch {
    /// Wakes `waker` once, when another snapshot is there.
    pub fn register(&self, waker: &Waker) {
        let is_known =
            self.watchers.waiting.borrow().get(&self.id).is_some_and(|known| known.will_wake(waker));
        if !is_known {
            // Bound to a name, so that the old one is dropped after the borrow: it may be the last hold on its task.
            let _old = self.watchers.waiting.borrow_mut().insert(self.id, waker.clone());
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _old = self.watchers.waiting.borrow_mut().remove(&self.id);
    }
}
