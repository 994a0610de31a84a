//! What is counted per call and service. Each worker thread counts in a block of its own, a scrape adds the blocks up: with
//! one block for all, the cores would spend more time on passing its cache lines around than on counting.

mod code;
mod reading;
mod samples;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use super::access::Access;
use super::delivery::{Collected, Delivery, Mirrored, Retried};
use super::exemplar::{ByBucket, Exemplars};
use super::histogram::Histogram;
use crate::catalog::ComputeType;
use crate::error::Reason;
use crate::telemetry::counter;
use crate::telemetry::record::{Record, Usage};

pub(in crate::telemetry) use code::Code;
pub(in crate::telemetry) use reading::CallKind;
pub use reading::ServiceReading;
pub(super) use samples::ServiceSamples;

/// The counts of one service, or of many together; looked up at its first call.
pub struct ServiceMetrics {
    service: Arc<str>,
    compute_type: Option<ComputeType>,
    deployments: Deployments,
    blocks: Box<[OnceLock<Arc<Block>>; counter::PLACES]>,
}

/// Whether calls are told apart by deployment.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Deployments {
    ByName,
    Together,
}

/// What one thread counts.
#[derive(Default)]
struct Block {
    /// Series made for deployments by name.
    named: AtomicUsize,
    requests: [OnceLock<Box<Series>>; SERIES_LISTS],
    /// Calls of deployments that were too many to be named.
    unnamed: AtomicU64,
    duration: Histogram,
    exemplars: Exemplars,
    first_byte: Histogram,
    queue_wait: Histogram,
    request_bytes: AtomicU64,
    response_bytes: AtomicU64,
    attempts: AtomicU64,
    prompt_tokens: AtomicU64,
    completion_tokens: AtomicU64,
    usage_unread: AtomicU64,
    access: [AtomicU64; Access::ALL.len()],
    in_flight: AtomicU64,
    tunnels: AtomicU64,
    delivery: Delivery,
}

/// Lists that the series of a block are spread over. A service has a handful of series; the lists keep finding one short also
/// after years of new deployments.
const SERIES_LISTS: usize = 32;

/// Most series for deployments by name that a block makes. Deployments come and go, and some pipelines give each its own
/// name: what comes after that many is counted without its deployment's name.
const MAX_NAMED: usize = 1024;

/// One series of `scoregate_requests_total` and the rest of its list, which only grows. Bounded: deployments by [`MAX_NAMED`],
/// reasons and codes come from closed sets.
struct Series {
    deployment: Option<Arc<str>>,
    code: Code,
    reason: Reason,
    count: AtomicU64,
    next: OnceLock<Box<Series>>,
}

/// A call that has begun and not ended, as long as it lives.
pub struct InFlight(Arc<Block>);

/// A call that has become a tunnel, as long as it lives.
pub struct InTunnel(Arc<Block>);

impl ServiceMetrics {
    pub(super) fn new(service: Arc<str>, compute_type: Option<ComputeType>) -> Self {
        let blocks = Box::new([const { OnceLock::new() }; counter::PLACES]);
        Self { service, compute_type, deployments: Deployments::ByName, blocks }
    }

    /// Counts of many services together, under the label `service`.
    pub(super) fn of_many(service: Arc<str>) -> Self {
        Self { deployments: Deployments::Together, ..Self::new(service, None) }
    }

    /// Adds what `other` has counted, which counts no more. Its exemplars are of the past and go.
    pub(super) fn absorb(&self, other: &Self) {
        let block = self.block();
        for theirs in other.present_blocks() {
            for series in theirs.all_series() {
                let deployment = self.deployment_label(series.deployment.as_ref());
                let ours = block.series(deployment, series.code, series.reason);
                ours.count.fetch_add(series.count.load(Relaxed), Relaxed);
            }
            block.duration.absorb(&theirs.duration);
            block.first_byte.absorb(&theirs.first_byte);
            block.queue_wait.absorb(&theirs.queue_wait);
            block.delivery.absorb(&theirs.delivery);
            for (ours, theirs) in block.access.iter().zip(&theirs.access) {
                ours.fetch_add(theirs.load(Relaxed), Relaxed);
            }
            for (ours, theirs) in [
                (&block.unnamed, &theirs.unnamed),
                (&block.request_bytes, &theirs.request_bytes),
                (&block.response_bytes, &theirs.response_bytes),
                (&block.attempts, &theirs.attempts),
                (&block.prompt_tokens, &theirs.prompt_tokens),
                (&block.completion_tokens, &theirs.completion_tokens),
                (&block.usage_unread, &theirs.usage_unread),
                (&block.in_flight, &theirs.in_flight),
                (&block.tunnels, &theirs.tunnels),
            ] {
                ours.fetch_add(theirs.load(Relaxed), Relaxed);
            }
        }
    }

    /// Calls counted.
    pub(super) fn calls(&self) -> u64 {
        self.present_blocks().flat_map(Block::all_series).map(|series| series.count.load(Relaxed)).sum()
    }

    /// Counts a call as begun, until the guard is dropped.
    #[must_use]
    pub fn start(&self) -> InFlight {
        let block = self.block();
        block.in_flight.fetch_add(1, Relaxed);
        InFlight(Arc::clone(block))
    }

    /// Counts a call as a tunnel, until the guard is dropped.
    #[must_use]
    pub fn start_tunnel(&self) -> InTunnel {
        let block = self.block();
        block.tunnels.fetch_add(1, Relaxed);
        InTunnel(Arc::clone(block))
    }

