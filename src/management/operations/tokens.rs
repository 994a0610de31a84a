//! Scoring tokens: issued, revoked, and the change of the keys that sign them.
//!
//! Issuing one leaves no event and writes nothing: clients of the Azure SDK v1 ask for up to three tokens per call of a
//! model. A token is accounted for where it is used, by the record of each call.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use super::place::{no_service, shown};
use super::signing::{Revocation, TokenState};
use super::{Operations, ScoringToken, TokenRule};
use crate::auth::{AuthSettings, MintError, MintRequest, TokenSettings, mint};
use crate::catalog::{Action, AuthMode, ServiceEntry};
use crate::management::{Caller, Cause, Refusal};
use crate::proxy::ServiceChanges;

/// How long a token lives on after clients of the Azure SDK v1 begin to ask for the next one, if it lives that long.
const AFTER_REFRESH: Duration = Duration::from_secs(12 * 60 * 60);

/// Longest principal that can be revoked, in bytes; no token has a longer subject.
const MAX_PRINCIPAL: usize = 255;

impl Operations {
    /// A token that lets the caller call `service`. `refresh_after` is 12 hours before its end, or at half of its lifetime
    /// if that is later.
    ///
    /// # Errors
    /// No right to it by `rule`; [`Cause::Conflict`] for a service that takes no tokens of this gateway.
    pub fn issue_token(
        &self,
        caller: &Caller,
        workspace: &str,
        service: &str,
        rule: TokenRule,
    ) -> Result<ScoringToken, Refusal> {
        let place = self.place(workspace)?;
        let action = match rule {
            TokenRule::V1 => Action::WorkspaceRead,
            TokenRule::V2 => Action::EndpointToken,
        };
        caller.check(action, place.resource.scope())?;
        place.existing()?;
        if place.is_declared() && self.published.declared(service).is_some() {
            return Err(Refusal::new(Cause::Conflict, declared_tokens(service)));
        }
        let entry = self.stored_service(&place, service)?.ok_or_else(|| no_service(service))?.value;
        check_mode(&entry)?;
        let settings = self.verified_by(&entry)?;
        let lifetime = self.token_lifetime(&entry.spec)?;
        let now = not_revoked_at(&settings, &caller.principal, SystemTime::now());
        // The first one is the current one. What the data plane has is asked and not the store: a key that is stored but
        // not in effect yet signs what nobody verifies.
        let current = settings.keys.first().ok_or_else(not_in_effect)?;
        let key = self.signing_key(&place.key, current)?;
        let request = MintRequest {
            issuer: &settings.issuer,
            audience: entry.name.as_str(),
            subject: &caller.principal,
            lifetime,
            now,
        };
        let minted = mint(&key, &request).map_err(|error| match error {
            MintError::Subject(problem) => {
                Refusal::new(Cause::Conflict, format!("no token can be made for this principal: {problem}"))
            }
            MintError::Signing => Refusal::new(Cause::Internal, "the gateway could not sign a token"),
        })?;
        let refresh_in = lifetime.saturating_sub(AFTER_REFRESH).max(lifetime / 2);
        Ok(ScoringToken {
            token: minted.token,
            id: minted.id.into(),
            issued_at: at(minted.issued),
            refresh_after: at(minted.issued.saturating_add(refresh_in.as_secs())),
            expires_at: at(minted.expires),
        })
    }

    /// Revokes one token by its `jti`, for all services of the workspace.
    ///
    /// # Errors
    /// It is no id of a token; too much is revoked already.
    pub fn revoke_token(&self, caller: &Caller, workspace: &str, id: &str) -> Result<(), Refusal> {
        self.revoke(caller, workspace, Revocation::Token(id), || {
            Uuid::parse_str(id).map(drop).map_err(|_| {
                Refusal::invalid("id", "is no id of a token; give the jti in the token, not the token itself")
            })
        })
    }

    /// Revokes every token of `principal` that has been issued up to now, to the second.
    ///
    /// # Errors
    /// It cannot be a principal; too much is revoked already.
    pub fn revoke_principal(&self, caller: &Caller, workspace: &str, principal: &str) -> Result<(), Refusal> {
        self.revoke(caller, workspace, Revocation::Principal(principal), || {
            let good =
                (1..=MAX_PRINCIPAL).contains(&principal.len()) && !principal.contains(char::is_control);
            let refused = || {
                Refusal::invalid(
                    "principal",
                    format!("a principal has 1 to {MAX_PRINCIPAL} bytes and no control characters"),
                )
            };
            good.then_some(()).ok_or_else(refused)
        })
    }

