//! The two keys of a service as they are stored: a digest to judge calls by, the sealed key to show it again.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use time::OffsetDateTime;

use super::{KeyView, SuppliedKeys, generate, hex};
use crate::auth::{KeyDigest, KeySettings};
use crate::catalog::{KeySlot, ServiceName};
use crate::management::{Cause, Refusal};
use crate::store::seal::Sealer;

/// Both keys of a service in one row, so that no reader ever sees the one of before and the other of after.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct KeyPairRow {
    primary: KeyRow,
    secondary: KeyRow,
}

/// One key.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct KeyRow {
    /// Names the key without being it.
    pub(super) id: String,
    /// Hex SHA-256 of the key.
    digest: String,
    /// The key, sealed for its place, in base64.
    sealed: String,
    #[serde(with = "time::serde::rfc3339")]
    pub(super) created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option", default, skip_serializing_if = "Option::is_none")]
    pub(super) expires_at: Option<OffsetDateTime>,
    /// To the second; brought up to date once a minute.
    #[serde(with = "time::serde::rfc3339::option", default, skip_serializing_if = "Option::is_none")]
    pub(super) last_used_at: Option<OffsetDateTime>,
}

/// Whose keys they are, and what seals them.
pub(super) struct Owner<'a> {
    pub(super) sealer: &'a dyn Sealer,
    /// The workspace's name in lower case.
    pub(super) workspace: &'a str,
    pub(super) service: &'a ServiceName,
}

/// A key on its way into a row.
pub(super) struct NewKey {
    pub(super) value: SecretString,
    pub(super) digest: KeyDigest,
    pub(super) expires_at: Option<OffsetDateTime>,
}

impl NewKey {
    /// A generated key.
    ///
    /// # Errors
    /// No randomness to be had.
    pub(super) fn generated(expires_at: Option<OffsetDateTime>) -> Result<Self, Refusal> {
        let value = generate::key()?;
        let digest = generate::check_set("value", &value)?;
        Ok(Self { value, digest, expires_at })
    }

    /// A key that somebody sets; `field` is where it stands.
    ///
    /// # Errors
    /// It cannot be a key.
    pub(super) fn set(
        field: &str,
        value: SecretString,
        expires_at: Option<OffsetDateTime>,
    ) -> Result<Self, Refusal> {
        let digest = generate::check_set(field, &value)?;
        Ok(Self { value, digest, expires_at })
    }
}

impl KeyPairRow {
    /// The keys of a new service: those that came with it, generated ones for the rest.
    ///
    /// # Errors
    /// A key that cannot be one, or two that are the same.
    pub(super) fn new(
        owner: &Owner<'_>,
        supplied: SuppliedKeys,
        now: OffsetDateTime,
    ) -> Result<Self, Refusal> {
        let key = |slot: KeySlot, value: Option<SecretString>| match value {
            Some(value) => NewKey::set(field(slot), value, None),
            None => NewKey::generated(None),
        };
        let primary = key(KeySlot::Primary, supplied.primary)?;
        let secondary = key(KeySlot::Secondary, supplied.secondary)?;
        if same(primary.digest.digest(), secondary.digest.digest()) {
            return Err(not_distinct(field(KeySlot::Secondary)));
        }
        Ok(Self {
            primary: KeyRow::new(owner, KeySlot::Primary, &primary, now)?,
            secondary: KeyRow::new(owner, KeySlot::Secondary, &secondary, now)?,
        })
    }

    /// The key in `slot`.
    pub(super) const fn key(&self, slot: KeySlot) -> &KeyRow {
        match slot {
            KeySlot::Primary => &self.primary,
            KeySlot::Secondary => &self.secondary,
        }
    }

