//! How busy services are and whom their rates tell apart, for autoscalers and whoever looks on.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;

use super::family::{self, Samples};
use super::services::{MAX_SERVICES, OTHERS};

/// How the limits of one service stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LimitReading {
    /// Its name.
    pub service: String,
    /// Of all its deployments that have a limit together; `None`: none has.
    pub load: Option<LoadReading>,
    /// `None`: callers have no rate each.
    pub principals: Option<PrincipalReading>,
}

/// How busy a service is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadReading {
    /// Calls that may be under way at once.
    pub slots: u64,
    /// Calls that are.
    pub busy: u64,
    /// Calls that wait.
    pub waiting: u64,
}

impl LoadReading {
    /// The same places with nobody in them.
    #[must_use]
    pub const fn at_rest(self) -> Self {
        Self { slots: self.slots, busy: 0, waiting: 0 }
    }
}

/// Whom the rate per caller tells apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrincipalReading {
    /// Callers with a count of their own.
    pub held: u64,
    /// Callers whose count had to make room for others'.
    pub forgotten: u64,
}

/// Asks at each scrape how the limits stand: places and buckets know, and nothing has to be kept in step.
pub(super) struct LimitCollector<R> {
    read: R,
    descs: [Desc; 6],
}

impl<R: Fn() -> Vec<LimitReading>> LimitCollector<R> {
    pub(super) fn new(read: R) -> Self {
        let families = [
            family::ADMISSION_SLOTS,
            family::ADMISSION_BUSY,
            family::ADMISSION_WAITING,
            family::UTILISATION,
            family::RATE_PRINCIPALS,
            family::RATE_FORGOTTEN,
        ];
        Self { read, descs: families.map(|family| family.desc()) }
    }
}

impl<R: Fn() -> Vec<LimitReading> + Send + Sync> Collector for LimitCollector<R> {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let [mut slots, mut busy, mut waiting, mut utilisation, mut principals] = [
            family::ADMISSION_SLOTS,
            family::ADMISSION_BUSY,
            family::ADMISSION_WAITING,
            family::UTILISATION,
            family::RATE_PRINCIPALS,
        ]
        .map(Samples::of_gauge);
        let mut forgotten = Samples::of_counter(family::RATE_FORGOTTEN);
        for reading in bounded((self.read)()) {
            let labels = [reading.service.as_str()];
            if let Some(load) = reading.load {
                slots.add(&labels, load.slots as f64);
                busy.add(&labels, load.busy as f64);
                waiting.add(&labels, load.waiting as f64);
                if load.slots > 0 {
                    utilisation.add(&labels, (load.busy + load.waiting) as f64 / load.slots as f64);
                }
            }
            if let Some(counts) = reading.principals {
                principals.add(&labels, counts.held as f64);
                forgotten.add(&labels, counts.forgotten as f64);
            }
        }
        let families = [slots, busy, waiting, utilisation, principals, forgotten];
        // The page of a gateway without limits says nothing of them.
        families
            .map(Samples::into_family)
            .into_iter()
            .filter(|family| !family.get_metric().is_empty())
            .collect()
    }
}

/// As many services as there may be series for; what is more goes together under one name.
fn bounded(mut readings: Vec<LimitReading>) -> Vec<LimitReading> {
    readings.retain(|reading| reading.load.is_some() || reading.principals.is_some());
    if readings.len() > MAX_SERVICES {
        let rest = readings.split_off(MAX_SERVICES);
        let others = LimitReading { service: OTHERS.to_owned(), ..LimitReading::default() };
        readings.push(rest.iter().fold(others, LimitReading::with));
    }
    readings
}

impl LimitReading {
    fn with(mut self, other: &Self) -> Self {
        if let Some(more) = other.load {
            let load = self.load.get_or_insert_default();
            load.slots += more.slots;
            load.busy += more.busy;
            load.waiting += more.waiting;
        }
        if let Some(more) = other.principals {
            let principals = self.principals.get_or_insert_default();
            principals.held += more.held;
            principals.forgotten += more.forgotten;
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(number: u64) -> LimitReading {
        LimitReading {
            service: format!("service-{number}"),
            load: Some(LoadReading { slots: 4, busy: 4, waiting: number }),
            principals: None,
        }
    }

    #[test]
    fn utilisation_counts_who_waits_as_well() {
        let families = LimitCollector::new(|| vec![reading(2)]).collect();
        let named = |name: &str| families.iter().find(|family| family.name() == name).unwrap();
        let value = |name: &str| named(name).get_metric()[0].get_gauge().get_value();
        assert!((value("scoregate_utilisation_ratio") - 1.5).abs() < f64::EPSILON);
        assert!((value("scoregate_admission_waiting") - 2.0).abs() < f64::EPSILON);
        assert!(!families.iter().any(|family| family.name() == "scoregate_rate_limit_principals"));
    }

    #[test]
    fn without_slots_there_is_no_ratio_and_without_limits_nothing() {
        let none = LimitReading { load: Some(LoadReading::default()), ..reading(0) };
        let families = LimitCollector::new(move || vec![none.clone()]).collect();
        assert!(!families.iter().any(|family| family.name() == "scoregate_utilisation_ratio"));
        assert_eq!(families.len(), 3);
        assert!(LimitCollector::new(|| vec![LimitReading::default()]).collect().is_empty());
    }

    #[test]
    fn past_the_bound_services_go_together() {
        let readings = bounded((0..MAX_SERVICES as u64 + 3).map(reading).collect());
        assert_eq!(readings.len(), MAX_SERVICES + 1);
        let others = readings.last().unwrap();
        let waiting = 3 * MAX_SERVICES as u64 + 3;
        assert_eq!(others.service, OTHERS);
        assert_eq!(others.load, Some(LoadReading { slots: 12, busy: 12, waiting }));
    }
}
