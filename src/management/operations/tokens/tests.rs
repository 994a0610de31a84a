//! Tests of scoring tokens, judged by what the data plane is told.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use secrecy::ExposeSecret;
use tokio::runtime::Builder;

use super::super::fixtures::{Gateway, TestStore, caller, declared, holder, holder_in, settings, spec};
use super::*;
use crate::auth::{Authenticator, JwksRegistry};
use crate::catalog::{ActionSet, BuiltInRole, ComputeType, ServiceSpec, WorkspaceSpec};
use crate::error::Kind;
use crate::management::operations::{OperationsSettings, Precondition};
use crate::store::{Store, Table};
use crate::telemetry::record::Principal;

const HOUR: u64 = 3600;

fn token_spec(lifetime_s: Option<u64>) -> ServiceSpec {
    ServiceSpec {
        auth: Some(AuthMode::Token),
        token_lifetime_s: lifetime_s.map(|seconds| u32::try_from(seconds).unwrap()),
        ..spec(ComputeType::Aks)
    }
}

fn gateway() -> Gateway {
    let gateway = Gateway::new();
    gateway.serve("iris", token_spec(None));
    gateway
}

fn issue(gateway: &Gateway, service: &str) -> ScoringToken {
    issue_to(gateway, "ann", service)
}

fn issue_to(gateway: &Gateway, principal: &str, service: &str) -> ScoringToken {
    let caller = caller(principal, BuiltInRole::Reader.actions());
    gateway.operations.issue_token(&caller, "ws", service, TokenRule::V1).unwrap()
}

/// What the data plane says to a call of `service` with `token`.
fn score(gateway: &Gateway, service: &str, token: &ScoringToken) -> Result<Principal, Kind> {
    let served = gateway.served(service).unwrap();
    let authenticator =
        Authenticator::new(&served.auth, &served.name, &JwksRegistry::default(), None).unwrap();
    let mut headers = HeaderMap::new();
    let value = format!("Bearer {}", token.token.expose_secret());
    headers.insert(AUTHORIZATION, value.parse().unwrap());
    let runtime = Builder::new_current_thread().build().unwrap();
    let outcome = runtime.block_on(authenticator.authenticate(&headers, SystemTime::now()));
    outcome.map(|admitted| admitted.principal).map_err(|error| error.kind)
}

fn owner() -> crate::management::Caller {
    holder(BuiltInRole::Owner)
}

fn ann() -> Result<Principal, Kind> {
    Ok(Principal::Subject("ann".into()))
}

#[test]
fn a_token_opens_its_service_and_no_other() {
    let gateway = gateway();
    gateway.serve("wine", token_spec(None));
    let token = issue(&gateway, "iris");
    assert_eq!(score(&gateway, "iris", &token), ann());
    assert_eq!(score(&gateway, "wine", &token), Err(Kind::AuthInvalid));
    let claims = token.token.expose_secret().split('.').nth(1).unwrap().to_owned();
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    assert_eq!((claims["aud"].as_str(), claims["sub"].as_str()), (Some("iris"), Some("ann")));
    assert_eq!(claims["jti"].as_str(), Some(token.id.as_str()));
    assert_eq!(claims["exp"].as_i64(), Some(token.expires_at.unix_timestamp()));
}

/// The Azure SDK v1 takes a token for good until 12 hours after `refreshAfter`.
#[test]
fn the_next_token_is_asked_for_twelve_hours_before_the_end_or_at_half_time() {
    let gateway = Gateway::new();
    for (lifetime, refresh) in [
        (48 * HOUR, 36 * HOUR),
        (24 * HOUR, 12 * HOUR),
        (HOUR, HOUR / 2),
        (1, 0),
        (30 * 24 * HOUR, 29 * 24 * HOUR + 12 * HOUR),
    ] {
        gateway.serve("iris", token_spec(Some(lifetime)));
        let token = issue(&gateway, "iris");
        let after = |time: OffsetDateTime| (time - token.issued_at).whole_seconds().unsigned_abs();
        assert_eq!((after(token.refresh_after), after(token.expires_at)), (refresh, lifetime));
    }
    gateway.serve("iris", token_spec(None));
    let token = issue(&gateway, "iris");
    assert_eq!(token.expires_at - token.issued_at, time::Duration::HOUR, "the gateway's setting");
}

