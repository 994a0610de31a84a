//! The keys that sign scoring tokens and what was taken back of these, per workspace, as stored.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::rows::{self, Rows};
use super::{Operations, Versioned};
use crate::auth::{PublicKey, Revoked, SigningKey, TokenSettings};
use crate::management::{Cause, Refusal};
use crate::store::seal::Sealer;
use crate::store::{Batch, Expect, Store, Table};

/// Most tokens, and most principals, of one workspace that are revoked at a time; each is dropped when its last token is
/// over.
const MAX_REVOKED: usize = 10_000;

/// A signing key of a workspace. At most one is not retired: the current one.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct SigningKeyRow {
    kid: String,
    /// The uncompressed point, in base64.
    public: String,
    /// The private key in PKCS#8, sealed for its place, in base64.
    sealed: String,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    /// The longest lifetime of a token that it may have signed, in seconds.
    longest_lifetime_s: u64,
    #[serde(with = "time::serde::rfc3339::option", default, skip_serializing_if = "Option::is_none")]
    retired_at: Option<OffsetDateTime>,
    /// Of a retired one: when its last token is over.
    #[serde(with = "time::serde::rfc3339::option", default, skip_serializing_if = "Option::is_none")]
    verify_until: Option<OffsetDateTime>,
}

/// Tokens that are refused before their time.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct RevocationRow {
    /// Of a principal: tokens issued in or before this second since the epoch.
    issued_until: u64,
    /// When the last of them is over anyway.
    #[serde(with = "time::serde::rfc3339")]
    until: OffsetDateTime,
}

