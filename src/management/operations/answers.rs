//! Answers kept for a caller that repeats a request: whoever lost the answer to a change of a key can fetch it again.

use std::sync::{Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

use super::keyring::{KeyRow, Owner};
use super::rows::{self, Rows};
use super::{KeyView, Versioned};
use crate::catalog::{KeySlot, ServiceEntry, ServiceName};
use crate::management::{Cause, Refusal};
use crate::store::{Batch, Expect, Store, Table};

/// How long an answer is kept.
const KEPT: Duration = Duration::hours(24);

/// Longest id of a request, in characters.
const MAX_ID: usize = 100;

/// How many answers are looked at for ones that are over, whenever one is added: more than one, so that there are never
/// many more than those of the last 24 hours.
const SWEPT: usize = 16;

/// The answer to a change of a key. The key in it is sealed for its place among the service's keys.
#[derive(Serialize, Deserialize)]
struct AnswerRow {
    service: ServiceName,
    /// Tells the service from a later one of its name.
    #[serde(with = "time::serde::rfc3339")]
    service_created_at: OffsetDateTime,
    slot: KeySlot,
    /// Hex digest of the key that was asked for; `None`: one was to be generated.
    asked: Option<String>,
    key: KeyRow,
    #[serde(with = "time::serde::rfc3339")]
    answered_at: OffsetDateTime,
}

/// A change of a key as its caller named it.
pub(super) struct Request<'a> {
    /// The caller.
    pub(super) principal: &'a str,
    /// What it calls the change.
    pub(super) id: &'a str,
    pub(super) service: &'a ServiceEntry,
    pub(super) slot: KeySlot,
    /// Hex digest of the key that is asked for.
    pub(super) asked: Option<String>,
    /// Now.
    pub(super) at: OffsetDateTime,
}

/// Where the search for answers that are over goes on.
#[derive(Default)]
pub(super) struct Sweep(Mutex<Option<Vec<u8>>>);

impl Request<'_> {
    /// Its row. The principal is encoded, since it may hold a `/`.
    fn key(&self) -> String {
        format!("{}/{}", URL_SAFE_NO_PAD.encode(self.principal), self.id)
    }

    /// The answer that this request has had before.
    ///
    /// # Errors
    /// The id is none, or stands for another change.
    pub(super) fn answer(&self, store: &dyn Store, owner: &Owner<'_>) -> Result<Option<KeyView>, Refusal> {
        if !(1..=MAX_ID).contains(&self.id.len()) || !self.id.bytes().all(|b| b.is_ascii_graphic()) {
            let problem = format!("a request id has 1 to {MAX_ID} visible ASCII characters");
            return Err(Refusal::invalid("request_id", problem));
        }
        let kept: Option<Versioned<AnswerRow>> = rows::get(store, Table::Answers, &self.key())?;
        let Some(answer) = kept.map(|kept| kept.value).filter(|answer| !answer.is_over(self.at)) else {
            return Ok(None);
        };
        if answer.service != self.service.name || answer.slot != self.slot || answer.asked != self.asked {
            return Err(self.reused(&answer));
        }
        if answer.service_created_at != self.service.provenance.created_at {
            // The service that it was about is gone.
            return Ok(None);
        }
        answer.key.view(owner, self.slot).map(Some)
    }

    fn reused(&self, answer: &AnswerRow) -> Refusal {
        let message = format!(
            "this request id was used for another change, of the {} key of service {}; take a new one",
            answer.slot.as_str(),
            answer.service
        );
        Refusal { target: Some("request_id".into()), ..Refusal::new(Cause::Conflict, message) }
    }

    /// Keeps `key` as the answer, in `batch`, and removes a few answers that are over.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(super) fn keep(
        &self,
        store: &dyn Store,
        sweep: &Sweep,
        key: &KeyRow,
        batch: &mut Batch,
    ) -> Result<(), Refusal> {
        let own = self.key();
        let before = store.get(Table::Answers, own.as_bytes())?;
        let row = AnswerRow {
            service: self.service.name.clone(),
            service_created_at: self.service.provenance.created_at,
            slot: self.slot,
            asked: self.asked.clone(),
            key: key.clone(),
            answered_at: self.at,
        };
        let expect = before.map_or(Expect::Absent, |before| Expect::Version(before.version));
        batch.expect(Table::Answers, own.as_str(), expect);
        batch.put(Table::Answers, own.as_str(), rows::encode(&row)?);
        sweep.go_on(store, own.as_bytes(), self.at, batch)
    }
}

impl Sweep {
    /// Looks at the next few answers and removes those that are over, `but` for one.
    fn go_on(
        &self,
        store: &dyn Store,
        but: &[u8],
        now: OffsetDateTime,
        batch: &mut Batch,
    ) -> Result<(), Refusal> {
        let mut place = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut last = None;
        for row in Rows::new(store, Table::Answers, &[], place.take()).take(SWEPT) {
            let row = row?;
            // What cannot be read is of no use to anybody.
            let is_over = rows::decode::<AnswerRow>(Table::Answers, &row)
                .map_or(true, |answer| answer.value.is_over(now));
            if is_over && row.key != but {
                batch.remove(Table::Answers, row.key.as_slice());
            }
            last = Some(row.key);
        }
        // At the end it begins anew.
        *place = last;
        Ok(())
    }
}