    /// Counts an attempt after one that failed.
    pub fn retried(&self, why: Retried) {
        self.block().delivery.retried(why);
    }

    /// Counts a failure that stood because the retry budget was used up.
    pub fn retry_budget_exhausted(&self) {
        self.block().delivery.exhausted();
    }

    /// Counts a copy of a call, made or not.
    pub fn mirrored(&self, outcome: Mirrored) {
        self.block().delivery.mirrored(outcome);
    }

    /// Counts a call whose input or output was to be collected.
    pub fn collected(&self, outcome: Collected) {
        self.block().delivery.collected(outcome);
    }

    /// Counts a call that has ended.
    pub fn observe(&self, record: &Record) {
        let block = self.block();
        let deployment = self.deployment_label(record.deployment.as_ref());
        block.series(deployment, Code::of(record.status), record.reason).count.fetch_add(1, Relaxed);
        block.exemplars.offer(block.duration.observe(record.duration), record);
        if let Some(first_byte) = record.first_byte {
            block.first_byte.observe(first_byte);
        }
        if let Some(queue) = record.queue {
            block.queue_wait.observe(queue);
        }
        for (count, more) in [
            (&block.request_bytes, record.request_bytes),
            (&block.response_bytes, record.response_bytes),
            (&block.attempts, u64::from(record.attempts)),
        ] {
            if more > 0 {
                count.fetch_add(more, Relaxed);
            }
        }
        if let Some(access) = Access::of(record) {
            block.access[access as usize].fetch_add(1, Relaxed);
        }
        if let Some(usage) = &record.usage {
            block.observe_usage(usage);
        }
    }

    /// The label `service`.
    pub(super) fn label(&self) -> &str {
        &self.service
    }

    /// Puts into `all` what exemplars are newer than those there.
    pub(super) fn exemplars(&self, all: &mut ByBucket) {
        self.present_blocks().for_each(|block| block.exemplars.add_to(all));
    }

    fn deployment_label<'a>(&self, deployment: Option<&'a Arc<str>>) -> Option<&'a Arc<str>> {
        deployment.filter(|_| self.deployments == Deployments::ByName)
    }

    /// This thread's block.
    fn block(&self) -> &Arc<Block> {
        self.blocks[counter::place()].get_or_init(Arc::default)
    }

    fn present_blocks(&self) -> impl Iterator<Item = &Block> {
        self.blocks.iter().filter_map(|block| block.get().map(|block| &**block))
    }
}

impl Block {
    fn observe_usage(&self, usage: &Usage) {
        for (count, more) in [
            (&self.prompt_tokens, usage.prompt_tokens.unwrap_or_default()),
            (&self.completion_tokens, usage.completion_tokens.unwrap_or_default()),
            (&self.usage_unread, usage.overlong.into()),
        ] {
            count.fetch_add(more.into(), Relaxed);
        }
    }

    fn series(&self, deployment: Option<&Arc<str>>, code: Code, reason: Reason) -> &Series {
        let name = deployment.map(|name| &**name);
        let mut place = &self.requests[list_of(name.unwrap_or_default())];
        loop {
            if deployment.is_some() && place.get().is_none() && self.named.load(Relaxed) >= MAX_NAMED {
                self.unnamed.fetch_add(1, Relaxed);
                return self.series(None, code, reason);
            }
            let series = place.get_or_init(|| {
                self.named.fetch_add(usize::from(deployment.is_some()), Relaxed);
                let count = AtomicU64::new(0);
                Box::new(Series {
                    deployment: deployment.cloned(),
                    code,
                    reason,
                    count,
                    next: OnceLock::new(),
                })
            });
            if series.code == code && series.reason == reason && series.deployment.as_deref() == name {
                return series;
            }
            place = &series.next;
        }
    }

    fn all_series(&self) -> impl Iterator<Item = &Series> {
        self.requests.iter().flat_map(|list| {
            std::iter::successors(list.get(), |series| series.next.get()).map(|series| &**series)
        })
    }
}

/// FNV-1a over a name of at most 32 bytes.
fn list_of(deployment: &str) -> usize {
    let hash = deployment
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    hash as usize % SERIES_LISTS
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

impl Drop for InTunnel {
    fn drop(&mut self) {
        self.0.tunnels.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deployments_past_the_bound_are_counted_without_their_names() {
        let service = ServiceMetrics::new("iris".into(), Some(ComputeType::Aks));
        let deployments = 3 * MAX_NAMED;
        for _ in 0..2 {
            for number in 0..deployments {
                let deployment = Some(format!("blue-{number}").into());
                service.observe(&Record { deployment, ..Record::sample() });
            }
        }
        assert_eq!(service.calls(), 2 * deployments as u64);
        let series: Vec<_> = service.present_blocks().flat_map(Block::all_series).collect();
        assert_eq!(series.len(), MAX_NAMED + 1);
        let nameless = series.iter().filter(|series| series.deployment.is_none());
        let rest = 2 * (deployments - MAX_NAMED) as u64;
        assert_eq!(nameless.map(|series| series.count.load(Relaxed)).collect::<Vec<_>>(), [rest]);
        let unnamed = service.present_blocks().map(|block| block.unnamed.load(Relaxed));
        assert_eq!(unnamed.sum::<u64>(), rest);
    }
}