/// What is revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Revocation<'a> {
    /// One token, by its `jti`.
    Token(&'a str),
    /// All tokens of a principal so far.
    Principal(&'a str),
}

/// All that verifying the tokens of a workspace takes, as it is stored.
pub(super) struct TokenState {
    /// The workspace's name in lower case.
    workspace: String,
    /// The current one first, then the retired ones whose tokens are not all over.
    keys: Vec<Versioned<SigningKeyRow>>,
    revoked: Revoked,
}

/// Private keys in use, unsealed. They are wiped when they are dropped.
#[derive(Default)]
pub(super) struct SigningKeys(Mutex<HashMap<String, Arc<SigningKey>>>);

impl SigningKeys {
    /// A panic under this lock leaves a whole entry or none.
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<SigningKey>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets the private key called `kid`.
    pub(super) fn forget(&self, kid: &str) {
        self.lock().remove(kid);
    }
}

impl TokenState {
    /// Reads the state of the workspace with this key.
    pub(super) fn load(store: &dyn Store, workspace: &str, now: OffsetDateTime) -> Result<Self, Refusal> {
        let prefix = format!("{workspace}/");
        let mut keys = Rows::new(store, Table::SigningKeys, prefix.as_bytes(), None)
            .map(|row| rows::decode::<SigningKeyRow>(Table::SigningKeys, &row?))
            .filter(|key| key.as_ref().map_or(true, |key| !key.value.is_over(now)))
            .collect::<Result<Vec<_>, _>>()?;
        keys.sort_by_key(|key| (key.value.retired_at.is_some(), std::cmp::Reverse(key.value.created_at)));
        let mut revoked = Revoked::default();
        for row in Rows::new(store, Table::Revocations, prefix.as_bytes(), None) {
            let row = row?;
            let value = rows::decode::<RevocationRow>(Table::Revocations, &row)?.value;
            if value.until > now {
                note(&mut revoked, &row.key[prefix.len()..], value.issued_until);
            }
        }
        Ok(Self { workspace: workspace.to_owned(), keys, revoked })
    }

    /// The key that signs now.
    pub(super) fn current(&self) -> Option<&Versioned<SigningKeyRow>> {
        self.keys.first().filter(|key| key.value.retired_at.is_none())
    }

    /// Longest lifetime of any token that may be out, in seconds.
    fn longest_lifetime_s(&self) -> u64 {
        self.keys.iter().map(|key| key.value.longest_lifetime_s).max().unwrap_or(0)
    }

    /// The public keys, the current one first.
    ///
    /// # Errors
    /// A row is damaged.
    pub(super) fn public_keys(&self) -> Result<Vec<PublicKey>, Refusal> {
        self.keys.iter().map(|key| key.value.public()).collect()
    }

    /// What the data plane verifies by.
    ///
    /// # Errors
    /// A row is damaged.
    pub(super) fn settings(self, leeway: Duration) -> Result<TokenSettings, Refusal> {
        Ok(TokenSettings {
            issuer: issuer(&self.workspace),
            keys: self.public_keys()?,
            leeway,
            revoked: Arc::new(self.revoked),
        })
    }

    /// Makes a key the current one, in `batch` too, for tokens up to this lifetime. Gives its name.
    ///
    /// # Errors
    /// It cannot be made or sealed.
    pub(super) fn add_key(
        &mut self,
        sealer: &dyn Sealer,
        lifetime: Duration,
        now: OffsetDateTime,
        batch: &mut Batch,
    ) -> Result<String, Refusal> {
        let row = SigningKeyRow::generate(sealer, &self.workspace, lifetime.as_secs(), now)?;
        let (key, kid) = (row.key(&self.workspace), row.kid.clone());
        batch.expect(Table::SigningKeys, key.as_str(), Expect::Absent);
        batch.put(Table::SigningKeys, key, rows::encode(&row)?);
        self.keys.insert(0, Versioned { value: row, version: 0 });
        Ok(kid)
    }

    /// Has the current key sign tokens of this lifetime, making one if there is none.
    ///
    /// # Errors
    /// It cannot be made or sealed.
    pub(super) fn allow(
        &mut self,
        sealer: &dyn Sealer,
        lifetime: Duration,
        now: OffsetDateTime,
        batch: &mut Batch,
    ) -> Result<(), Refusal> {
        let Some(Versioned { value: mut row, version }) = self.current().cloned() else {
            return self.add_key(sealer, lifetime, now, batch).map(drop);
        };
        let key = row.key(&self.workspace);
        batch.expect(Table::SigningKeys, key.as_str(), Expect::Version(version));
        if row.longest_lifetime_s < lifetime.as_secs() {
            row.longest_lifetime_s = lifetime.as_secs();
            batch.put(Table::SigningKeys, key, rows::encode(&row)?);
            self.keys[0].value = row;
        }
        Ok(())
    }

    /// Retires the current key: it signs no more, and verifies until its last token is over. Gives the longest lifetime of
    /// its tokens.
    ///
    /// # Errors
    /// A defect.
    pub(super) fn retire(
        &mut self,
        leeway: Duration,
        now: OffsetDateTime,
        batch: &mut Batch,
    ) -> Result<Option<Duration>, Refusal> {
        let Some(Versioned { value: mut row, version }) = self.current().cloned() else { return Ok(None) };
        let longest = Duration::from_secs(row.longest_lifetime_s);
        row.retired_at = Some(now);
        row.verify_until = Some(now + longest + leeway);
        let key = row.key(&self.workspace);
        batch.expect(Table::SigningKeys, key.as_str(), Expect::Version(version));
        batch.put(Table::SigningKeys, key, rows::encode(&row)?);
        self.keys[0].value = row;
        Ok(Some(longest))
    }

    /// Revokes, in `batch` too.
    ///
    /// # Errors
    /// [`Cause::Conflict`] if too much is revoked already.
    pub(super) fn revoke(
        &mut self,
        what: Revocation<'_>,
        leeway: Duration,
        now: OffsetDateTime,
        batch: &mut Batch,
    ) -> Result<(), Refusal> {
        let (revoked, kind) = match what {
            Revocation::Token(_) => (self.revoked.tokens.len(), "tokens"),
            Revocation::Principal(_) => (self.revoked.principals.len(), "principals"),
        };
        if revoked >= MAX_REVOKED {
            let message = format!(
                "{MAX_REVOKED} {kind} of this workspace are revoked already; wait until the first of them are over anyway, \
                 or revoke principals, which takes back all tokens of each at once"
            );
            return Err(Refusal::new(Cause::Conflict, message));
        }
        let issued_until = u64::try_from(now.unix_timestamp()).unwrap_or(0);
        let until = now + Duration::from_secs(self.longest_lifetime_s()) + leeway;
        let row = RevocationRow { issued_until, until };
        batch.put(Table::Revocations, format!("{}/{what}", self.workspace), rows::encode(&row)?);
        note(&mut self.revoked, what.to_string().as_bytes(), issued_until);
        Ok(())
    }
}

/// How a revocation is named below its workspace.
impl fmt::Display for Revocation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(id) => write!(f, "{TOKEN}{id}"),
            Self::Principal(name) => write!(f, "{PRINCIPAL}{name}"),
        }
    }
}

const TOKEN: &str = "token/";
const PRINCIPAL: &str = "principal/";

fn note(revoked: &mut Revoked, name: &[u8], issued_until: u64) {
    let name = String::from_utf8_lossy(name);
    if let Some(id) = name.strip_prefix(TOKEN) {
        revoked.tokens.insert(id.into());
    } else if let Some(principal) = name.strip_prefix(PRINCIPAL) {
        revoked.principals.insert(principal.into(), issued_until);
    }
}

