//! Which snapshot runs and how old its keys are, for metrics.

use crate::proxy::{Service, Snapshot};
use crate::telemetry::metrics::{KeyReading, SnapshotReading};

/// A reading of `snapshot`.
#[must_use]
pub fn read_snapshot(snapshot: &Snapshot) -> SnapshotReading {
    let keys = snapshot.services.iter().flat_map(|service| keys(service)).collect();
    SnapshotReading { generation: snapshot.generation, keys }
}

fn keys(service: &Service) -> impl Iterator<Item = KeyReading> {
    let keys = service.authenticator.keys();
    keys.into_iter().flat_map(|keys| keys.lives()).map(|(key, life)| KeyReading {
        service: service.settings.name.as_str().to_owned(),
        key,
        made: life.made,
        not_after: life.not_after,
        last_used: life.last_use,
    })
}
