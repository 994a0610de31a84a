//! The life of the process: ready, draining, cut; and the one place that spawns tasks.

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tracing::Instrument as _;

/// How far the process is on its way out. Only ever moves down this list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Bound, but not yet serving.
    #[default]
    Starting,
    /// Serving; `/readyz` says so.
    Running,
    /// Serving, but `/readyz` fails so that load balancers turn away.
    Unready,
    /// Answers carry `Connection: close` or GOAWAY; calls in flight finish.
    Draining,
    /// What is still there is cut and named in its record.
    Cut,
}

/// Moves the process through its phases.
#[derive(Debug)]
pub struct Lifecycle {
    phase: watch::Sender<Phase>,
}

/// Sees the phases.
pub type PhaseReceiver = watch::Receiver<Phase>;

impl Lifecycle {
    /// A process that is [`Phase::Starting`].
    #[must_use]
    pub fn new() -> Self {
        Self { phase: watch::Sender::new(Phase::Starting) }
    }

    /// Moves on to `phase`; going back is ignored.
    pub fn advance(&self, phase: Phase) {
        self.phase.send_if_modified(|current| {
            let later = phase > *current;
            if later {
                *current = phase;
            }
            later
        });
    }

    /// A view of the phases.
    #[must_use]
    pub fn watch(&self) -> PhaseReceiver {
        self.phase.subscribe()
    }
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self::new()
    }
}

/// One worker's view of the phase: read on every request, so it costs a plain load and no lock.
#[derive(Clone, Debug, Default)]
pub struct Drain(Rc<DrainState>);

#[derive(Debug, Default)]
struct DrainState {
    phase: Cell<Phase>,
    moved: Notify,
}

impl Drain {
    /// Follows the process's phases until [`Phase::Cut`]; the worker runs this beside its connections.
    pub async fn follow(&self, mut phases: PhaseReceiver) {
        loop {
            let phase = *phases.borrow_and_update();
            self.0.phase.set(phase);
            self.0.moved.notify_waiters();
            if phase == Phase::Cut || phases.changed().await.is_err() {
                return;
            }
        }
    }

    /// The phase now.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.0.phase.get()
    }

    /// Whether connections should be brought to an end.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.phase() >= Phase::Draining
    }

    /// Waits until `phase` or a later one.
    pub async fn reached(&self, phase: Phase) {
        loop {
            let moved = self.0.moved.notified();
            if self.phase() >= phase {
                return;
            }
            moved.await;
        }
    }
}

/// Spawns a task on the calling worker's own thread; it ends with the worker at the latest.
pub fn spawn_local<F>(task: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    tokio::task::spawn_local(task)
}

/// Spawns a task of the control plane; `name` is in every log line that it writes.
pub fn spawn<F>(name: &'static str, task: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(task.instrument(tracing::info_span!("task", name)))
}
