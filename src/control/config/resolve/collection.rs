//! Samples of inputs and outputs: where they go, and which services leave some.

use std::ops::RangeInclusive;

use super::super::decode::At;
use super::super::raw::{RawCollect, RawPrivacy, RawService, RawTelemetry};
use super::super::units::{RawDuration, RawSize};
use super::Resolver;
use super::service::sizes;
use crate::proxy::CollectSettings;
use crate::telemetry::CollectionSettings;

/// Bounds of all files together: the largest line fits many times, and it is no slip of the pen.
const SIZES: RangeInclusive<RawSize> = RawSize(16 << 20)..=RawSize(1 << 40);
/// Bounds of the time that files stay after their day.
const TIMES: RangeInclusive<RawDuration> = RawDuration::secs(3600)..=RawDuration::secs(365 * 24 * 3600);
const PRIVATE: &str =
    "keeps what callers send and get, which telemetry.privacy: high forbids; remove one of them";

impl Resolver<'_> {
    pub(super) fn data_collection(&mut self, raw: &RawTelemetry) -> Option<CollectionSettings> {
        let section = raw.data_collection.as_ref()?;
        if is_private(raw) {
            self.report.error(section.at, PRIVATE);
        }
        self.text(&section.path);
        Some(CollectionSettings {
            path: self.files.locate(&section.path),
            size: self.size(&section.size, SIZES),
            keep: self.duration(&section.keep, TIMES),
        })
    }

    pub(super) fn collect(&mut self, raw: &At<RawCollect>) -> CollectSettings {
        self.within(raw.sample.at, &raw.sample.value, &CollectSettings::SAMPLE);
        let (inputs, outputs) = (raw.inputs.value, raw.outputs.value);
        if !inputs && !outputs {
            self.report.error(raw.at, CollectSettings::NOTHING);
        }
        let body_bytes = self.size(&raw.body_bytes, sizes(CollectSettings::BODY_BYTES));
        let body_bytes = usize::try_from(body_bytes).unwrap_or(usize::MAX);
        CollectSettings { sample: raw.sample.value, body_bytes, inputs, outputs }
    }

    /// What services leave must have a place to go to.
    pub(super) fn collected_somewhere(&mut self, services: &[At<RawService>], telemetry: &RawTelemetry) {
        let problem = if is_private(telemetry) {
            PRIVATE
        } else if telemetry.data_collection.is_none() {
            "needs telemetry.data_collection, which says where it goes; add that section"
        } else {
            return;
        };
        for section in services.iter().filter_map(|service| service.data_collection.as_ref()) {
            self.report.error(section.at, problem);
        }
    }
}

const fn is_private(telemetry: &RawTelemetry) -> bool {
    matches!(telemetry.privacy.value, RawPrivacy::High)
}
