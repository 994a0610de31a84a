//! Who calls: `/v1/whoami`, `/v1/management-tokens` and `/v1/bootstrap`

use std::collections::BTreeMap;
use std::time::Duration;

use http::{Method, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use axum::Json;
use axum::response::IntoResponse as _;

use super::call::{CURSOR, Call, Knock, LIMIT, located, nothing, ok};
use super::route::{Answer, Route};
use super::secret::Secret;
use super::view::{Listed, NewManagementToken};
use crate::catalog::{Action, ActionSet};
use crate::management::operations::{ManagementTokenView, Page};
use crate::management::{Caller, Operations, Refusal};

const TOKENS: &str = "/v1/management-tokens";
const TOKEN: &str = "/v1/management-tokens/{id}";
/// Lifetime of a management token whose maker names none.
const DEFAULT_LIFETIME: u64 = 90 * 24 * 60 * 60;

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::new(Method::GET, "/v1/whoami", "whoami", whoami)
            .summary("Shows who the caller is and what it may do")
            .gives::<WhoAmI>(200),
        Route::new(Method::GET, TOKENS, "listManagementTokens", list)
            .summary("Lists management tokens, without their secrets")
            .needs(&[Action::ManagementTokenRead])
            .query(&[LIMIT, CURSOR])
            .gives::<Listed<ManagementTokenView>>(200),
        Route::new(Method::POST, TOKENS, "createManagementToken", create)
            .summary("Makes a management token; its secret is in this answer and nowhere else")
            .needs(&[Action::ManagementTokenWrite])
            .takes::<TokenRequest>()
            .gives::<NewManagementToken>(201),
        Route::new(Method::GET, TOKEN, "getManagementToken", get)
            .summary("Shows a management token, without its secret")
            .needs(&[Action::ManagementTokenRead])
            .gives::<ManagementTokenView>(200),
        Route::new(Method::DELETE, TOKEN, "revokeManagementToken", delete)
            .summary("Revokes a management token")
            .needs(&[Action::ManagementTokenDelete])
            .gives_nothing(204),
        Route::open(Method::POST, "/v1/bootstrap", "bootstrap", bootstrap)
            .summary(
                "Exchanges the bootstrap secret (as the bearer token), once, for an Owner's management token",
            )
            .gives::<NewManagementToken>(201),
    ]
}

/// Who the caller is.
#[derive(Debug, Serialize, JsonSchema)]
struct WhoAmI {
    principal: String,
    /// Allowed everywhere.
    actions: Vec<&'static str>,
    /// Allowed in one workspace more.
    workspaces: BTreeMap<String, Vec<&'static str>>,
}

/// A management token to be made.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TokenRequest {
    /// Whom it stands for; roles are given to that name.
    principal: String,
    /// For people.
    #[serde(default)]
    description: String,
    /// Seconds that it lasts; 90 days if not given.
    #[serde(default = "default_lifetime")]
    lifetime_s: u64,
}

const fn default_lifetime() -> u64 {
    DEFAULT_LIFETIME
}

async fn whoami(call: Call) -> Answer {
    let words = |set: ActionSet| set.iter().map(Action::as_str).collect::<Vec<_>>();
    let caller = call.caller();
    let workspaces = caller.grants.workspaces.iter();
    Ok(ok(WhoAmI {
        principal: caller.principal.to_string(),
        actions: words(caller.grants.gateway),
        workspaces: workspaces.map(|(name, set)| (name.clone(), words(*set))).collect(),
    }))
}

async fn list(call: Call) -> Answer {
    let page = call.page()?;
    let found = call.run(move |operations, caller| operations.management_tokens(caller, &page)).await?;
    Ok(ok(Listed::of(found, |token| token)))
}

async fn get(call: Call) -> Answer {
    let id = call.path("id");
    let found = call.run(move |operations: &Operations, caller: &Caller| {
        let mut page = Page { limit: 1000, cursor: None };
        loop {
            let found = operations.management_tokens(caller, &page)?;
            if let Some(token) = found.items.into_iter().find(|token| token.id == id) {
                return Ok(token);
            }
            let Some(next) = found.next else {
                return Err(Refusal::not_found(format_args!("management token {id}")));
            };
            page.cursor = Some(next);
        }
    });
    Ok(ok(found.await?))
}

async fn create(mut call: Call) -> Answer {
    let TokenRequest { principal, description, lifetime_s } = call.body().await?;
    let lifetime = Duration::from_secs(lifetime_s);
    let made = call.run(move |operations, caller| {
        operations.create_management_token(caller, &principal, description, lifetime)
    });
    let (view, secret) = made.await?;
    let path = format!("{TOKENS}/{}", view.id);
    let made = NewManagementToken { token: Secret(secret), view };
    Ok(located((StatusCode::CREATED, Json(made)).into_response(), &path))
}

async fn delete(call: Call) -> Answer {
    let id = call.path("id");
    call.run(move |operations, caller| operations.revoke_management_token(caller, &id)).await?;
    Ok(nothing())
}

async fn bootstrap(knock: Knock) -> Answer {
    let (view, secret) = knock.run(|operations, secret, facts| operations.bootstrap(secret, facts)).await?;
    let made = NewManagementToken { token: Secret(secret), view };
    Ok((StatusCode::CREATED, Json(made)).into_response())
}
