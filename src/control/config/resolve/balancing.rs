//! How the replicas of a deployment share its calls.

use std::time::Duration;

use http::HeaderName;

use super::super::decode::At;
use super::super::raw::{RawBalancing, RawDeployment, RawEjection, RawEjections};
use super::super::units::RawDuration;
use super::Resolver;
use super::service::durations;
use crate::upstream::{Balancing, BalancingSettings, EjectionSettings};

impl Resolver<'_> {
    /// How the replicas of `raw` share its calls.
    pub(super) fn balancing(&mut self, raw: &RawDeployment) -> BalancingSettings {
        BalancingSettings {
            policy: self.policy(&raw.balancing),
            slow_start: raw.slow_start.as_ref().map_or(Duration::ZERO, |field| {
                self.duration(field, durations(Duration::ZERO..=BalancingSettings::MOST_SLOW_START))
            }),
            ejection: match &raw.ejection.value {
                RawEjection::Off => None,
                RawEjection::On(on) => Some(self.ejection(on)),
            },
        }
    }

    fn policy(&mut self, field: &At<RawBalancing>) -> Balancing {
        match &field.value {
            RawBalancing::LeastBusy => Balancing::LeastBusy,
            RawBalancing::RoundRobin => Balancing::RoundRobin,
            RawBalancing::Hash(name) => match name.parse::<HeaderName>() {
                Ok(name) => Balancing::Hash(name),
                Err(_) => {
                    self.report.error(field.at, format!("'{name}' is no header name; correct it"));
                    Balancing::default()
                }
            },
        }
    }

    fn ejection(&mut self, raw: &RawEjections) -> EjectionSettings {
        let time = self.duration(&raw.time, durations(EjectionSettings::TIMES));
        let most_time = match &raw.most_time {
            None => EjectionSettings::default().most_time.max(time),
            Some(field) => {
                let most_time = self.duration(field, durations(EjectionSettings::TIMES));
                if most_time < time {
                    let time = RawDuration(time);
                    self.report.error(
                        field.at,
                        format!("{} is shorter than time ({time}); make it at least as long", field.value),
                    );
                }
                most_time
            }
        };
        EjectionSettings {
            failures: self.number(&raw.failures, EjectionSettings::FAILURES),
            time,
            most_time,
            // More than 100 is reported.
            keep: u8::try_from(self.number(&raw.keep, EjectionSettings::KEEP)).unwrap_or(100),
        }
    }
}