impl SigningKeyRow {
    fn generate(
        sealer: &dyn Sealer,
        workspace: &str,
        longest_lifetime_s: u64,
        now: OffsetDateTime,
    ) -> Result<Self, Refusal> {
        let key = SigningKey::generate().map_err(|error| {
            tracing::error!(%error, "no signing key");
            Refusal::new(Cause::Internal, "the gateway could not make a signing key")
        })?;
        let kid = key.public().kid().to_string();
        let sealed = sealer.seal(workspace, &place(workspace, &kid), &key.to_pkcs8())?;
        Ok(Self {
            public: STANDARD.encode(key.public().point()),
            sealed: STANDARD.encode(sealed),
            kid,
            created_at: now,
            longest_lifetime_s,
            retired_at: None,
            verify_until: None,
        })
    }

    pub(super) fn kid(&self) -> &str {
        &self.kid
    }

    fn key(&self, workspace: &str) -> String {
        format!("{workspace}/{}", self.kid)
    }

    fn is_over(&self, now: OffsetDateTime) -> bool {
        self.verify_until.is_some_and(|until| until <= now)
    }

    fn public(&self) -> Result<PublicKey, Refusal> {
        let point = STANDARD.decode(&self.public).ok();
        let key = point.and_then(|point| PublicKey::from_point(&point).ok());
        key.ok_or_else(|| damaged(&self.kid))
    }

    fn unseal(&self, sealer: &dyn Sealer, workspace: &str) -> Result<SigningKey, Refusal> {
        let sealed = STANDARD.decode(&self.sealed).map_err(|_| damaged(&self.kid))?;
        let secret = sealer.open(workspace, &place(workspace, &self.kid), &sealed)?;
        SigningKey::from_pkcs8(secret.expose_secret()).map_err(|_| damaged(&self.kid))
    }
}

impl Operations {
    /// What tokens of services of a workspace are verified by from `batch` on, which makes the workspace's first signing key
    /// if it has none.
    pub(super) fn verification(
        &self,
        workspace: &str,
        lifetime: Duration,
        now: OffsetDateTime,
        batch: &mut Batch,
    ) -> Result<Arc<TokenSettings>, Refusal> {
        let mut state = TokenState::load(&*self.store, workspace, now)?;
        state.allow(&*self.sealer, lifetime, now, batch)?;
        Ok(self.published.shared(state.settings(self.settings.token_leeway)?))
    }

    /// The private key of `public`, unsealed at its first use.
    pub(super) fn signing_key(
        &self,
        workspace: &str,
        public: &PublicKey,
    ) -> Result<Arc<SigningKey>, Refusal> {
        let kid = &**public.kid();
        if let Some(key) = self.signing_keys.lock().get(kid) {
            return Ok(Arc::clone(key));
        }
        let row: Option<Versioned<SigningKeyRow>> =
            rows::get(&*self.store, Table::SigningKeys, &format!("{workspace}/{kid}"))?;
        let row = row.ok_or_else(|| damaged(kid))?;
        let key = Arc::new(row.value.unseal(&*self.sealer, workspace)?);
        self.signing_keys.lock().insert(kid.to_owned(), Arc::clone(&key));
        Ok(key)
    }

    /// Removes signing keys and revocations whose last token is over, and has services of the workspaces in question forget
    /// them. To be called once a minute or so.
    ///
    /// # Errors
    /// The store cannot be used; nothing has changed.
    pub fn forget_expired_tokens(&self) -> Result<(), Refusal> {
        let now = OffsetDateTime::now_utc();
        for workspace in self.workspaces_with_expired(now)? {
            self.upkeep(|batch| {
                let prefix = format!("{workspace}/");
                for row in Rows::new(&*self.store, Table::SigningKeys, prefix.as_bytes(), None) {
                    let row = row?;
                    let key: Versioned<SigningKeyRow> = rows::decode(Table::SigningKeys, &row)?;
                    if key.value.is_over(now) {
                        self.signing_keys.forget(&key.value.kid);
                        batch.remove(Table::SigningKeys, row.key);
                    }
                }
                for row in Rows::new(&*self.store, Table::Revocations, prefix.as_bytes(), None) {
                    let row = row?;
                    if rows::decode::<RevocationRow>(Table::Revocations, &row)?.value.until <= now {
                        batch.remove(Table::Revocations, row.key);
                    }
                }
                let state = TokenState::load(&*self.store, &workspace, now)?;
                let settings = Arc::new(state.settings(self.settings.token_leeway)?);
                Ok(self.published.verifying_by(&settings))
            })?;
        }
        Ok(())
    }

