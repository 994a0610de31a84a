//! Rates: how many calls in a time.

use super::super::decode::At;
use super::super::raw::{RawLimits, RawRate};
use super::Resolver;
use crate::limit::{RateLimits, RateSettings};

impl Resolver<'_> {
    /// The rates of a service.
    pub(super) fn rates(&mut self, raw: &RawLimits) -> RateLimits {
        RateLimits {
            service: raw.rate.as_ref().and_then(|rate| self.rate(rate)),
            per_principal: raw.rate_per_principal.as_ref().and_then(|rate| self.rate(rate)),
        }
    }

    fn rate(&mut self, raw: &At<RawRate>) -> Option<RateSettings> {
        let per_second = self.required(raw.at, "requests_per_second", &raw.requests_per_second)?;
        self.within(per_second.at, &per_second.value, &RateSettings::PER_SECOND);
        let burst = raw.burst.as_ref().map(|burst| self.number(burst, RateSettings::BURST));
        Some(RateSettings::new(per_second.value, burst))
    }
}