#[test]
fn issuing_writes_nothing() {
    let gateway = gateway();
    let before = (gateway.events().len(), gateway.store.rows.check().unwrap().version);
    issue(&gateway, "iris");
    assert_eq!((gateway.events().len(), gateway.store.rows.check().unwrap().version), before);
}

#[test]
fn the_two_sdks_ask_for_different_rights() {
    let gateway = gateway();
    let ask = |actions: &[Action], rule| {
        let caller = caller("ann", actions.iter().copied().collect::<ActionSet>());
        gateway.operations.issue_token(&caller, "ws", "iris", rule).map(drop).map_err(|refusal| refusal.cause)
    };
    assert_eq!(ask(&[Action::WorkspaceRead], TokenRule::V1), Ok(()));
    assert_eq!(ask(&[Action::EndpointToken], TokenRule::V2), Ok(()));
    assert_eq!(ask(&[Action::EndpointToken], TokenRule::V1), Err(Cause::Forbidden(Action::WorkspaceRead)));
    assert_eq!(ask(&[Action::WorkspaceRead], TokenRule::V2), Err(Cause::Forbidden(Action::EndpointToken)));
    let elsewhere = holder_in("other", BuiltInRole::Owner);
    let refusal = gateway.operations.issue_token(&elsewhere, "ws", "iris", TokenRule::V1).unwrap_err();
    assert_eq!(refusal.cause, Cause::Forbidden(Action::WorkspaceRead));
}

#[test]
fn a_service_that_takes_no_tokens_says_what_it_takes() {
    let gateway = gateway();
    gateway.serve("keyed", spec(ComputeType::Aks));
    gateway.serve("open", spec(ComputeType::Aci));
    let file = declared("file", &spec(ComputeType::Aks), AuthSettings::None);
    gateway.data_plane.declared.lock().unwrap().push(file);
    for (name, cause, says) in [
        ("keyed", Cause::Conflict, "auth mode is key"),
        ("open", Cause::Conflict, "auth mode is none"),
        ("file", Cause::Conflict, "configuration file"),
        ("nobody", Cause::NotFound, "no service 'nobody'"),
    ] {
        let refusal = gateway.operations.issue_token(&owner(), "ws", name, TokenRule::V1).unwrap_err();
        assert_eq!(refusal.cause, cause);
        assert!(refusal.message.contains(says), "{refusal}");
    }
}

#[test]
fn rotation_overlaps_and_the_key_set_tells() {
    let gateway = gateway();
    let kids = || -> Vec<String> {
        let jwks = gateway.operations.jwks(&owner(), "ws").unwrap();
        let keys = jwks["keys"].as_array().unwrap().iter();
        keys.map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
    };
    let first = kids();
    assert_eq!(first.len(), 1);
    let old = issue(&gateway, "iris");
    let new_kid = gateway.operations.rotate_signing_key(&owner(), "ws").unwrap();
    let new = issue(&gateway, "iris");
    assert_eq!(kids(), [new_kid.clone(), first[0].clone()]);
    assert_eq!((score(&gateway, "iris", &old), score(&gateway, "iris", &new)), (ann(), ann()));
    let kid = |token: &ScoringToken| {
        let header = token.token.expose_secret().split('.').next().unwrap().to_owned();
        let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap();
        header["kid"].as_str().unwrap().to_owned()
    };
    assert_eq!((kid(&old), kid(&new)), (first[0].clone(), new_kid));
    assert_eq!(gateway.events().last().unwrap().operation_name, Action::SigningKeyRotate.as_str());
    let row = gateway.store.rows.check().unwrap();
    let jwks = gateway.operations.jwks(&owner(), "ws").unwrap().to_string();
    assert!(!jwks.contains("\"d\""), "no private part: {jwks}");
    assert_eq!(gateway.store.rows.check().unwrap(), row);
}

