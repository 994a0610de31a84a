//! Who callers are: management tokens, and what outside issuers vouch for.

mod bootstrap;
mod token;

use std::ops::RangeInclusive;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::resource::Resource;
use super::roles::check_name;
use super::rows::{Rows, decode, encode, get};
use super::{ManagementTokenView, Operations, OperationsSettings, Page, PageOf};
use crate::catalog::{Action, BuiltInRole};
use crate::management::{Caller, Cause, Credentials, Grants, Refusal, RequestFacts};
use crate::proxy::ServiceChanges;
use crate::store::{Batch, Expect, Table};

pub(super) use bootstrap::end_bootstrap;
use token::{Digest, Minted};

/// How long a management token may last: 1 minute to 366 days.
const LIFETIMES: RangeInclusive<Duration> = Duration::from_secs(60)..=Duration::from_secs(366 * 24 * 60 * 60);

/// Longest description, in bytes.
const MAX_DESCRIPTION: usize = 256;

/// The principal that the token of the configuration stands for. No other credential stands for it.
const CONFIGURED: &str = "bootstrap";

/// The principal that the bootstrap makes.
const FIRST_OWNER: &str = "owner";

/// A management token as it is kept.
#[derive(Serialize, Deserialize)]
struct StoredToken {
    #[serde(flatten)]
    view: ManagementTokenView,
    /// Hex SHA-256 of the whole token.
    digest: String,
}

/// The token of the configuration, if there is one.
#[derive(Default)]
pub(super) struct ConfiguredToken(Option<Digest>);

impl ConfiguredToken {
    /// Takes the token out of `settings`, since its digest is all that is needed from here on.
    ///
    /// # Errors
    /// It is too short to be a secret, or cannot be sent in a header.
    pub(super) fn take(settings: &mut OperationsSettings) -> Result<Self, Refusal> {
        let Some(token) = settings.bootstrap_token.take() else { return Ok(Self(None)) };
        let text = token.expose_secret();
        if !(20..=512).contains(&text.len()) || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Refusal::invalid(
                "management.bootstrap_token",
                "it has 20 to 512 visible ASCII characters, since it is a secret that travels in a header",
            ));
        }
        Ok(Self(Some(Digest::of(&token))))
    }

    const fn is_set(&self) -> bool {
        self.0.is_some()
    }
}

impl Operations {
    /// The caller that a management token (`Bearer`) stands for. Outside issuers' tokens are turned into a principal
    /// and groups before, by `management::credentials`, and come in by [`Self::outside_caller`].
    ///
    /// # Errors
    /// [`Cause::AuthInvalid`], the same for all that was ever wrong; [`Cause::AuthExpired`] for the right token too late.
    pub fn authenticate(&self, token: &SecretString, request: RequestFacts) -> Result<Caller, Refusal> {
        let digest = Digest::of(token);
        if digest.is(self.configured.0) {
            let grants = Grants { gateway: BuiltInRole::Owner.actions(), ..Grants::default() };
            return Ok(Caller { principal: CONFIGURED.into(), grants: grants.into(), request });
        }
        let id = token::id_of(token);
        let found = id.map(|id| get::<StoredToken>(&*self.store, Table::ManagementTokens, id)).transpose()?;
        let found = found.flatten().map(|row| row.value);
        if !digest.is(found.as_ref().and_then(|stored| Digest::parse(&stored.digest))) {
            return Err(unknown());
        }
        let Some(StoredToken { view, .. }) = found else { return Err(unknown()) };
        if OffsetDateTime::now_utc() >= view.expires_at {
            return Err(Refusal::new(Cause::AuthExpired, "the management token has expired; get a new one"));
        }
        let grants = self.current_roles()?.grants(&view.principal, &[]);
        Ok(Caller { principal: view.principal.into(), grants, request })
    }

    /// The outside issuers that vouch for callers.
    #[must_use]
    pub fn credentials(&self) -> &Credentials {
        &self.settings.credentials
    }

    /// The caller that an outside issuer vouches for.
    ///
    /// # Errors
    /// [`Cause::AuthInvalid`] for a name that only the gateway itself gives.
    pub fn outside_caller(
        &self,
        principal: &str,
        groups: &[String],
        request: RequestFacts,
    ) -> Result<Caller, Refusal> {
        if [CONFIGURED, FIRST_OWNER].contains(&principal) || check_name("sub", principal).is_err() {
            let message = "the token's subject is none that an outside issuer can vouch for";
            return Err(Refusal::new(Cause::AuthInvalid, message));
        }
        let grants = self.current_roles()?.grants(principal, groups);
        Ok(Caller { principal: principal.into(), grants, request })
    }

