//! Tests of the management plane's sections: `management`, `store`.

use super::*;

#[test]
fn the_management_plane_needs_tls_and_a_store() {
    let with = |text: &str| format!("{text}\n{SERVICE}");
    check(&[
        (
            &with("management: {}"),
            &[],
            &[
                "c.yaml:3:13: management: needs a store, and store.kind is none; write store: {kind: embedded, path: DIRECTORY}",
                "c.yaml:3:13: management.tls: is missing; add it",
            ],
        ),
        (
            &with("store: {kind: postgres, url: {env: URL}}\nmanagement: {tls: {certificates: []}}"),
            &[],
            &[
                "c.yaml:3:15: store.kind: postgres is not in this version; write embedded, or none",
                "c.yaml:3:30: warning: store.url: has no effect in this version of scoregate",
                "c.yaml:4:19: management.tls.certificates: lists no certificate; add one as {cert: FILE, key: FILE}",
            ],
        ),
        (
            &with(
                "store: {kind: embedded, path: data}\nmanagement: {tls: {certificates: []}, issuers: [{issuer: i, audience: iris, jwks: {file: k}}]}",
            ),
            &[],
            &[
                "c.yaml:4:19: management.tls.certificates: lists no certificate; add one as {cert: FILE, key: FILE}",
                "c.yaml:4:71: management.issuers[0].audience: 'iris' could be the name of a service, whose tokens must not open the API; use a URI or an application's id",
                "c.yaml:4:90: management.issuers[0].jwks.file: /nowhere/k cannot be read (No such file or directory (os error 2)); check the path and that this process may read it",
            ],
        ),
        (
            &with("store: {kind: embedded, path: data, key: {file: a, env: b}}"),
            &[],
            &[
                "c.yaml:3:42: store.key: must be exactly one of {file: PATH}, {env: NAME} and {exec: [PROGRAM, ARGUMENT]}",
            ],
        ),
        (
            &with("store: {kind: embedded, path: data}"),
            &[],
            &["c.yaml:3:8: warning: store: is not opened without a management plane; add management"],
        ),
    ]);
}

#[test]
fn the_management_plane_takes_what_it_is_told() {
    let (dir, loaded) = load_example(&[
        ("SCOREGATE__MANAGEMENT__ACTIVITY_RETENTION", "30d"),
        ("SCOREGATE__MANAGEMENT__TOKEN_LIFETIME", "1s"),
    ]);
    let management = loaded.config.management.as_ref().unwrap();
    assert_eq!(management.bootstrap_token.as_ref().unwrap().expose_secret(), BOOTSTRAP);
    assert_eq!(management.activity_retention, Duration::from_secs(30 * 24 * 60 * 60));
    assert_eq!(management.token_lifetime, Duration::from_secs(1));
    assert_eq!(management.store.path, dir.path().join("data"));
    assert_eq!(management.store.key.as_ref().unwrap().to_string(), "env:WRAPPING_KEY");
    assert_eq!(loaded.config.uri_templates.aci.as_deref(), Some("https://{service}.aci.example.org/score"));

    for (variable, value, complaint) in [
        ("SCOREGATE_BOOTSTRAP_TOKEN", "nineteen-characters", "management.bootstrap_token: the token has 19"),
        (
            "SCOREGATE__MANAGEMENT__ACTIVITY_RETENTION",
            "1h",
            "management.activity_retention: 1h is out of range",
        ),
        ("SCOREGATE__MANAGEMENT__TOKEN_LIFETIME", "721h", "management.token_lifetime: 721h is out of range"),
        ("SCOREGATE__MANAGEMENT__ADDRESS", "0.0.0.0:8443", "is taken by"),
        ("SCOREGATE__REPLICA_TEMPLATE", "http://{service}.{pod}", "replica_template: has a placeholder"),
    ] {
        let (dir, text) = example();
        let mut pairs = SECRETS.to_vec();
        pairs.push((variable, value));
        let source = Source::text("c.yaml", dir.path(), text).with_variables(variables(&pairs));
        let refused = load(&source).unwrap_err().to_string();
        assert!(refused.contains(complaint), "{refused}");
        assert!(!refused.contains("nineteen"), "{refused}");
    }
}

#[test]
fn a_changed_management_plane_needs_a_restart_and_its_secrets_are_not_shown() {
    let (_first, old) = load_example(&[]);
    let (_second, new) = load_example(&[
        ("SCOREGATE__MANAGEMENT__ADDRESS", "127.0.0.1:9444"),
        ("SCOREGATE_BOOTSTRAP_TOKEN", "another-secret-of-the-owner"),
        ("SCOREGATE__MANAGEMENT__TOKEN_LIFETIME", "1h"),
        ("SCOREGATE__WORKSPACE__NAME", "other"),
        ("SCOREGATE__STORE__PATH", "/elsewhere"),
    ]);
    let changes = needs_restart(&old.config, &new.config).join("\n");
    for expected in [
        "management.address changed from 127.0.0.1:9443 to 127.0.0.1:9444",
        "management.bootstrap_token changed: restart",
        "management.token_lifetime changed from 86400s to 3600s",
        "workspace changed: restart",
        "store.path changed from ",
    ] {
        assert!(changes.contains(expected), "{changes}");
    }
    assert!(!changes.contains("-secret-of-the-owner"), "{changes}");
}