#[test]
fn a_retired_key_goes_when_its_last_token_is_over() {
    let gateway = Gateway::new();
    // Tokens of two hours were out once; it does not matter that they are shorter now.
    gateway.serve("iris", token_spec(Some(2 * HOUR)));
    gateway.serve("iris", token_spec(Some(60)));
    gateway.operations.rotate_signing_key(&owner(), "ws").unwrap();
    let now = OffsetDateTime::now_utc();
    let keys_at = |seconds: u64| {
        let at = now + Duration::from_secs(seconds);
        TokenState::load(&*gateway.store, "ws", at).unwrap().public_keys().unwrap().len()
    };
    let leeway = settings().token_leeway.as_secs();
    assert_eq!(keys_at(2 * HOUR + leeway - 10), 2);
    assert_eq!(keys_at(2 * HOUR + leeway + 10), 1);
}

#[test]
fn what_is_over_is_forgotten_by_store_and_data_plane() {
    // A gateway whose tokens are over at once.
    let brief =
        || OperationsSettings { token_lifetime: Duration::ZERO, token_leeway: Duration::ZERO, ..settings() };
    let gateway = Gateway::with(brief());
    gateway.serve("iris", token_spec(None));
    gateway.operations.revoke_principal(&owner(), "ws", "ann").unwrap();
    gateway.operations.rotate_signing_key(&owner(), "ws").unwrap();
    let of_data_plane = || match &gateway.served("iris").unwrap().auth {
        AuthSettings::Token(settings) => Arc::clone(settings),
        other => panic!("{other:?}"),
    };
    assert_eq!((gateway.rows(Table::SigningKeys), gateway.rows(Table::Revocations)), (2, 1));
    let events = gateway.events().len();
    gateway.operations.forget_expired_tokens().unwrap();
    assert_eq!((gateway.rows(Table::SigningKeys), gateway.rows(Table::Revocations)), (1, 0));
    assert_eq!(of_data_plane().keys.len(), 1);
    assert!(of_data_plane().revoked.principals.is_empty());
    let handed_over = gateway.data_plane.applied.lock().unwrap().len();
    gateway.operations.forget_expired_tokens().unwrap();
    assert_eq!(gateway.data_plane.applied.lock().unwrap().len(), handed_over, "nothing to forget");
    assert_eq!(gateway.events().len(), events);
}

#[test]
fn one_token_or_all_of_a_principal_are_taken_back() {
    let gateway = gateway();
    gateway.serve("wine", token_spec(None));
    let operations = &gateway.operations;
    let (one, two) = (issue(&gateway, "iris"), issue(&gateway, "iris"));
    operations.revoke_token(&owner(), "WS", &one.id).unwrap();
    assert_eq!(score(&gateway, "iris", &one), Err(Kind::AuthInvalid));
    assert_eq!(score(&gateway, "iris", &two), ann());
    let (wine, bobs) = (issue(&gateway, "wine"), issue_to(&gateway, "bob", "iris"));
    operations.revoke_principal(&owner(), "ws", "ann").unwrap();
    assert_eq!(score(&gateway, "iris", &two), Err(Kind::AuthInvalid));
    assert_eq!(score(&gateway, "wine", &wine), Err(Kind::AuthInvalid));
    assert_eq!(score(&gateway, "iris", &bobs), Ok(Principal::Subject("bob".into())));
    assert_eq!(score(&gateway, "iris", &issue(&gateway, "iris")), ann(), "the next one is good again");
    // What is revoked stays so for services that come later, and after a restart.
    gateway.serve("rose", token_spec(None));
    gateway.serve("iris", token_spec(Some(60)));
    assert_eq!(score(&gateway, "iris", &two), Err(Kind::AuthInvalid));
    let again = Gateway::on(Arc::clone(&gateway.store), settings());
    assert_eq!(score(&again, "iris", &one), Err(Kind::AuthInvalid));
    assert_eq!(score(&again, "iris", &bobs), Ok(Principal::Subject("bob".into())));
}