    /// Makes a management token for `principal`; returns it with its secret, which is never shown again. The caller must
    /// hold all that the principal is allowed.
    ///
    /// # Errors
    /// [`Cause::Escalation`] as told; a wrong principal, description or lifetime (1 minute to 366 days) by its field.
    pub fn create_management_token(
        &self,
        caller: &Caller,
        principal: &str,
        description: String,
        lifetime: Duration,
    ) -> Result<(ManagementTokenView, SecretString), Refusal> {
        let minted = token::token()?;
        let view =
            ManagementTokenView { description, ..view_of(&minted, principal, &caller.principal, lifetime) };
        let done = self.write(caller, Action::ManagementTokenWrite, &resource(&minted.id), |batch| {
            check_principal(principal)?;
            check_description(&view.description)?;
            if !LIFETIMES.contains(&lifetime) {
                return Err(Refusal::invalid("lifetime", "a management token lasts 1 minute to 366 days"));
            }
            if !caller.grants.covers(&self.current_roles()?.grants(principal, &[])) {
                return Err(Refusal::new(
                    Cause::Escalation,
                    format!("'{principal}' may do more than you; nobody can make a token for what they do not have"),
                ));
            }
            insert(batch, &view, &minted)?;
            Ok((view.clone(), ServiceChanges::default()))
        })?;
        Ok((done.value, minted.text))
    }

    /// Management tokens without their secrets, in the order of their ids; those that are over are among them.
    ///
    /// # Errors
    /// Without the right to see them.
    pub fn management_tokens(
        &self,
        caller: &Caller,
        page: &Page,
    ) -> Result<PageOf<ManagementTokenView>, Refusal> {
        caller.check(Action::ManagementTokenRead, None)?;
        let rows = Rows::new(&*self.store, Table::ManagementTokens, &[], page.after()?);
        page.fill(rows.map(|row| row.map(|row| (row.key.clone(), row))), |row| {
            Ok(Some(decode::<StoredToken>(Table::ManagementTokens, &row)?.value.view))
        })
    }

    /// Revokes a management token: the next call with it is refused.
    ///
    /// # Errors
    /// There is none of that id.
    pub fn revoke_management_token(&self, caller: &Caller, id: &str) -> Result<(), Refusal> {
        self.write(caller, Action::ManagementTokenDelete, &resource(id), |batch| {
            let found = self.store.get(Table::ManagementTokens, id.as_bytes())?;
            let found = found.ok_or_else(|| Refusal::not_found(format!("management token {id}")))?;
            batch.expect(Table::ManagementTokens, id, Expect::Version(found.version));
            batch.remove(Table::ManagementTokens, id);
            Ok(((), ServiceChanges::default()))
        })?;
        Ok(())
    }
}

fn insert(batch: &mut Batch, view: &ManagementTokenView, minted: &Minted) -> Result<(), Refusal> {
    let stored = StoredToken { view: view.clone(), digest: minted.digest.to_hex() };
    batch.expect(Table::ManagementTokens, view.id.as_str(), Expect::Absent);
    batch.put(Table::ManagementTokens, view.id.as_str(), encode(&stored)?);
    Ok(())
}

fn view_of(minted: &Minted, principal: &str, created_by: &str, lifetime: Duration) -> ManagementTokenView {
    let now = OffsetDateTime::now_utc();
    ManagementTokenView {
        id: minted.id.clone(),
        principal: principal.to_owned(),
        description: String::new(),
        created_at: now,
        created_by: created_by.to_owned(),
        // What is over the longest one is refused; here it must not overflow.
        expires_at: now + lifetime.min(*LIFETIMES.end()),
    }
}

fn check_principal(principal: &str) -> Result<(), Refusal> {
    check_name("principal", principal)?;
    if principal == CONFIGURED {
        let message = "'bootstrap' is the token of the configuration and nobody else";
        return Err(Refusal::invalid("principal", message));
    }
    Ok(())
}

fn check_description(description: &str) -> Result<(), Refusal> {
    if description.len() > MAX_DESCRIPTION || description.chars().any(char::is_control) {
        let message = format!("it has at most {MAX_DESCRIPTION} bytes and no control characters");
        return Err(Refusal::invalid("description", message));
    }
    Ok(())
}

fn resource(id: &str) -> Resource {
    Resource::of_gateway(&format!("Scoregate/managementTokens/{id}"))
}

/// One answer for a wrong form, an unknown id, a wrong secret and a revoked token.
fn unknown() -> Refusal {
    Refusal::new(Cause::AuthInvalid, "the credential is not one of this API")
}

#[cfg(test)]
mod tests;