    /// Puts `key` into `slot`; `field` is where it came from.
    ///
    /// # Errors
    /// The other slot holds the same key.
    pub(super) fn replace(
        &mut self,
        owner: &Owner<'_>,
        slot: KeySlot,
        key: &NewKey,
        now: OffsetDateTime,
    ) -> Result<(), Refusal> {
        if self.key(other(slot)).is(&key.digest)? {
            return Err(not_distinct("value"));
        }
        *self.key_mut(slot) = KeyRow::new(owner, slot, key, now)?;
        Ok(())
    }

    /// Sets the keys that come with a replaced service; a key in place stays as it is. Tells whether one was changed.
    ///
    /// # Errors
    /// A key that cannot be one, or two that are the same.
    pub(super) fn supply(
        &mut self,
        owner: &Owner<'_>,
        supplied: SuppliedKeys,
        now: OffsetDateTime,
    ) -> Result<bool, Refusal> {
        let mut changed = false;
        for (slot, value) in [(KeySlot::Primary, supplied.primary), (KeySlot::Secondary, supplied.secondary)]
        {
            let Some(value) = value else { continue };
            let key = NewKey::set(field(slot), value, None)?;
            if !self.key(slot).is(&key.digest)? {
                *self.key_mut(slot) = KeyRow::new(owner, slot, &key, now)?;
                changed = true;
            }
        }
        if same(&self.primary.digest_bytes()?, &self.secondary.digest_bytes()?) {
            return Err(not_distinct(field(KeySlot::Secondary)));
        }
        Ok(changed)
    }

    /// What the data plane judges calls by.
    ///
    /// # Errors
    /// The row is damaged.
    pub(super) fn settings(&self) -> Result<KeySettings, Refusal> {
        Ok(KeySettings { primary: self.primary.judged_by()?, secondary: Some(self.secondary.judged_by()?) })
    }

    /// Notes when the keys were last used; tells whether that was news.
    pub(super) fn note_use(&mut self, last: [Option<OffsetDateTime>; 2]) -> bool {
        let [primary, secondary] = last;
        let first = self.primary.note_use(primary);
        self.secondary.note_use(secondary) || first
    }

    fn key_mut(&mut self, slot: KeySlot) -> &mut KeyRow {
        match slot {
            KeySlot::Primary => &mut self.primary,
            KeySlot::Secondary => &mut self.secondary,
        }
    }
}

impl KeyRow {
    fn new(owner: &Owner<'_>, slot: KeySlot, key: &NewKey, now: OffsetDateTime) -> Result<Self, Refusal> {
        let id = generate::key_id()?;
        let secret = key.value.expose_secret().as_bytes();
        let sealed = owner.sealer.seal(owner.workspace, &place(owner.service, slot, &id), secret)?;
        Ok(Self {
            id,
            digest: hex::encode(key.digest.digest()),
            sealed: STANDARD.encode(sealed),
            created_at: now,
            expires_at: key.expires_at,
            last_used_at: None,
        })
    }

    /// Whether `digest` is this key's.
    ///
    /// # Errors
    /// The row is damaged.
    pub(super) fn is(&self, digest: &KeyDigest) -> Result<bool, Refusal> {
        Ok(same(&self.digest_bytes()?, digest.digest()))
    }

    /// The key as those see it who may list keys.
    ///
    /// # Errors
    /// It cannot be unsealed.
    pub(super) fn view(&self, owner: &Owner<'_>, slot: KeySlot) -> Result<KeyView, Refusal> {
        let sealed = STANDARD.decode(&self.sealed).map_err(|_| damaged(&self.id))?;
        let value = unseal(owner, &place(owner.service, slot, &self.id), &sealed)?;
        Ok(KeyView {
            slot,
            id: self.id.clone(),
            value,
            created_at: self.created_at,
            last_used_at: self.last_used_at,
            expires_at: self.expires_at,
        })
    }

    fn judged_by(&self) -> Result<KeyDigest, Refusal> {
        let digest = KeyDigest::from_parts(self.digest_bytes()?, self.expires_at.map(Into::into));
        Ok(digest.made_at(self.created_at.into()))
    }