    fn workspaces_with_expired(&self, now: OffsetDateTime) -> Result<Vec<String>, Refusal> {
        let mut found = Vec::new();
        for table in [Table::SigningKeys, Table::Revocations] {
            for row in Rows::new(&*self.store, table, &[], None) {
                let row = row?;
                let is_over = if table == Table::SigningKeys {
                    rows::decode::<SigningKeyRow>(table, &row)?.value.is_over(now)
                } else {
                    rows::decode::<RevocationRow>(table, &row)?.value.until <= now
                };
                let key = String::from_utf8_lossy(&row.key).into_owned();
                if is_over && let Some((workspace, _)) = key.split_once('/') {
                    found.push(workspace.to_owned());
                }
            }
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }
}

/// Has the current keys of all workspaces vouch for tokens of the lifetime that services have which set none: it may be a
/// longer one than before.
///
/// # Errors
/// The store cannot be used.
pub(super) fn allow_default_lifetime(store: &dyn Store, lifetime: Duration) -> Result<(), Refusal> {
    let mut batch = Batch::default();
    for row in Rows::new(store, Table::SigningKeys, &[], None) {
        let row = row?;
        let Versioned { value: mut key, version } = rows::decode::<SigningKeyRow>(Table::SigningKeys, &row)?;
        if key.retired_at.is_none() && key.longest_lifetime_s < lifetime.as_secs() {
            key.longest_lifetime_s = lifetime.as_secs();
            batch.expect(Table::SigningKeys, row.key.as_slice(), Expect::Version(version));
            batch.put(Table::SigningKeys, row.key, rows::encode(&key)?);
        }
    }
    if !batch.changes.is_empty() {
        store.commit(batch)?;
    }
    Ok(())
}

/// `iss` of a workspace's tokens. It does not hold the gateway's URL, so that a move leaves tokens valid.
fn issuer(workspace: &str) -> String {
    format!("scoregate/{workspace}")
}

/// Where a sealed signing key belongs.
fn place(workspace: &str, kid: &str) -> String {
    format!("signing_keys/{workspace}/{kid}")
}

fn damaged(kid: &str) -> Refusal {
    tracing::error!(kid, "a stored signing key is damaged");
    Refusal::new(Cause::Internal, "a stored signing key cannot be used; see the gateway's log")
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::OpenSealer;
    use super::*;
    use crate::store::MemoryStore;

    const NOW: OffsetDateTime = time::macros::datetime!(2026-11-24 12:00 UTC);

    fn load(store: &MemoryStore) -> TokenState {
        TokenState::load(store, "ws", NOW).unwrap()
    }

    #[test]
    fn the_first_service_makes_the_key_and_longer_tokens_keep_it_for_longer() {
        let store = MemoryStore::default();
        let allow = |seconds| {
            let mut batch = Batch::default();
            load(&store).allow(&OpenSealer, Duration::from_secs(seconds), NOW, &mut batch).unwrap();
            store.commit(batch).unwrap();
            load(&store).current().unwrap().value.clone()
        };
        let first = allow(60);
        assert_eq!(allow(30).longest_lifetime_s, 60);
        let longer = allow(90);
        assert_eq!((longer.longest_lifetime_s, longer.kid), (90, first.kid));
    }

    #[test]
    fn a_sealed_key_signs_as_the_public_one_says() {
        let row = SigningKeyRow::generate(&OpenSealer, "ws", 60, NOW).unwrap();
        let key = row.unseal(&OpenSealer, "ws").unwrap();
        assert_eq!(key.public(), &row.public().unwrap());
        assert_eq!(&**key.public().kid(), row.kid());
        assert!(row.unseal(&OpenSealer, "other").is_err());
        let damaged = SigningKeyRow { public: "AAAA".into(), ..row };
        assert_eq!(damaged.public().unwrap_err().cause, Cause::Internal);
    }

    #[test]
    fn revocations_are_bounded() {
        let store = MemoryStore::default();
        let mut batch = Batch::default();
        let until = NOW + Duration::from_secs(60);
        for number in 0..MAX_REVOKED {
            let row = RevocationRow { issued_until: 0, until };
            batch.put(Table::Revocations, format!("ws/token/{number}"), rows::encode(&row).unwrap());
        }
        store.commit(batch).unwrap();
        let revoke = |what| {
            let done = load(&store).revoke(what, Duration::ZERO, NOW, &mut Batch::default());
            done.map_err(|refusal| refusal.cause)
        };
        assert_eq!(revoke(Revocation::Token("one-more")), Err(Cause::Conflict));
        assert_eq!(revoke(Revocation::Principal("ann")), Ok(()));
        assert_eq!(TokenState::load(&store, "ws", until).unwrap().revoked, Revoked::default(), "all over");
    }
}