#[test]
fn revocations_are_checked_and_need_their_right() {
    let gateway = gateway();
    let operations = &gateway.operations;
    let token = issue(&gateway, "iris");
    for bad in ["", "x", token.token.expose_secret()] {
        let refusal = operations.revoke_token(&owner(), "ws", bad).unwrap_err();
        assert_eq!((refusal.cause, refusal.target.as_deref()), (Cause::Invalid, Some("id")));
    }
    for bad in ["", "a\nb", &"x".repeat(256)] {
        let refusal = operations.revoke_principal(&owner(), "ws", bad).unwrap_err();
        assert_eq!(refusal.target.as_deref(), Some("principal"));
    }
    let reader = holder(BuiltInRole::Reader);
    assert_eq!(
        operations.revoke_token(&reader, "ws", &token.id).unwrap_err().cause,
        Cause::Forbidden(Action::TokenRevoke)
    );
    assert_eq!(
        operations.rotate_signing_key(&reader, "ws").unwrap_err().cause,
        Cause::Forbidden(Action::SigningKeyRotate)
    );
    assert_eq!(operations.revoke_principal(&owner(), "gone", "ann").unwrap_err().cause, Cause::NotFound);
    assert!(!gateway.events().iter().any(|event| {
        format!("{event:?}").contains(token.token.expose_secret().rsplit('.').next().unwrap())
    }));
}

#[test]
fn workspaces_share_no_signing_key() {
    let gateway = gateway();
    gateway
        .operations
        .put_workspace(&owner(), "other", WorkspaceSpec::default(), Precondition::None)
        .unwrap();
    gateway.serve_in("other", "wine", token_spec(None));
    let keys = |workspace| gateway.operations.jwks(&owner(), workspace).unwrap();
    assert_ne!(keys("ws"), keys("other"));
    let before = keys("other");
    gateway.operations.rotate_signing_key(&owner(), "ws").unwrap();
    assert_eq!(keys("other"), before);
}

#[test]
fn a_signing_key_is_unsealed_once_and_outlives_a_restart() {
    let gateway = gateway();
    let token = issue(&gateway, "iris");
    let again = Gateway::on(Arc::clone(&gateway.store), settings());
    assert_eq!(score(&again, "iris", &token), ann());
    assert_eq!(score(&again, "iris", &issue(&again, "iris")), ann());
    // Without its row it still signs: it is at hand.
    let rows = &again.store.rows;
    let all = crate::store::Range {
        table: Table::SigningKeys,
        prefix: b"",
        after: None,
        limit: 10,
        order: crate::store::Order::Forwards,
    };
    let mut batch = crate::store::Batch::default();
    for row in rows.scan(&all).unwrap() {
        batch.remove(Table::SigningKeys, row.key);
    }
    rows.commit(batch).unwrap();
    assert_eq!(score(&again, "iris", &issue(&again, "iris")), ann());
}

#[test]
fn the_longest_default_lifetime_of_a_restart_counts_too() {
    let store: Arc<TestStore> = Arc::default();
    let brief = OperationsSettings { token_lifetime: Duration::from_secs(60), ..settings() };
    Gateway::on(Arc::clone(&store), brief).serve("iris", token_spec(None));
    let longer = OperationsSettings { token_lifetime: Duration::from_secs(2 * HOUR), ..settings() };
    let gateway = Gateway::on(Arc::clone(&store), longer);
    gateway.operations.rotate_signing_key(&owner(), "ws").unwrap();
    let later = OffsetDateTime::now_utc() + Duration::from_secs(2 * HOUR);
    assert_eq!(TokenState::load(&*store, "ws", later).unwrap().public_keys().unwrap().len(), 2);
}