impl AnswerRow {
    fn is_over(&self, now: OffsetDateTime) -> bool {
        now - self.answered_at >= KEPT
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::OpenSealer;
    use super::super::{SuppliedKeys, keyring::KeyPairRow};
    use super::*;
    use crate::catalog::{ComputeType, Origin, Provenance, ServiceSpec};
    use crate::store::MemoryStore;

    const NOW: OffsetDateTime = time::macros::datetime!(2026-11-24 12:00 UTC);

    fn service() -> ServiceEntry {
        ServiceEntry {
            name: ServiceName::parse("iris").unwrap(),
            workspace: "ws".into(),
            spec: ServiceSpec::new(ComputeType::Aks),
            origin: Origin::Managed,
            provenance: Provenance {
                created_at: NOW,
                created_by: "ann".into(),
                updated_at: NOW,
                updated_by: "ann".into(),
            },
        }
    }

    fn request<'a>(service: &'a ServiceEntry, principal: &'a str, id: &'a str) -> Request<'a> {
        Request { principal, id, service, slot: KeySlot::Primary, asked: None, at: NOW }
    }

    fn keep(store: &MemoryStore, sweep: &Sweep, request: &Request<'_>) -> String {
        let owner = Owner { sealer: &OpenSealer, workspace: "ws", service: &request.service.name };
        let pair = KeyPairRow::new(&owner, SuppliedKeys::default(), request.at).unwrap();
        let mut batch = Batch::default();
        request.keep(store, sweep, pair.key(KeySlot::Primary), &mut batch).unwrap();
        store.commit(batch).unwrap();
        pair.key(KeySlot::Primary).id.clone()
    }

    fn answer(store: &MemoryStore, request: &Request<'_>) -> Result<Option<String>, Cause> {
        let owner = Owner { sealer: &OpenSealer, workspace: "ws", service: &request.service.name };
        let answer = request.answer(store, &owner).map_err(|refusal| refusal.cause)?;
        Ok(answer.map(|view| view.id))
    }

    #[test]
    fn an_answer_is_kept_for_a_day_for_its_caller_alone() {
        let (store, sweep, service) = (MemoryStore::default(), Sweep::default(), service());
        let mine = request(&service, "ann", "r1");
        assert_eq!(answer(&store, &mine), Ok(None));
        let id = keep(&store, &sweep, &mine);
        let after = |hours| Request { at: NOW + Duration::hours(hours), ..request(&service, "ann", "r1") };
        assert_eq!(answer(&store, &after(23)), Ok(Some(id)));
        assert_eq!(answer(&store, &after(24)), Ok(None));
        assert_eq!(answer(&store, &request(&service, "bob", "r1")), Ok(None));
    }

    #[test]
    fn principals_and_ids_cannot_be_mistaken_for_each_other() {
        let service = service();
        assert_ne!(request(&service, "a/b", "c").key(), request(&service, "a", "b/c").key());
    }

    #[test]
    fn an_id_that_stands_for_another_change_is_refused() {
        let (store, sweep, service) = (MemoryStore::default(), Sweep::default(), service());
        keep(&store, &sweep, &request(&service, "ann", "r1"));
        let other_slot = Request { slot: KeySlot::Secondary, ..request(&service, "ann", "r1") };
        assert_eq!(answer(&store, &other_slot), Err(Cause::Conflict));
        let other_value = Request { asked: Some("00".into()), ..request(&service, "ann", "r1") };
        assert_eq!(answer(&store, &other_value), Err(Cause::Conflict));
        let mut other = service.clone();
        other.name = ServiceName::parse("wine").unwrap();
        assert_eq!(answer(&store, &request(&other, "ann", "r1")), Err(Cause::Conflict));
        for bad in ["", "a b", "\u{e9}", &"x".repeat(101)] {
            assert_eq!(answer(&store, &request(&service, "ann", bad)), Err(Cause::Invalid), "{bad}");
        }
    }

    #[test]
    fn the_answer_of_a_service_that_is_gone_is_not_that_of_its_successor() {
        let (store, sweep, service) = (MemoryStore::default(), Sweep::default(), service());
        keep(&store, &sweep, &request(&service, "ann", "r1"));
        let mut successor = service.clone();
        successor.provenance.created_at += Duration::SECOND;
        assert_eq!(answer(&store, &request(&successor, "ann", "r1")), Ok(None));
    }

    #[test]
    fn answers_that_are_over_go_as_new_ones_come() {
        let (store, sweep, service) = (MemoryStore::default(), Sweep::default(), service());
        for number in 0..100 {
            keep(&store, &sweep, &request(&service, "ann", &format!("old-{number}")));
        }
        let at = NOW + Duration::hours(25);
        for number in 0..20 {
            keep(&store, &sweep, &Request { at, ..request(&service, "ann", &format!("new-{number}")) });
        }
        let left = Rows::new(&store, Table::Answers, &[], None).count();
        assert_eq!(left, 20);
    }
}
