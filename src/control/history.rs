//! Looks at what the services count and how busy they are, so that their last 24 hours can be asked for.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;

use super::limits::read_limits;
use crate::proxy::Snapshot;
use crate::telemetry::Metrics;
use crate::telemetry::history::{History, LOOK_INTERVAL};

/// Keeps `history` of what `metrics` count and of the limits of what is published; never returns.
pub async fn keep_history(history: Arc<History>, metrics: Arc<Metrics>, published: Arc<ArcSwap<Snapshot>>) {
    loop {
        let limits = read_limits(&published.load());
        let loads = limits.into_iter().filter_map(|reading| Some((reading.service, reading.load?))).collect();
        history.look(SystemTime::now(), metrics.read_services(), &loads);
        tokio::time::sleep(until_next_look(SystemTime::now())).await;
    }
}

/// Looks are taken at whole multiples of their interval, so that each minute ends with one.
fn until_next_look(now: SystemTime) -> Duration {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let interval = LOOK_INTERVAL.as_millis();
    let rest = interval - since % interval;
    Duration::from_millis(u64::try_from(rest).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_are_taken_when_minutes_end() {
        let after = |millis| until_next_look(UNIX_EPOCH + Duration::from_millis(millis));
        assert_eq!(after(60_000), Duration::from_secs(5));
        assert_eq!(after(59_999), Duration::from_millis(1));
        assert_eq!(after(62_500), Duration::from_millis(2_500));
    }
}
