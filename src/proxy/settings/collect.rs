//! Which calls of a service leave a copy of their input and output, and how much of it.

use std::ops::RangeInclusive;

use crate::telemetry::record::RequestId;
use crate::telemetry::trace::SampleRatio;

/// Samples of a service's inputs and outputs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CollectSettings {
    /// Share of the scoring calls that are kept.
    pub sample: f64,
    /// Most bytes that are kept of an input and of an output, each from its beginning.
    pub body_bytes: usize,
    /// Whether inputs are kept.
    pub inputs: bool,
    /// Whether outputs are kept.
    pub outputs: bool,
}

impl CollectSettings {
    /// Bounds of `sample`.
    pub const SAMPLE: RangeInclusive<f64> = 0.0..=1.0;
    /// Bounds of `body_bytes`. With the upper one, a line whose every byte needs an escape is below 13 MiB: the smallest
    /// folder takes it.
    pub const BODY_BYTES: RangeInclusive<u64> = 1..=1 << 20;
    /// What is wrong with settings that keep neither inputs nor outputs.
    pub const NOTHING: &str =
        "inputs and outputs are both false, so that nothing would be kept; set one, or remove the section";

    /// Whether the call `id` is one of the sample: decided by the id alone, as for traces that begin here. So a smaller share
    /// is part of each larger one, and no two calls share a counter.
    #[must_use]
    pub fn takes(&self, id: &RequestId) -> bool {
        SampleRatio::new(self.sample).is_some_and(|share| share.takes(&id.trace_id()))
    }
}

/// All scoring calls, inputs and outputs, 64 KiB of each.
impl Default for CollectSettings {
    fn default() -> Self {
        Self { sample: 1.0, body_bytes: 64 << 10, inputs: true, outputs: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_of_ids_is_taken_and_a_smaller_one_is_part_of_a_larger_one() {
        let of = |sample| CollectSettings { sample, ..CollectSettings::default() };
        let ids: Vec<_> = (0..10_000).map(|_| RequestId::new()).collect();
        let count = |sample| ids.iter().filter(|id| of(sample).takes(id)).count();
        assert_eq!((count(0.0), count(1.0)), (0, ids.len()));
        // Five standard deviations: one run in two million is outside.
        assert!((850..1150).contains(&count(0.1)), "{}", count(0.1));
        assert!(ids.iter().all(|id| !of(0.1).takes(id) || of(0.3).takes(id)));
    }
}
