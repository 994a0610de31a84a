//! How the limits of the running services stand, for metrics.

use crate::proxy::{Service, Snapshot};
use crate::telemetry::metrics::{LimitReading, LoadReading, PrincipalReading};

/// A reading of each service of `snapshot`.
#[must_use]
pub fn read_limits(snapshot: &Snapshot) -> Vec<LimitReading> {
    snapshot.services.iter().map(|service| reading(service)).collect()
}

fn reading(service: &Service) -> LimitReading {
    let loads = service.deployments.iter().filter_map(|deployment| deployment.admission.load());
    let load = loads.fold(None, |sum: Option<LoadReading>, load| {
        let sum = sum.unwrap_or_default();
        Some(LoadReading {
            slots: sum.slots + u64::from(load.slots),
            busy: sum.busy + u64::from(load.busy),
            waiting: sum.waiting + load.waiting as u64,
        })
    });
    let principals = service.rates.as_ref().and_then(|rates| rates.principals());
    let principals =
        principals.map(|count| PrincipalReading { held: count.held as u64, forgotten: count.forgotten });
    LimitReading { service: service.settings.name.as_str().to_owned(), load, principals }
}