    fn revoke(
        &self,
        caller: &Caller,
        workspace: &str,
        what: Revocation<'_>,
        check: impl Fn() -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let name = what.to_string();
        let resource = self.place(workspace)?.resource.within(&format!("revocations/{}", shown(&name)));
        self.write(caller, Action::TokenRevoke, &resource, |batch| {
            let place = self.place(workspace)?;
            place.hold(batch)?;
            check()?;
            let now = OffsetDateTime::now_utc();
            let mut state = TokenState::load(&*self.store, &place.key, now)?;
            state.revoke(what, self.settings.token_leeway, now, batch)?;
            Ok(((), self.verified_anew(state)?))
        })?;
        Ok(())
    }

    /// Makes a new signing key; the old one verifies until its last token is over. Returns the new key's id.
    ///
    /// # Errors
    /// The key cannot be made or sealed.
    pub fn rotate_signing_key(&self, caller: &Caller, workspace: &str) -> Result<String, Refusal> {
        let resource = self.place(workspace)?.resource.within("signingKeys");
        let done = self.write(caller, Action::SigningKeyRotate, &resource, |batch| {
            let place = self.place(workspace)?;
            place.hold(batch)?;
            let now = OffsetDateTime::now_utc();
            let mut state = TokenState::load(&*self.store, &place.key, now)?;
            let before = state.current().map(|key| key.value.kid().to_owned());
            let longest = state.retire(self.settings.token_leeway, now, batch)?;
            let lifetime = longest.unwrap_or(self.settings.token_lifetime);
            let kid = state.add_key(&*self.sealer, lifetime, now, batch)?;
            Ok(((kid, before), self.verified_anew(state)?))
        })?;
        let (kid, before) = done.value;
        if let Some(before) = before {
            self.signing_keys.forget(&before);
        }
        Ok(kid)
    }

    /// The workspace's public keys as a JSON Web Key Set (RFC 7517), the current one first.
    ///
    /// # Errors
    /// No right to see the workspace, or there is none.
    pub fn jwks(&self, caller: &Caller, workspace: &str) -> Result<Value, Refusal> {
        caller.check(Action::WorkspaceRead, Some(workspace))?;
        let place = self.place(workspace)?;
        place.existing()?;
        let state = TokenState::load(&*self.store, &place.key, OffsetDateTime::now_utc())?;
        let keys: Vec<Value> = state.public_keys()?.iter().map(crate::auth::PublicKey::jwk).collect();
        Ok(json!({ "keys": keys }))
    }

    /// What the services of a workspace are told of its new state.
    pub(super) fn verified_anew(&self, state: TokenState) -> Result<ServiceChanges, Refusal> {
        let settings = Arc::new(state.settings(self.settings.token_leeway)?);
        Ok(self.published.verifying_by(&settings))
    }

    /// What the data plane verifies tokens of `service` by.
    fn verified_by(&self, service: &ServiceEntry) -> Result<Arc<TokenSettings>, Refusal> {
        match self.published.service(service.name.as_str()).as_deref().map(|served| &served.auth) {
            Some(AuthSettings::Token(settings)) => Ok(Arc::clone(settings)),
            _ => Err(not_in_effect()),
        }
    }
}

fn check_mode(service: &ServiceEntry) -> Result<(), Refusal> {
    let mode = service.spec.auth_mode();
    if mode == AuthMode::Token {
        return Ok(());
    }
    let message = format!("service {} takes no tokens, its auth mode is {mode}", service.name);
    Err(Refusal::new(Cause::Conflict, message))
}

fn declared_tokens(service: &str) -> String {
    format!(
        "service {service} is declared in the configuration file; its tokens, if it takes any, come from the issuer \
         named there and not from here"
    )
}

fn not_in_effect() -> Refusal {
    Refusal::new(Cause::Unavailable, "the service is not served as it is stored at the moment; try again")
}

/// `now`, or the first second in which a token of `principal` is not taken for one that was revoked.
fn not_revoked_at(settings: &TokenSettings, principal: &str, now: SystemTime) -> SystemTime {
    let revoked = settings.revoked.principals.get(principal);
    let first = revoked.map(|second| SystemTime::UNIX_EPOCH + Duration::from_secs(second.saturating_add(1)));
    first.map_or(now, |first| first.max(now))
}

fn at(seconds: u64) -> OffsetDateTime {
    i64::try_from(seconds)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests;
