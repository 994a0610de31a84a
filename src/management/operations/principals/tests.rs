//! Management tokens from their making to their end, and the first way in.

use std::sync::Arc;

use super::super::fixtures::{DECLARED, Gateway, TestStore, caller, holder, holder_in, request, settings};
use super::super::{ActivityStatus, Written, generate};
use super::*;
use crate::catalog::{ActionSet, Grantee, Scope};
use crate::store::{Order, Range, Store};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl Gateway {
    fn token(&self, caller: &Caller, principal: &str) -> (ManagementTokenView, SecretString) {
        self.operations.create_management_token(caller, principal, "for tests".into(), DAY).unwrap()
    }

    fn enter(&self, token: &SecretString) -> Result<Caller, Refusal> {
        self.operations.authenticate(token, request())
    }

    fn give(&self, principal: &str, scope: Scope, role: &str) {
        let id = uuid::Uuid::new_v4().to_string();
        let grantee = Grantee::Principal(principal.into());
        let owner = holder(BuiltInRole::Owner);
        let done = self.operations.put_role_assignment(&owner, &id, scope, grantee, role).unwrap();
        assert_eq!(done.1, Written::Created);
    }

    /// Everything that is stored, as text.
    fn stored(&self) -> String {
        Table::ALL
            .into_iter()
            .flat_map(|table| {
                let all = Range { table, prefix: &[], after: None, limit: 10_000, order: Order::Forwards };
                self.store.scan(&all).unwrap()
            })
            .map(|row| format!("{} {}\n", row.key.escape_ascii(), row.value.escape_ascii()))
            .collect()
    }
}

#[test]
fn a_token_opens_with_the_roles_of_its_principal_until_it_is_revoked() {
    let gateway = Gateway::new();
    let owner = holder(BuiltInRole::Owner);
    let (view, token) = gateway.token(&owner, "ann");
    assert_eq!((view.principal.as_str(), view.created_by.as_str()), ("ann", "owner"));
    assert_eq!(view.expires_at - view.created_at, time::Duration::DAY);
    let caller = gateway.enter(&token).unwrap();
    assert_eq!(&*caller.principal, "ann");
    assert_eq!(caller.grants.anywhere(), ActionSet::NONE);
    gateway.give("ann", Scope::Workspace(DECLARED.into()), "Reader");
    let caller = gateway.enter(&token).unwrap();
    assert_eq!(caller.grants.within(Some(DECLARED)), BuiltInRole::Reader.actions());
    gateway.operations.revoke_management_token(&owner, &view.id).unwrap();
    assert_eq!(gateway.enter(&token).unwrap_err(), unknown());
    let again = gateway.operations.revoke_management_token(&owner, &view.id).unwrap_err();
    assert_eq!(again.cause, Cause::NotFound);
}

#[test]
fn whatever_is_wrong_with_a_token_has_one_answer() {
    let gateway = Gateway::new();
    let (_, good) = gateway.token(&holder(BuiltInRole::Owner), "ann");
    let other = token::token().unwrap();
    // The id of a token that is there, with another secret and a right check.
    let forged = generate::secret(&good.expose_secret()[..17]).unwrap();
    assert!(token::id_of(&forged).is_some());
    let cut = good.expose_secret()[..65].to_owned();
    let upper = good.expose_secret().to_uppercase();
    let jwt = "eyJhbGciOiJub25lIn0.e30.";
    for text in
        [forged.expose_secret(), other.text.expose_secret(), &cut, &upper, jwt, "", "first", "sgm_", "\0"]
    {
        assert_eq!(gateway.enter(&text.into()).unwrap_err(), unknown(), "{text}");
    }
    assert!(gateway.enter(&good).is_ok());
}

#[test]
fn an_expired_token_is_told_as_such_and_its_like_with_a_wrong_secret_is_not() {
    let gateway = Gateway::new();
    let (view, token) = gateway.token(&holder(BuiltInRole::Owner), "ann");
    let row = gateway.store.get(Table::ManagementTokens, view.id.as_bytes()).unwrap().unwrap();
    let mut stored: StoredToken = serde_json::from_slice(&row.value).unwrap();
    stored.view.expires_at = OffsetDateTime::now_utc() - time::Duration::SECOND;
    let mut batch = Batch::default();
    batch.put(Table::ManagementTokens, view.id.as_str(), encode(&stored).unwrap());
    gateway.store.commit(batch).unwrap();
    assert_eq!(gateway.enter(&token).unwrap_err().cause, Cause::AuthExpired);
    let wrong = format!("{}x", &token.expose_secret()[..65]);
    assert_eq!(gateway.enter(&wrong.as_str().into()).unwrap_err(), unknown());
}

