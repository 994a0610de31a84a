//! What lets callers score: keys, scoring tokens, and the keys that sign these.

use http::Method;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::call::{Call, instant, nothing, ok};
use super::route::{Answer, Route};
use super::secret::Secret;
use super::view::{Key, Keys, TokenView};
use crate::catalog::{Action, ComputeType, KeySlot};
use crate::management::Refusal;
use crate::management::operations::{KeyChange, TokenRule};

const LIST_KEYS: &[Action] = &[Action::AciListKeys, Action::AksListKeys, Action::EndpointListKeys];
const REGENERATE: &[Action] =
    &[Action::AciRegenerateKeys, Action::AksRegenerateKeys, Action::EndpointRegenerateKeys];

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::new(Method::GET, "/v1/workspaces/{workspace}/services/{service}/keys", "listKeys", keys)
            .summary("Shows both keys of a service")
            .needs(LIST_KEYS)
            .gives::<Keys>(200),
        Route::new(
            Method::POST,
            "/v1/workspaces/{workspace}/services/{service}/keys/{slot}/regenerate",
            "regenerateKey",
            regenerate,
        )
        .summary("Replaces the key in the slot primary or secondary; the old one is dead at once")
        .needs(REGENERATE)
        .may_take::<Regeneration>()
        .gives::<Key>(200),
        Route::new(Method::POST, "/v1/workspaces/{workspace}/services/{service}/token", "issueToken", token)
            .summary(
                "Gives the caller a scoring token for a service that it may see and whose auth mode is token",
            )
            .needs(&[Action::WorkspaceRead, Action::EndpointToken])
            .gives::<TokenView>(200),
        Route::new(Method::POST, "/v1/workspaces/{workspace}/tokens/revoke", "revokeTokens", revoke)
            .summary("Revokes one scoring token, or all of a principal up to now")
            .needs(&[Action::TokenRevoke])
            .takes::<Revocation>()
            .gives_nothing(204),
        Route::new(
            Method::POST,
            "/v1/workspaces/{workspace}/signing-keys/rotate",
            "rotateSigningKey",
            rotate,
        )
        .summary("Makes a new signing key; the old one verifies until its last token is over")
        .needs(&[Action::SigningKeyRotate])
        .gives::<Rotated>(200),
        Route::new(Method::GET, "/v1/workspaces/{workspace}/jwks", "getJwks", jwks)
            .summary("Shows the public keys of the workspace's tokens (RFC 7517)")
            .needs(&[Action::WorkspaceRead])
            .gives::<Value>(200),
    ]
}

/// How a key is to be replaced.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Regeneration {
    /// The new key; absent: one is generated.
    value: Option<Secret>,
    /// From when on it is refused, as RFC 3339 writes it.
    #[schemars(extend("format" = "date-time"))]
    expires_at: Option<String>,
    /// A repetition with the same id (1 to 100 printable characters) within 24 hours gets the same answer and changes
    /// nothing.
    request_id: Option<String>,
}

/// What is revoked: exactly one of the two.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Revocation {
    /// The token with this `jti`.
    Id(String),
    /// All tokens of this principal that have been issued up to now.
    Principal(String),
}

/// A new signing key.
#[derive(Debug, Serialize, JsonSchema)]
struct Rotated {
    /// Its id.
    kid: String,
}

async fn keys(call: Call) -> Answer {
    let (workspace, service) = (call.path("workspace"), call.path("service"));
    let keys = call.run(move |operations, caller| operations.keys(caller, &workspace, &service)).await?;
    Ok(ok(Keys::from(keys)))
}

async fn regenerate(mut call: Call) -> Answer {
    let (workspace, service, slot) =
        (call.path("workspace"), call.path("service"), slot(&call.path("slot"))?);
    let wanted: Option<Regeneration> = call.body().await?;
    let wanted = wanted.unwrap_or_default();
    let change = KeyChange {
        value: wanted.value.map(|value| value.0),
        expires_at: wanted.expires_at.map(|text| instant("expires_at", &text)).transpose()?,
        request_id: wanted.request_id,
    };
    let key = call
        .run(move |operations, caller| operations.regenerate_key(caller, &workspace, &service, slot, change))
        .await?;
    Ok(ok(Key::from(key)))
}

fn slot(text: &str) -> Result<KeySlot, Refusal> {
    let known = [KeySlot::Primary, KeySlot::Secondary];
    let found = known.into_iter().find(|slot| slot.as_str() == text);
    found
        .ok_or_else(|| Refusal::not_found(format_args!("key slot '{text}'; there are primary and secondary")))
}

async fn token(call: Call) -> Answer {
    let (workspace, service) = (call.path("workspace"), call.path("service"));
    let token = call.run(move |operations, caller| {
        let found = operations.service(caller, &workspace, &service)?;
        let rule = match found.value.spec.compute_type {
            ComputeType::Aci | ComputeType::Aks => TokenRule::V1,
            ComputeType::Managed => TokenRule::V2,
        };
        operations.issue_token(caller, &workspace, &service, rule)
    });
    Ok(ok(TokenView::from(token.await?)))
}

async fn revoke(mut call: Call) -> Answer {
    let workspace = call.path("workspace");
    let revocation: Revocation = call.body().await?;
    call.run(move |operations, caller| match revocation {
        Revocation::Id(id) => operations.revoke_token(caller, &workspace, &id),
        Revocation::Principal(principal) => operations.revoke_principal(caller, &workspace, &principal),
    })
    .await?;
    Ok(nothing())
}

async fn rotate(call: Call) -> Answer {
    let workspace = call.path("workspace");
    let kid = call.run(move |operations, caller| operations.rotate_signing_key(caller, &workspace)).await?;
    Ok(ok(Rotated { kid }))
}

async fn jwks(call: Call) -> Answer {
    let workspace = call.path("workspace");
    Ok(ok(call.run(move |operations, caller| operations.jwks(caller, &workspace)).await?))
}
