//! Parts of the contract that this version does not act on: checked for shape, and said so.

use super::super::decode::At;
use super::super::document::PlaceId;
use super::super::raw::RawSecret;
use super::Resolver;

impl Resolver<'_> {
    pub(super) fn no_effect(&mut self, at: PlaceId) {
        self.report.warning(at, "has no effect in this version of scoregate");
    }

    /// The secret itself is not read: nothing would use it.
    pub(super) fn reference(&mut self, raw: &At<RawSecret>) {
        if raw.file.is_some() == raw.env.is_some() {
            self.report.error(raw.at, "must be exactly one of {file: PATH} and {env: NAME}");
        }
    }
}
