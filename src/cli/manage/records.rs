//! Records of a running gateway, for `scoregate records` without `--file`.

use std::collections::VecDeque;

use serde_json::Value;
use time::format_description::well_known::Rfc3339;

use super::Session;
use super::api::Api;
use crate::cli::records::Which;

/// Records fetched per question.
const USUAL: usize = 200;

/// Most records fetched where the usual number does not reach back to the question before.
const MOST: usize = 10_000;

/// Request ids that are remembered: pages are newest first, and these tell where the page before began.
const REMEMBERED: usize = 20_000;

impl Session<'_> {
    /// Up to `limit` records, newest first.
    ///
    /// # Errors
    /// The API's refusal.
    pub(in super::super) fn records(&self, which: &Which, limit: usize) -> anyhow::Result<Vec<Value>> {
        self.api.list("/v1/records", &self.query(which)?, limit)
    }

    /// What became of the records, by where they go.
    ///
    /// # Errors
    /// The API's refusal.
    pub(in super::super) fn record_stats(&self) -> anyhow::Result<Vec<Value>> {
        let answer = self.api.get("/v1/records/stats")?;
        Ok(answer.get("items").and_then(Value::as_array).cloned().unwrap_or_default())
    }

    /// Follows the records, beginning with the `first` newest ones.
    ///
    /// # Errors
    /// A time that cannot be written.
    pub(in super::super) fn follow_records(self, which: &Which, first: usize) -> anyhow::Result<NewRecords> {
        let query = self.query(which)?;
        Ok(NewRecords { query, api: self.api, seen: VecDeque::new(), first: Some(first) })
    }

    fn query(&self, which: &Which) -> anyhow::Result<Vec<(&'static str, String)>> {
        let time = |time: Option<time::OffsetDateTime>| time.map(|time| time.format(&Rfc3339)).transpose();
        let workspace = if which.gateway { None } else { self.workspace.clone() };
        let named = [
            ("service", which.service.clone()),
            ("status", which.status.clone()),
            ("reason", which.reason.clone()),
            ("request_id", which.request_id.clone()),
            ("from", time(which.from)?),
            ("to", time(which.to)?),
            ("workspace", workspace),
        ];
        Ok(named.into_iter().filter_map(|(name, value)| value.map(|value| (name, value))).collect())
    }
}

/// Records as they come.
pub(in super::super) struct NewRecords {
    api: Api,
    query: Vec<(&'static str, String)>,
    seen: VecDeque<String>,
    /// How many to begin with; `None`: begun.
    first: Option<usize>,
}

impl NewRecords {
    /// Those that were not there at the last question, oldest first.
    ///
    /// # Errors
    /// The API's refusal.
    pub fn next(&mut self) -> anyhow::Result<Vec<Value>> {
        let mut newest = self.api.list("/v1/records", &self.query, USUAL)?;
        if self.first.is_none() && newest.len() == USUAL && !newest.iter().any(|record| self.has_seen(record))
        {
            newest = self.api.list("/v1/records", &self.query, MOST)?;
        }
        newest.retain(|record| !self.has_seen(record));
        self.seen.extend(newest.iter().rev().map(|record| id(record).to_owned()));
        while self.seen.len() > REMEMBERED {
            self.seen.pop_front();
        }
        if let Some(first) = self.first.take() {
            newest.truncate(first);
        }
        newest.reverse();
        Ok(newest)
    }

    fn has_seen(&self, record: &Value) -> bool {
        self.seen.iter().rev().any(|seen| seen == id(record))
    }
}

fn id(record: &Value) -> &str {
    record.get("RequestId").and_then(Value::as_str).unwrap_or_default()
}
