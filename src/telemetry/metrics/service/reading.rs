//! What a service has counted until now, in numbers: for those who keep a history of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{Block, Code, ServiceMetrics};
use crate::error::Reason;
use crate::telemetry::metrics::histogram::Reading;

/// What one service has counted until now, all threads together.
#[derive(Clone, Debug, Default)]
pub struct ServiceReading {
    /// Calls that have ended.
    pub(in crate::telemetry) calls: HashMap<CallKind, u64>,
    /// How long they took.
    pub(in crate::telemetry) duration: Reading,
    /// Of bodies, both ways.
    pub(in crate::telemetry) bytes: u64,
    /// Of prompts and completions.
    pub(in crate::telemetry) tokens: [u64; 2],
    /// Calls that have begun and not ended.
    pub(in crate::telemetry) in_flight: u64,
}

/// Calls that are told apart from others.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::telemetry) struct CallKind {
    /// `None`: none was chosen, or its name is not told apart any more.
    pub deployment: Option<Arc<str>>,
    pub code: Code,
    pub reason: Reason,
}

impl ServiceMetrics {
    /// Adds what it has counted to `reading`; nothing, if these are the counts of many services or of none.
    pub(in crate::telemetry::metrics) fn read(&self, reading: &mut ServiceReading) {
        for block in self.present_blocks() {
            for series in block.all_series() {
                let deployment = series.deployment.clone();
                let kind = CallKind { deployment, code: series.code, reason: series.reason };
                *reading.calls.entry(kind).or_default() += series.count.load(Relaxed);
            }
            reading.duration.add(&block.duration);
        }
        let sum = |part: fn(&Block) -> &AtomicU64| {
            let parts = self.present_blocks().map(|block| part(block).load(Relaxed));
            parts.fold(0u64, u64::wrapping_add)
        };
        reading.bytes += sum(|block| &block.request_bytes) + sum(|block| &block.response_bytes);
        reading.tokens[0] += sum(|block| &block.prompt_tokens);
        reading.tokens[1] += sum(|block| &block.completion_tokens);
        // Who meets an end before its beginning sees less than nothing.
        reading.in_flight += u64::try_from(sum(|block| &block.in_flight).cast_signed()).unwrap_or(0);
    }

    /// The service's name; `None`: these are the counts of many, or of calls that found none.
    pub(in crate::telemetry::metrics) fn name(&self) -> Option<&Arc<str>> {
        self.compute_type.is_some().then_some(&self.service)
    }
}