    fn digest_bytes(&self) -> Result<[u8; 32], Refusal> {
        hex::decode(&self.digest).ok_or_else(|| damaged(&self.id))
    }

    fn note_use(&mut self, last: Option<OffsetDateTime>) -> bool {
        // What is seen from before this key was made was another key's.
        let news =
            last.filter(|last| *last >= self.created_at.replace_nanosecond(0).unwrap_or(self.created_at));
        let is_news = news > self.last_used_at;
        if is_news {
            self.last_used_at = news;
        }
        is_news
    }
}

/// Opens a secret of text.
///
/// # Errors
/// It cannot be unsealed.
pub(super) fn unseal(owner: &Owner<'_>, place: &str, sealed: &[u8]) -> Result<SecretString, Refusal> {
    let secret = owner.sealer.open(owner.workspace, place, sealed)?;
    let text = std::str::from_utf8(secret.expose_secret()).map_err(|_| damaged(place))?;
    Ok(text.into())
}

/// Where a sealed key belongs.
fn place(service: &ServiceName, slot: KeySlot, id: &str) -> String {
    format!("keys/{service}/{}/{id}", slot.as_str())
}

/// Where a key stands that comes with a service.
const fn field(slot: KeySlot) -> &'static str {
    match slot {
        KeySlot::Primary => "keys.primary",
        KeySlot::Secondary => "keys.secondary",
    }
}

const fn other(slot: KeySlot) -> KeySlot {
    match slot {
        KeySlot::Primary => KeySlot::Secondary,
        KeySlot::Secondary => KeySlot::Primary,
    }
}

fn same(one: &[u8; 32], two: &[u8; 32]) -> bool {
    one.ct_eq(two).into()
}

fn not_distinct(field: &str) -> Refusal {
    Refusal::invalid(
        field,
        "is the service's other key already; the two must differ, or neither can be changed alone",
    )
}

