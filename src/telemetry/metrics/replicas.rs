//! Replicas by what they may get, asked for at each scrape.

use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;

use super::family::{self, Samples};
use super::services::OTHERS;

/// Most deployments with series of their own; the rest is shown together.
const MAX_DEPLOYMENTS: usize = 1000;

/// How the replicas of one deployment stand.
#[derive(Clone, Debug)]
pub struct ReplicaReading {
    /// Its service.
    pub service: Arc<str>,
    /// Its name.
    pub deployment: Arc<str>,
    /// How many replicas are in each state.
    pub states: Vec<(&'static str, usize)>,
    /// Ejections so far.
    pub ejections: u64,
}

/// Asks whoever holds the replicas.
pub(super) struct ReplicaCollector<R> {
    read: R,
    descs: [Desc; 2],
}

impl<R: Fn() -> Vec<ReplicaReading>> ReplicaCollector<R> {
    pub(super) fn new(read: R) -> Self {
        Self { read, descs: [family::REPLICAS.desc(), family::REPLICA_EJECTIONS.desc()] }
    }
}

impl<R: Fn() -> Vec<ReplicaReading> + Send + Sync> Collector for ReplicaCollector<R> {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut replicas = Samples::of_gauge(family::REPLICAS);
        let mut ejections = Samples::of_counter(family::REPLICA_EJECTIONS);
        for reading in together((self.read)()) {
            let (service, deployment) = (&*reading.service, &*reading.deployment);
            for (state, count) in reading.states {
                replicas.add(&[service, deployment, state], count as f64);
            }
            ejections.add(&[service, deployment], reading.ejections as f64);
        }
        vec![replicas.into_family(), ejections.into_family()]
    }
}

/// The readings, with those past the bound added up.
fn together(mut readings: Vec<ReplicaReading>) -> Vec<ReplicaReading> {
    if readings.len() <= MAX_DEPLOYMENTS {
        return readings;
    }
    let rest = readings.split_off(MAX_DEPLOYMENTS);
    let summed = rest.into_iter().reduce(|mut sum, next| {
        sum.states.iter_mut().zip(next.states).for_each(|((_, sum), (_, count))| *sum += count);
        ReplicaReading { ejections: sum.ejections + next.ejections, ..sum }
    });
    readings.extend(summed.map(|sum| ReplicaReading {
        service: OTHERS.into(),
        deployment: "".into(),
        ..sum
    }));
    readings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn past_the_bound_deployments_share_their_series() {
        let reading = |number: usize| ReplicaReading {
            service: format!("service-{number}").into(),
            deployment: "blue".into(),
            states: vec![("ready", 2), ("ejected", 1)],
            ejections: 3,
        };
        let collector = ReplicaCollector::new(move || (0..MAX_DEPLOYMENTS + 2).map(reading).collect());
        let families = collector.collect();
        assert_eq!(families[0].get_metric().len(), 2 * (MAX_DEPLOYMENTS + 1));
        let others = families[0].get_metric().last().unwrap();
        assert_eq!(others.get_label()[0].value(), OTHERS);
        assert_eq!(others.get_gauge().get_value(), 2.0);
        assert_eq!(families[1].get_metric().last().unwrap().get_counter().get_value(), 6.0);
    }
}
