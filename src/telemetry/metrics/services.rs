//! The counts of all services by name: made at a service's first call, and no more of them than a monitoring system can take.

use std::collections::HashMap;
use std::sync::Arc;

use super::service::ServiceMetrics;
use crate::catalog::ComputeType;

/// Most services with series of their own. A service has some 75 series, and a page of all of them must stay one that is
/// read in seconds.
pub const MAX_SERVICES: usize = 1000;

/// The `service` label of all others together; no service can have this name.
pub(super) const OTHERS: &str = "_other";

/// Services that were called.
#[derive(Default)]
pub(super) struct Services {
    by_name: HashMap<(Arc<str>, ComputeType), Arc<ServiceMetrics>>,
    others: Option<Arc<ServiceMetrics>>,
}

impl Services {
    /// The counts of a service. When there are too many, those of services that are gone make room; if none is, the new
    /// one is counted among the others.
    pub(super) fn get(&mut self, name: &Arc<str>, compute_type: ComputeType) -> Arc<ServiceMetrics> {
        let key = (Arc::clone(name), compute_type);
        if let Some(known) = self.by_name.get(&key) {
            return Arc::clone(known);
        }
        if self.by_name.len() >= MAX_SERVICES {
            self.fold_gone();
        }
        if self.by_name.len() >= MAX_SERVICES {
            return Arc::clone(self.others());
        }
        let new = Arc::new(ServiceMetrics::new(Arc::clone(name), Some(compute_type)));
        self.by_name.insert(key, Arc::clone(&new));
        new
    }

    /// All counts there are.
    pub(super) fn all(&self) -> Vec<Arc<ServiceMetrics>> {
        self.by_name.values().chain(&self.others).cloned().collect()
    }

    /// Adds the counts that no snapshot holds any more to the others'.
    fn fold_gone(&mut self) {
        let others = Arc::clone(self.others());
        self.by_name.retain(|_, counts| {
            let in_use = Arc::strong_count(counts) > 1;
            if !in_use {
                others.absorb(counts);
            }
            in_use
        });
    }

    fn others(&mut self) -> &Arc<ServiceMetrics> {
        self.others.get_or_insert_with(|| Arc::new(ServiceMetrics::of_many(OTHERS.into())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::record::Record;

    fn name(number: usize) -> Arc<str> {
        format!("service-{number}").into()
    }

    #[test]
    fn past_the_bound_services_share_and_gone_ones_make_room() {
        let mut services = Services::default();
        let mut held: Vec<_> =
            (0..MAX_SERVICES).map(|number| services.get(&name(number), ComputeType::Aks)).collect();
        held.iter().for_each(|counts| counts.observe(&Record::sample()));
        let over = services.get(&name(MAX_SERVICES), ComputeType::Aks);
        let more = services.get(&name(MAX_SERVICES + 1), ComputeType::Aci);
        assert!(Arc::ptr_eq(&over, &more), "both among the others");
        over.observe(&Record::sample());
        assert_eq!(services.all().len(), MAX_SERVICES + 1);

        // A removed service's counts go to the others, none is lost.
        held.truncate(MAX_SERVICES - 2);
        let new = services.get(&name(MAX_SERVICES + 2), ComputeType::Aks);
        assert!(!Arc::ptr_eq(&new, &over));
        let calls: u64 = services.all().iter().map(|counts| counts.calls()).sum();
        assert_eq!(calls, MAX_SERVICES as u64 + 1);
        assert_eq!(services.others().calls(), 3);
        assert_eq!(services.all().len(), MAX_SERVICES);
        let again = services.get(&name(0), ComputeType::Aks);
        assert!(Arc::ptr_eq(&again, &held[0]), "one in use keeps its own");
    }

    #[test]
    fn a_scrape_under_way_only_puts_the_folding_off() {
        let mut services = Services::default();
        (0..MAX_SERVICES).for_each(|number| drop(services.get(&name(number), ComputeType::Aks)));
        let scrape = services.all();
        let shared = services.get(&name(MAX_SERVICES), ComputeType::Aks);
        drop(scrape);
        assert!(!Arc::ptr_eq(&shared, &services.get(&name(MAX_SERVICES), ComputeType::Aks)));
    }
}
