//! Records of calls, read back from the file that this gateway appends them to.

use std::cell::RefCell;
use std::collections::HashMap;

use serde_json::Value;

use super::{Operations, Page, PageOf};
use crate::catalog::Action;
use crate::management::{Caller, Cause, Refusal};
use crate::telemetry::metrics::DestinationStats;
use crate::telemetry::reader::{ReadError, RecordCursor, RecordFilter};

impl Operations {
    /// What became of the records of all calls, by where they go.
    ///
    /// # Errors
    /// Without the right to read records on the gateway.
    pub fn record_stats(&self, caller: &Caller) -> Result<Vec<DestinationStats>, Refusal> {
        caller.check(Action::RecordsRead, None)?;
        Ok(self.published.data_plane().record_stats())
    }

    /// Records, newest first, as they were written: of the services that are in `workspace` now; `None`: of all calls, also
    /// of those that found no service.
    ///
    /// # Errors
    /// Without the right to read records there (`None`: on the gateway); an unknown workspace or cursor; records go to no
    /// file, or it cannot be read.
    pub fn records(
        &self,
        caller: &Caller,
        workspace: Option<&str>,
        filter: &RecordFilter,
        page: &Page,
    ) -> Result<PageOf<Value>, Refusal> {
        let place = workspace.map(|name| self.place(name)).transpose()?;
        caller.check(Action::RecordsRead, place.as_ref().and_then(|place| place.resource.scope()))?;
        if let Some(place) = &place {
            place.existing()?;
        }
        let log = self.settings.records.as_ref().ok_or_else(|| {
            let message =
                "there are no records to be read: telemetry.records.file is not set in the configuration";
            Refusal::new(Cause::NotFound, message)
        })?;
        let after = page.after()?.map(|key| cursor(&key)).transpose()?;
        // Asked once per service and page; the first failure of the store ends the page.
        let known: RefCell<HashMap<String, bool>> = RefCell::default();
        let failed = RefCell::new(None);
        let is_here = |service: Option<&str>| {
            let (Some(place), Some(service)) = (&place, service) else { return place.is_none() };
            if let Some(known) = known.borrow().get(service) {
                return *known;
            }
            let found = self.compute_type(place, service).map(|found| found.is_some());
            let is_here = found.unwrap_or_else(|refusal| {
                failed.borrow_mut().get_or_insert(refusal);
                false
            });
            known.borrow_mut().insert(service.to_owned(), is_here);
            is_here
        };
        let found = log.page(filter, is_here, page.limit, after).map_err(|error| match error {
            ReadError::Rotated => Refusal::invalid("cursor", error.to_string()),
            ReadError::Io(_) => {
                tracing::error!(%error, "records cannot be read back");
                Refusal::new(Cause::Unavailable, "the record file cannot be read at the moment")
            }
        })?;
        match failed.into_inner() {
            Some(refusal) => Err(refusal),
            None => Ok(PageOf {
                items: found.records,
                next: found.next.map(|next| Page::cursor_of(next.to_text().as_bytes())),
            }),
        }
    }
}

fn cursor(key: &[u8]) -> Result<RecordCursor, Refusal> {
    std::str::from_utf8(key).ok().and_then(RecordCursor::parse).ok_or_else(|| {
        Refusal::invalid("cursor", "is no cursor of this list; pass on what the page before gave as next")
    })
}