#[test]
fn no_secret_is_stored_logged_or_listed() {
    let gateway = Gateway::new();
    let owner = holder(BuiltInRole::Owner);
    let bootstrap = gateway.operations.begin_bootstrap().unwrap().unwrap();
    let (_, first) = gateway.operations.bootstrap(&bootstrap, request()).unwrap();
    let (_, second) = gateway.token(&owner, "ann");
    let stored = gateway.stored();
    let listed = format!("{:?}", gateway.operations.management_tokens(&owner, &Page::default()).unwrap());
    for secret in [bootstrap, first, second] {
        let secret = &secret.expose_secret()[secret.expose_secret().len() - 49..];
        assert!(!stored.contains(secret) && !listed.contains(secret));
    }
    assert!(!listed.contains("digest"));
}

#[test]
fn tokens_are_made_and_seen_by_owners_of_the_gateway_only() {
    let gateway = Gateway::new();
    let create = |caller: &Caller, principal: &str| {
        let made = gateway.operations.create_management_token(caller, principal, String::new(), DAY);
        made.map(|_| ()).map_err(|refusal| refusal.cause)
    };
    let forbidden = Cause::Forbidden(Action::ManagementTokenWrite);
    for caller in [
        holder(BuiltInRole::Contributor),
        holder(BuiltInRole::Reader),
        holder_in(DECLARED, BuiltInRole::Owner),
    ] {
        assert_eq!(create(&caller, "ann"), Err(forbidden));
        assert!(gateway.operations.management_tokens(&caller, &Page::default()).is_err());
        assert!(gateway.operations.revoke_management_token(&caller, "x").is_err());
    }
    gateway.give("boss", Scope::Gateway, "Owner");
    gateway.give("local", Scope::Workspace(DECLARED.into()), "Contributor");
    let clerk = ActionSet::from_iter([Action::ManagementTokenWrite]);
    assert_eq!(create(&caller("clerk", clerk), "boss"), Err(Cause::Escalation));
    assert_eq!(create(&caller("clerk", clerk), "local"), Err(Cause::Escalation));
    assert_eq!(create(&caller("clerk", clerk), "nobody"), Ok(()));
    let larger = clerk.and(BuiltInRole::Contributor.actions());
    assert_eq!(create(&caller("clerk", larger), "local"), Ok(()));
    assert_eq!(create(&holder(BuiltInRole::Owner), "boss"), Ok(()));
    let all = gateway.operations.management_tokens(&holder(BuiltInRole::Owner), &Page::default());
    assert_eq!(all.unwrap().items.len(), 3);
}

#[test]
fn a_token_is_checked_by_field() {
    let gateway = Gateway::new();
    let owner = holder(BuiltInRole::Owner);
    let long = "a".repeat(257);
    for (principal, description, lifetime, target) in [
        ("", "", DAY, "principal"),
        ("a\tb", "", DAY, "principal"),
        (" a", "", DAY, "principal"),
        (&long, "", DAY, "principal"),
        ("bootstrap", "", DAY, "principal"),
        ("ann", &long, DAY, "description"),
        ("ann", "a\nb", DAY, "description"),
        ("ann", "", Duration::from_secs(59), "lifetime"),
        ("ann", "", 366 * DAY + Duration::from_secs(1), "lifetime"),
        ("ann", "", Duration::MAX, "lifetime"),
    ] {
        let made =
            gateway.operations.create_management_token(&owner, principal, description.into(), lifetime);
        let refusal = made.unwrap_err();
        assert_eq!((refusal.cause, refusal.target.as_deref()), (Cause::Invalid, Some(target)));
    }
    for lifetime in [Duration::from_secs(60), 366 * DAY] {
        assert!(gateway.operations.create_management_token(&owner, "ann", String::new(), lifetime).is_ok());
    }
}

#[test]
fn the_token_of_the_configuration_is_an_owner() {
    let configured = "a-token-of-an-unattended-install";
    let mut with = settings();
    with.bootstrap_token = Some(configured.into());
    let gateway = Gateway::with(with);
    let caller = gateway.enter(&configured.into()).unwrap();
    assert_eq!(&*caller.principal, "bootstrap");
    assert_eq!(caller.grants.within(Some("anywhere")), BuiltInRole::Owner.actions());
    assert!(gateway.enter(&format!("{configured}x").as_str().into()).is_err());
    assert!(gateway.operations.begin_bootstrap().unwrap().is_none(), "there is a way in already");
    assert!(!gateway.stored().contains(configured));
    assert!(Gateway::new().enter(&configured.into()).is_err());
    for bad in ["short", &"a".repeat(513), "a secret with blanks in it"] {
        let mut with = settings();
        with.bootstrap_token = Some(bad.into());
        let refusal = ConfiguredToken::take(&mut with).err().unwrap();
        assert_eq!(refusal.target.as_deref(), Some("management.bootstrap_token"));
        assert!(!refusal.to_string().contains(bad));
    }
}

