//! Interim answers on their way out before the final one.

use std::cell::RefCell;

use http::{HeaderMap, StatusCode, Version};

use crate::wire::{Interim, head};

use super::wire::Wire;

/// What may wait for a client that reads none of it. Beyond, it goes without: interim answers are hints.
const HELD_LIMIT: usize = 16 * 1024;

/// Puts the interim answers to one request into its connection's outbox.
pub(super) struct InterimWriter<'a> {
    pub wire: &'a RefCell<Wire>,
    pub version: Version,
}

impl Interim for InterimWriter<'_> {
    fn pass(&self, status: StatusCode, headers: HeaderMap) {
        let outbox = &mut self.wire.borrow_mut().outbox;
        // HTTP/1.0 knows none, and takes one for the answer itself (RFC 9110 15.2).
        if self.version == Version::HTTP_11 && outbox.len() < HELD_LIMIT {
            head::encode_interim(outbox, status, &headers);
        }
    }
}
