//! How a service went in the last 24 hours, asked for and told as Azure Monitor's "Metrics - List" does
//! (`Microsoft.Insights/metrics`, api-version 2018-01-01 and later).
//!
//! Where the gateway is not Azure: points are of whole minutes, nothing is older than 24 hours or than the process, and without
//! `metricnames` all metrics are told.

mod answer;
mod filter;
mod query;

use time::OffsetDateTime;

use super::Operations;
use super::place::{Place, no_service};
use super::resource::Resource;
use crate::catalog::{Action, ServiceEntry};
use crate::management::{Caller, Refusal};

pub use answer::MetricsAnswer;
pub use query::MetricsQuery;

impl Operations {
    /// How service `name` went, declared or not.
    ///
    /// # Errors
    /// Without the right to read metrics in the workspace; no such workspace or service.
    pub fn metrics(
        &self,
        caller: &Caller,
        workspace: &str,
        name: &str,
        query: &MetricsQuery,
    ) -> Result<MetricsAnswer, Refusal> {
        let place = self.place(workspace)?;
        caller.check(Action::MetricsRead, place.resource.scope())?;
        let location = place.existing()?.value.spec.location.clone();
        let service = self.measured(&place, name)?.ok_or_else(|| no_service(name))?;
        let resource: Resource = place.resource.service(service.spec.compute_type, service.name.as_str());
        // What was before belongs to another service that had this name.
        let span = query.span(service.provenance.created_at);
        let told = query.metrics.iter().map(|definition| {
            let filter = if definition.dimensions.is_empty() { &[] } else { query.filter.as_slice() };
            let mut series =
                self.settings.history.series(service.name.as_str(), definition.metric, &span, filter);
            series.truncate(query.most_series);
            (*definition, series)
        });
        Ok(MetricsAnswer::new(query, &resource, location, told))
    }

    fn measured(&self, place: &Place, name: &str) -> Result<Option<ServiceEntry>, Refusal> {
        match self.published.declared(name) {
            Some(settings) if place.is_declared() => Ok(Some(self.declared_entry(&settings).value)),
            Some(_) => Ok(None),
            None => Ok(self.stored_service(place, name)?.map(|found| found.value)),
        }
    }
}

/// The minute of a point in time, counted from 1970.
fn minute_of(at: OffsetDateTime) -> u32 {
    u32::try_from(at.unix_timestamp().div_euclid(60)).unwrap_or_default()
}