#[test]
fn the_bootstrap_secret_makes_one_owner_once() {
    let gateway = Gateway::new();
    let secret = gateway.operations.begin_bootstrap().unwrap().unwrap();
    assert!(gateway.operations.begin_bootstrap().unwrap().is_none(), "one is pending");
    let wrong = gateway.operations.bootstrap(&token::bootstrap().unwrap().text, request()).unwrap_err();
    assert_eq!(wrong, unknown());
    assert!(gateway.enter(&secret).is_err(), "it is no management token");
    let (view, token) = gateway.operations.bootstrap(&secret, request()).unwrap();
    assert_eq!(
        (view.principal.as_str(), view.expires_at - view.created_at),
        ("owner", time::Duration::days(90))
    );
    let owner = gateway.enter(&token).unwrap();
    assert_eq!(owner.grants.within(None), BuiltInRole::Owner.actions());
    assert_eq!(gateway.operations.bootstrap(&secret, request()).unwrap_err(), unknown());
    assert!(gateway.operations.begin_bootstrap().unwrap().is_none(), "there is an owner");

    use ActivityStatus::{Failed, Started, Succeeded};
    let events = gateway.events();
    let seen: Vec<_> = events.iter().map(|it| (it.caller.as_str(), it.status)).collect();
    let expected =
        [("", Started), ("", Failed), ("owner", Started), ("owner", Succeeded), ("", Started), ("", Failed)];
    assert_eq!(seen, expected);
    assert!(events.iter().all(|it| it.operation_name == "Scoregate/bootstrap/action"));
}

#[test]
fn a_secret_that_is_used_twice_at_once_makes_one_owner() {
    let store = Arc::<TestStore>::default();
    let gateways = [(); 2].map(|()| Gateway::on(Arc::clone(&store), settings()));
    let secret = gateways[0].operations.begin_bootstrap().unwrap().unwrap();
    assert!(gateways[1].operations.begin_bootstrap().unwrap().is_none());
    let made = std::thread::scope(|scope| {
        let attempts = gateways.each_ref().map(|gateway| {
            let secret = &secret;
            scope.spawn(move || gateway.operations.bootstrap(secret, request()).is_ok())
        });
        attempts.into_iter().map(|it| it.join().unwrap()).filter(|ok| *ok).count()
    });
    assert_eq!(made, 1);
}

#[test]
fn an_owner_made_otherwise_ends_the_bootstrap() {
    let gateway = Gateway::new();
    let secret = gateway.operations.begin_bootstrap().unwrap().unwrap();
    gateway.give("ann", Scope::Workspace(DECLARED.into()), "Owner");
    gateway.give("ann", Scope::Gateway, "Contributor");
    assert!(gateway.operations.begin_bootstrap().unwrap().is_none(), "it is still pending");
    gateway.give("ann", Scope::Gateway, "Owner");
    assert_eq!(gateway.operations.bootstrap(&secret, request()).unwrap_err(), unknown());
}

#[test]
fn outside_callers_bring_a_name_and_groups_but_none_of_ours() {
    let gateway = Gateway::new();
    gateway.give("3f2504e0", Scope::Gateway, "Reader");
    let caller = gateway.operations.outside_caller("3f2504e0", &[], request()).unwrap();
    assert_eq!(caller.grants.within(None), BuiltInRole::Reader.actions());
    for name in ["owner", "bootstrap", "", "a\nb"] {
        let refusal = gateway.operations.outside_caller(name, &[], request()).unwrap_err();
        assert_eq!(refusal.cause, Cause::AuthInvalid, "{name}");
    }
}

#[test]
fn a_token_made_in_one_process_opens_and_closes_in_the_other() {
    let store = Arc::<TestStore>::default();
    let [here, there] = [(); 2].map(|()| Gateway::on(Arc::clone(&store), settings()));
    let owner = holder(BuiltInRole::Owner);
    let (view, token) = here.token(&owner, "ann");
    assert!(there.enter(&token).is_ok());
    there.operations.revoke_management_token(&owner, &view.id).unwrap();
    assert!(here.enter(&token).is_err());
}
