//! How calls are tried again.

use http::StatusCode;

use super::super::decode::At;
use super::super::raw::RawRetry;
use super::Resolver;
use super::service::sizes;
use crate::catalog::Replay;
use crate::upstream::RetrySettings;

impl Resolver<'_> {
    pub(super) fn retry(&mut self, raw: &RawRetry) -> RetrySettings {
        let replay = raw.replay.value.into();
        for status in &raw.statuses {
            self.within(status.at, &status.value, &RetrySettings::STATUSES);
        }
        if let (Some(first), Replay::Never) = (raw.statuses.first(), replay) {
            self.report.error(
                first.at,
                "a call that was answered has been run, and retry.replay says never; set replay, or remove statuses",
            );
        }
        let body_bytes = self.size(&raw.body_bytes, sizes(RetrySettings::BODY_BYTES));
        RetrySettings {
            attempts: self.number(&raw.attempts, RetrySettings::ATTEMPTS),
            replay,
            body_bytes: usize::try_from(body_bytes).unwrap_or(usize::MAX),
            budget: self.number(&raw.budget, RetrySettings::BUDGET),
            statuses: raw.statuses.iter().filter_map(status).collect(),
        }
    }
}

fn status(field: &At<u16>) -> Option<StatusCode> {
    StatusCode::from_u16(field.value).ok()
}
