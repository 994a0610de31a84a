//! What one data-plane thread owns: its view of the snapshot, its upstream connections, its record buffer.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::lifecycle::Drain;
use crate::telemetry::{Metrics, WorkerSink};
use crate::upstream::Pools;

use super::Snapshot;

/// A snapshot as the requests of one worker share it: counted without an atomic, so that no count is shared between cores.
pub type WorkerSnapshot = Rc<Arc<Snapshot>>;

/// One data-plane thread's own things. Requests of one thread share it by `Rc`; nothing in it is shared with another
/// thread but what the snapshot and the metrics share by design.
pub struct Worker {
    published: Arc<ArcSwap<Snapshot>>,
    current: RefCell<WorkerSnapshot>,
    /// Upstream connections.
    pub pools: Pools,
    /// Where records go.
    pub records: WorkerSink,
    /// Process-wide metrics.
    pub metrics: Arc<Metrics>,
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
        Self { published, current, pools: Pools::default(), records, metrics, drain }
    }

    /// The newest snapshot; the `Arc` inside is touched once per worker and publication.
    pub fn snapshot(&self) -> WorkerSnapshot {
        let newest = self.published.load();
        let mut current = self.current.borrow_mut();
        if !Arc::ptr_eq(&newest, &current) {
            *current = Rc::new(Arc::clone(&newest));
        }
        Rc::clone(&current)
    }
}
