//! Events of the activity log on their way to the exporters: from the operations into the exporters' spools.

use std::sync::Arc;
use std::time::Duration;

use crate::lifecycle::{Phase, PhaseReceiver};
use crate::management::Operations;
use crate::management::operations::EventOutlet;
use crate::telemetry::{EventSpool, Privacy};

/// Before the log is read again after it could not be.
const RETRY: Duration = Duration::from_secs(5);

/// Where events go, and what they keep of their callers.
#[derive(Clone)]
pub(super) struct Events {
    outlets: Arc<[Outlet]>,
    privacy: Privacy,
}

struct Outlet(EventSpool);

impl EventOutlet for Outlet {
    fn reached(&self) -> Option<u64> {
        self.0.reached()
    }

    fn take(&self, lines: &[u8], reached: u64) {
        self.0.append(lines, reached);
    }
}

impl Events {
    pub fn new(spools: Vec<EventSpool>, privacy: Privacy) -> Self {
        Self { outlets: spools.into_iter().map(Outlet).collect(), privacy }
    }

    /// Hands out what is logged and not out yet; returns what keeps it from that, if anything. Blocks.
    pub fn hand_out(&self, operations: &Operations) -> Result<(), String> {
        let each = self.outlets.iter().map(|outlet| operations.hand_out(outlet, self.privacy));
        each.collect::<Result<(), _>>().map_err(|refusal| refusal.to_string())
    }

    /// Hands out each event as it is logged, until the drain begins. The last ones are left to
    /// [`hand_out`](Self::hand_out) at the end.
    pub async fn follow(self, operations: Arc<Operations>, mut phases: PhaseReceiver) {
        if self.outlets.is_empty() {
            return;
        }
        tokio::select! {
            () = self.hand_out_each(operations) => {}
            _ = phases.wait_for(|phase| *phase >= Phase::Draining) => {}
        }
    }

    async fn hand_out_each(&self, operations: Arc<Operations>) {
        let mut told = String::new();
        loop {
            let (events, asked) = (self.clone(), Arc::clone(&operations));
            let done = tokio::task::spawn_blocking(move || events.hand_out(&asked)).await;
            match done {
                Ok(Ok(())) => {
                    told.clear();
                    operations.event_logged().await;
                }
                Ok(Err(error)) => {
                    // Not every five seconds.
                    if told != error {
                        tracing::error!(error, "events wait in the activity log and are not sent out");
                        told = error;
                    }
                    tokio::time::sleep(RETRY).await;
                }
                Err(_) => tokio::time::sleep(RETRY).await,
            }
        }
    }
}