fn damaged(what: &str) -> Refusal {
    tracing::error!(what, "a stored key is damaged");
    Refusal::new(Cause::Internal, "the stored key cannot be read; see the gateway's log")
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::super::fixtures::OpenSealer;
    use super::*;

    const NOW: OffsetDateTime = time::macros::datetime!(2026-11-24 12:00:00.5 UTC);

    fn service() -> ServiceName {
        ServiceName::parse("iris").unwrap()
    }

    fn owner(service: &ServiceName) -> Owner<'_> {
        Owner { sealer: &OpenSealer, workspace: "ws", service }
    }

    fn supplied(primary: Option<&str>, secondary: Option<&str>) -> SuppliedKeys {
        SuppliedKeys { primary: primary.map(Into::into), secondary: secondary.map(Into::into) }
    }

    fn values(pair: &KeyPairRow) -> [String; 2] {
        let service = service();
        [KeySlot::Primary, KeySlot::Secondary]
            .map(|slot| pair.key(slot).view(&owner(&service), slot).unwrap().value.expose_secret().to_owned())
    }

    #[test]
    fn keys_are_supplied_or_generated_and_come_back() {
        let service = service();
        let pair = KeyPairRow::new(&owner(&service), supplied(Some("my own key"), None), NOW);
        assert_eq!(pair.err().unwrap().target.as_deref(), Some("keys.primary"), "a blank");
        let pair = KeyPairRow::new(&owner(&service), supplied(Some("my-own-key"), None), NOW).unwrap();
        let [primary, secondary] = values(&pair);
        assert_eq!(primary, "my-own-key");
        assert!(secondary.starts_with("sgk_"));
        let same = KeyPairRow::new(&owner(&service), supplied(Some("my-own-key"), Some("my-own-key")), NOW);
        assert_eq!(same.err().unwrap().target.as_deref(), Some("keys.secondary"));
    }

    #[test]
    fn the_row_shows_no_key_and_opens_at_its_own_place_only() {
        let service = service();
        let pair = KeyPairRow::new(&owner(&service), SuppliedKeys::default(), NOW).unwrap();
        let row = serde_json::to_string(&pair).unwrap();
        assert!(values(&pair).iter().all(|value| !row.contains(value)));
        let again: KeyPairRow = serde_json::from_str(&row).unwrap();
        assert_eq!(values(&again), values(&pair));
        let elsewhere = pair.primary.view(&owner(&service), KeySlot::Secondary);
        assert_eq!(elsewhere.err().unwrap().cause, Cause::Unavailable);
    }

    #[test]
    fn the_data_plane_gets_digests_of_the_keys_with_their_ends() {
        let service = service();
        let mut pair = KeyPairRow::new(&owner(&service), SuppliedKeys::default(), NOW).unwrap();
        let end = NOW + time::Duration::HOUR;
        let key = NewKey::set("value", "my-own-key".into(), Some(end)).unwrap();
        pair.replace(&owner(&service), KeySlot::Secondary, &key, NOW).unwrap();
        let settings = pair.settings().unwrap();
        let expected = KeyDigest::from_parts(*key.digest.digest(), Some(SystemTime::from(end)));
        assert_eq!(settings.secondary, Some(expected));
        let primary = KeyDigest::of(&values(&pair)[0].as_str().into()).unwrap();
        assert_eq!(settings.primary, primary);
    }

    #[test]
    fn a_replaced_key_has_a_new_id_and_no_past_and_differs_from_the_other() {
        let service = service();
        let mut pair = KeyPairRow::new(&owner(&service), supplied(None, Some("the-second")), NOW).unwrap();
        assert!(pair.note_use([Some(NOW), None]));
        let before = pair.clone();
        let key = NewKey::generated(None).unwrap();
        pair.replace(&owner(&service), KeySlot::Primary, &key, NOW).unwrap();
        assert_ne!(pair.primary.id, before.primary.id);
        assert_eq!((pair.primary.last_used_at, before.primary.last_used_at), (None, Some(NOW)));
        assert_eq!(pair.secondary.id, before.secondary.id);
        let key = NewKey::set("value", "the-second".into(), None).unwrap();
        let refusal = pair.replace(&owner(&service), KeySlot::Primary, &key, NOW).unwrap_err();
        assert_eq!((refusal.cause, refusal.target.as_deref()), (Cause::Invalid, Some("value")));
    }

    #[test]
    fn keys_that_come_with_a_replaced_service_leave_equal_ones_alone() {
        let service = service();
        let mut pair =
            KeyPairRow::new(&owner(&service), supplied(Some("the-first"), Some("the-second")), NOW).unwrap();
        let before = pair.clone();
        assert!(!pair.supply(&owner(&service), supplied(Some("the-first"), None), NOW).unwrap());
        assert_eq!(pair.primary.id, before.primary.id);
        let swapped = supplied(Some("the-second"), Some("the-first"));
        assert!(pair.supply(&owner(&service), swapped, NOW).unwrap());
        assert_eq!(values(&pair), ["the-second", "the-first"]);
        assert!(pair.supply(&owner(&service), supplied(Some("the-first"), None), NOW).is_err());
    }

    #[test]
    fn use_is_noted_if_it_is_news_and_of_this_key() {
        let service = service();
        let mut pair = KeyPairRow::new(&owner(&service), SuppliedKeys::default(), NOW).unwrap();
        let at = |seconds: i64| Some(NOW.replace_nanosecond(0).unwrap() + time::Duration::seconds(seconds));
        assert!(!pair.note_use([None, None]));
        assert!(!pair.note_use([at(-1), None]), "another key's");
        assert!(pair.note_use([None, at(0)]), "in the second it was made in");
        assert!(pair.note_use([at(5), at(5)]));
        assert!(!pair.note_use([at(5), at(4)]));
        assert_eq!((pair.primary.last_used_at, pair.secondary.last_used_at), (at(5), at(5)));
    }
}
