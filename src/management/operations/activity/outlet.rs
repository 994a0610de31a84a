//! Events on their way out of the gateway.
//!
//! They are read from the log once they are committed, never handed over by what writes them: an outlet that lags, or a
//! process that was killed between the commit and the handing over, misses none.

use std::net::IpAddr;
use std::sync::PoisonError;

use serde::Serialize;
use time::OffsetDateTime;

use super::super::view::{ActivityEvent, ActivityStatus};
use super::super::{Operations, resource};
use super::{ROWS_AT_ONCE, chain, event};
use crate::management::Refusal;
use crate::store::{Order, Range, Table};
use crate::telemetry::Privacy;

/// Takes the events of the activity log out of the gateway, in their order.
///
/// It is asked from one thread at a time. One store with several processes would need one that follows.
pub trait EventOutlet: Send + Sync {
    /// The sequence of the last event that it has; `None`: it never had one, and wants those that come from now on.
    fn reached(&self) -> Option<u64>;

    /// Takes events, each as a line of JSON with its line end, up to the one with the sequence `reached`, and keeps them:
    /// they are not handed over again. No line: there is nothing up to there that it should have.
    fn take(&self, lines: &[u8], reached: u64);
}

/// An event as it leaves the gateway: Azure's names. What privacy leaves out is absent.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EventLine<'a> {
    #[serde(with = "time::serde::rfc3339")]
    event_timestamp: OffsetDateTime,
    sequence: u64,
    operation_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<&'a str>,
    operation_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    caller: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_ip_address: Option<IpAddr>,
    method: &'a str,
    resource_id: &'a str,
    status: ActivityStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_code: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    /// A copy elsewhere of the chain of hashes shows what no look at the store alone can: that it was made anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_hash: Option<&'a str>,
}

impl<'a> EventLine<'a> {
    fn new(event: &'a ActivityEvent, privacy: Privacy) -> Self {
        let line = Self {
            event_timestamp: event.event_timestamp,
            sequence: event.sequence,
            operation_id: &event.operation_id,
            correlation_id: Some(&event.correlation_id),
            operation_name: &event.operation_name,
            caller: Some(&event.caller).filter(|caller| !caller.is_empty()).map(String::as_str),
            client_ip_address: Some(event.client_ip_address),
            method: &event.method,
            resource_id: &event.resource_id,
            status: event.status,
            status_code: event.status_code,
            error: event.error.as_deref(),
            previous_hash: Some(&event.previous_hash),
        };
        match privacy {
            Privacy::Standard => line,
            Privacy::High => line.without_caller(),
        }
    }

    /// Without who called, from where, with which id of their own. Messages and some resources name principals; the hash
    /// is over all that, and few guesses would find what was left out.
    fn without_caller(self) -> Self {
        Self {
            correlation_id: None,
            caller: None,
            client_ip_address: None,
            resource_id: resource::without_principal(self.resource_id),
            error: self.error.map(|error| error.split_once(": ").map_or(error, |(code, _)| code)),
            previous_hash: None,
            ..self
        }
    }
}

impl Operations {
    /// Waits for the next event to be logged; returns at once if one was since the last time. For one task.
    pub async fn event_logged(&self) {
        self.logged.notified().await;
    }

    /// Hands the events that `outlet` does not have to it. Blocks on the store and the outlet.
    ///
    /// # Errors
    /// The log cannot be read. What was handed over until then is not handed over again.
    pub fn hand_out(&self, outlet: &dyn EventOutlet, privacy: Privacy) -> Result<(), Refusal> {
        let _alone = self.handing_out.lock().unwrap_or_else(PoisonError::into_inner);
        let head = chain::head(&*self.store)?.sequence;
        let Some(mut reached) = outlet.reached() else {
            outlet.take(&[], head);
            return Ok(());
        };
        if reached > head {
            tracing::warn!(
                reached,
                head,
                "events were sent out that the activity log does not have: its store is another one, or older; \
                 sending goes on from its end"
            );
            outlet.take(&[], head);
            return Ok(());
        }
        while reached < head {
            let rows = self.store.scan(&Range {
                table: Table::Activity,
                prefix: &[],
                after: Some(&reached.to_be_bytes()),
                limit: ROWS_AT_ONCE,
                order: Order::Forwards,
            })?;
            let events = rows.iter().map(event).collect::<Result<Vec<_>, _>>()?;
            let (Some(first), Some(last)) = (events.first(), events.last()) else { break };
            let gone = first.sequence.saturating_sub(reached + 1);
            if gone > 0 {
                tracing::warn!(
                    events = gone,
                    "events were removed from the activity log before they were sent out"
                );
            }
            outlet.take(&lines(&events, privacy)?, last.sequence);
            reached = last.sequence;
        }
        Ok(())
    }
}

fn lines(events: &[ActivityEvent], privacy: Privacy) -> Result<Vec<u8>, Refusal> {
    let mut lines = Vec::new();
    for event in events {
        serde_json::to_writer(&mut lines, &EventLine::new(event, privacy)).map_err(|error| {
            tracing::error!(%error, sequence = event.sequence, "an event cannot be written as a line");
            Refusal::new(crate::management::Cause::Internal, "an event cannot be written as a line")
        })?;
        lines.push(b'\n');
    }
    Ok(lines)
}

#[cfg(test)]
mod tests;
