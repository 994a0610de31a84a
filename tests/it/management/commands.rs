//! The command line against a running gateway: what people and scripts see, and with which exit code.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::{Api, OWNER, gateway, managed};
use crate::harness::{Gateway, KEY, Upstream, eventually, ok, service};

/// What a command gave.
#[derive(Debug)]
struct Done {
    code: i32,
    out: String,
    err: String,
}

/// A shell of somebody who is logged in, or is about to be.
struct Shell {
    endpoint: String,
    ca: PathBuf,
    login: PathBuf,
}

impl Shell {
    fn of(gateway: &Gateway) -> Self {
        let address = Api::owner(gateway).address();
        Self {
            endpoint: format!("https://localhost:{}", address.port()),
            ca: gateway.ca().to_owned(),
            login: gateway.path("login.json"),
        }
    }

    /// Runs a command that nobody can be asked by; off the reactor, which the gateway needs.
    async fn run(&self, arguments: &[&str]) -> Done {
        let mut command = Command::new(env!("CARGO_BIN_EXE_scoregate"));
        command.args(arguments).env("SCOREGATE_LOGIN_FILE", &self.login).stdin(Stdio::null());
        for variable in ["SCOREGATE_ENDPOINT", "SCOREGATE_CA", "SCOREGATE_WORKSPACE", "SCOREGATE_TOKEN"] {
            command.env_remove(variable);
        }
        let done = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Done { code: done.status.code().unwrap(), out: text(done.stdout), err: text(done.stderr) }
    }

    /// Runs a command that must succeed; what it says.
    async fn said(&self, arguments: &[&str]) -> String {
        let done = self.run(arguments).await;
        assert!(done.code == 0 && done.err.is_empty(), "{arguments:?}: {done:?}");
        done.out
    }

    /// Runs a command for its JSON, which must be all that it prints.
    async fn json(&self, arguments: &[&str]) -> Value {
        let out = self.said(&[arguments, &["-o", "json"]].concat()).await;
        serde_json::from_str(&out).unwrap_or_else(|e| panic!("{arguments:?}: {e}: {out}"))
    }

    /// Runs a command that must fail; what it complains of.
    async fn refused(&self, arguments: &[&str]) -> String {
        let done = self.run(arguments).await;
        assert!(done.code == 1 && done.out.is_empty(), "{arguments:?}: {done:?}");
        done.err
    }

    async fn login(&self, token: &std::path::Path) -> Done {
        let (ca, token) = (self.ca.to_str().unwrap(), token.to_str().unwrap());
        self.run(&["login", "--endpoint", &self.endpoint, "--ca", ca, "-w", "default", "--token-file", token])
            .await
    }
}

/// A gateway with a management plane and a declared service `iris`.
async fn with_iris() -> (Upstream, Gateway) {
    let upstream = Upstream::answering(|_| ok(b"[1]")).await;
    let config = managed(&service("iris", upstream.address, ""));
    let gateway = Gateway::start_with(&config, &[("bootstrap.key", OWNER)]).await;
    (upstream, gateway)
}

async fn logged_in(gateway: &Gateway) -> Shell {
    let shell = Shell::of(gateway);
    let done = shell.login(&gateway.path("bootstrap.key")).await;
    assert!(done.code == 0 && done.out.contains("as bootstrap"), "{done:?}");
    shell
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_made_used_secured_and_deleted_by_commands() {
    let upstream = Upstream::answering(|_| ok(b"[1]")).await;
    let gateway = gateway().await;
    let shell = logged_in(&gateway).await;
    let replica = format!("http://{}", upstream.address);

    let said = shell.said(&["services", "create", "iris", "--replica", &replica]).await;
    assert!(said.contains("/api/v1/service/iris/score"), "{said}");
    let again = shell.refused(&["services", "create", "iris", "--replica", &replica]).await;
    assert!(again.contains("[PreconditionFailed]") || again.contains("[ResourceExists]"), "{again}");

    let key = async |slot: usize| {
        shell.json(&["keys", "list", "iris"]).await[slot]["value"].as_str().unwrap().to_owned()
    };
    let (primary, secondary) = (key(0).await, key(1).await);
    assert_eq!(gateway.score("iris", Some(&primary), "{}").await.status, 200);
    let asked = shell.refused(&["keys", "regenerate", "iris", "primary"]).await;
    assert!(asked.contains("add --yes"), "{asked}");
    assert_eq!(gateway.score("iris", Some(&primary), "{}").await.status, 200, "nobody said yes");
    shell.said(&["keys", "regenerate", "iris", "primary", "--yes"]).await;
    assert_eq!(gateway.score("iris", Some(&primary), "{}").await.status, 401);
    assert_eq!(gateway.score("iris", Some(&secondary), "{}").await.status, 200);

    shell.said(&["services", "set", "iris", "--auth", "token", "--tag", "team=a"]).await;
    let token = shell.json(&["tokens", "get", "iris"]).await;
    let token_text = token["token"].as_str().unwrap();
    assert_eq!(gateway.score("iris", Some(token_text), "{}").await.status, 200);
    shell.said(&["tokens", "revoke", "--id", token["id"].as_str().unwrap(), "-y"]).await;
    assert_eq!(gateway.score("iris", Some(token_text), "{}").await.status, 401);

    shell.said(&["deployments", "set", "iris", "green", "--replica", &replica]).await;
    shell.said(&["deployments", "traffic", "iris", "default=90", "green=10"]).await;
    let unknown = shell.refused(&["deployments", "traffic", "iris", "blue=100"]).await;
    assert!(unknown.contains("it has default, green"), "{unknown}");
    let shown = shell.json(&["services", "show", "iris"]).await;
    assert_eq!((&shown["auth"], &shown["tags"]["team"]), (&"token".into(), &"a".into()));
    assert_eq!(shown["deployments"]["green"]["traffic"], 10);
    let table = shell.said(&["services", "list", "--tag", "team=a"]).await;
    assert!(table.lines().count() == 2 && table.contains("AKS"), "{table}");

    shell.said(&["services", "delete", "iris", "-y"]).await;
    let gone = shell.refused(&["services", "show", "iris"]).await;
    assert!(gone.contains("[ResourceNotFound]"), "{gone}");
    let log = shell.json(&["activity", "list", "--limit", "500"]).await;
    let operations = log.as_array().unwrap().iter().map(|event| event["operation_name"].as_str().unwrap());
    assert!(operations.clone().any(|name| name.ends_with("services/aks/delete")), "{log}");
    assert!(shell.said(&["activity", "verify"]).await.contains("events"));
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_are_given_to_others_and_refusals_say_what_to_do() {
    let gateway = gateway().await;
    let owner = logged_in(&gateway).await;
    let made = owner.json(&["tokens", "management", "create", "ann", "--days", "1"]).await;
    owner.said(&["roles", "assign", "Reader", "--principal", "ann"]).await;
    assert!(owner.said(&["roles", "assignments"]).await.contains("principal=ann"));
    assert!(owner.said(&["roles", "list"]).await.contains("Contributor"));

    let ann = Shell { login: gateway.path("ann.json"), ..Shell::of(&gateway) };
    let file = gateway.path("ann.token");
    std::fs::write(&file, made["token"].as_str().unwrap()).unwrap();
    assert_eq!(ann.login(&file).await.code, 0);
    let refused = ann.refused(&["services", "create", "iris", "--replica", "http://10.0.0.1:5001"]).await;
    assert!(refused.contains("services/aks/write") && refused.contains("roles assign"), "{refused}");
    owner.said(&["tokens", "management", "revoke", made["id"].as_str().unwrap(), "-y"]).await;
    let revoked = ann.refused(&["services", "list"]).await;
    assert!(revoked.contains("scoregate login"), "{revoked}");

    std::fs::write(&file, "sgm_wrong").unwrap();
    let before = std::fs::read(&owner.login).unwrap();
    assert_eq!(owner.login(&file).await.code, 1);
    assert_eq!(std::fs::read(&owner.login).unwrap(), before, "the login before stays");
    assert!(String::from_utf8(before).unwrap().contains(OWNER));
    let nobody = Shell { login: gateway.path("nobody.json"), ..Shell::of(&gateway) };
    assert!(nobody.refused(&["services", "list"]).await.contains("scoregate login"));
    assert_eq!(owner.run(&["services", "destroy"]).await.code, 2, "usage");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_of_a_running_gateway_is_checked_and_copied() {
    let gateway = gateway().await;
    let shell = logged_in(&gateway).await;
    let report = shell.json(&["store", "check"]).await;
    assert!(report["rows"]["activity"].is_u64(), "{report}");
    let copy = shell.json(&["store", "backup"]).await;
    let path = gateway.path(copy["path"].as_str().unwrap());
    let said = shell.said(&["store", "check", "--path", path.to_str().unwrap()]).await;
    assert!(said.contains("whole:"), "{said}");
    let script = shell.said(&["completions", "bash"]).await;
    assert!(script.contains("_scoregate"), "{script}");
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_looked_at_through_the_api_and_in_the_file() {
    let (_upstream, gateway) = with_iris().await;
    let shell = logged_in(&gateway).await;
    assert_eq!(gateway.score("iris", Some(KEY), "{}").await.status, 200);
    assert_eq!(gateway.score("iris", None, "{}").await.status, 401);
    assert_eq!(gateway.score("nobody", None, "{}").await.status, 404);
    let written = gateway.records(3).await;
    let file = gateway.path("records.jsonl");
    let file = file.to_str().unwrap();
    let query = async |arguments: &[&str]| {
        let found = shell.json(&[&["records", "query"], arguments].concat()).await;
        found.as_array().unwrap().clone()
    };

    // In the order of the file: each worker hands its records over by itself.
    let newest_first: Vec<_> = written.iter().rev().cloned().collect();
    let with_status = |fits: fn(u64) -> bool| {
        let fitting = newest_first.iter().filter(|record| fits(record["StatusCode"].as_u64().unwrap()));
        fitting.cloned().collect::<Vec<_>>()
    };
    assert_eq!(query(&["--gateway"]).await, newest_first);
    assert_eq!(query(&["--file", file]).await, newest_first);
    let routed = with_status(|status| status != 404);
    assert_eq!(query(&[]).await, routed, "the workspace has no part in a call that found no service");
    assert_eq!(query(&["--gateway", "--limit", "1"]).await, newest_first[..1]);
    for place in [&["--gateway"][..], &["--file", file]] {
        assert_eq!(query(&[place, &["--status", "4xx"]].concat()).await, with_status(|status| status != 200));
        let stranger = with_status(|status| status == 401);
        assert_eq!(query(&[place, &["--reason", "auth_missing"]].concat()).await, stranger);
        assert_eq!(query(&[place, &["--service", "iris", "--status", "401"]].concat()).await, stranger);
        let id = stranger[0]["RequestId"].as_str().unwrap();
        assert_eq!(query(&[place, &["--request-id", id]].concat()).await, stranger);
        let later = &[place, &["--from", "2999-01-01T00:00:00Z"]].concat();
        assert!(query(later).await.is_empty());
    }
    let table = shell.said(&["records", "query"]).await;
    assert!(table.contains("auth_missing") && table.lines().count() == 3, "{table}");
    for bad in [["--status", "6"], ["--reason", "bad_luck"], ["--from", "noon"]] {
        assert_eq!(shell.run(&[&["records", "query"], &bad[..]].concat()).await.code, 2, "{bad:?}");
    }
    let elsewhere = shell.refused(&["records", "query", "-w", "elsewhere"]).await;
    assert!(elsewhere.contains("[ResourceNotFound]"), "{elsewhere}");
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_followed_as_they_come() {
    use tokio::io::{AsyncBufReadExt as _, BufReader};
    let (_upstream, gateway) = with_iris().await;
    let shell = logged_in(&gateway).await;
    assert_eq!(gateway.score("iris", Some(KEY), "{}").await.status, 200);
    gateway.records(1).await;
    let file = gateway.path("records.jsonl");
    for place in [&["--file", file.to_str().unwrap()][..], &[]] {
        let mut tail = tokio::process::Command::new(env!("CARGO_BIN_EXE_scoregate"))
            .args(["records", "tail", "-o", "json", "-n", "1"])
            .args(place)
            .env("SCOREGATE_LOGIN_FILE", &shell.login)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
        let mut next = async || {
            let line = lines.next_line().await.unwrap().unwrap();
            serde_json::from_str::<Value>(&line).unwrap()
        };
        let before = next().await["RequestId"].clone();
        assert_eq!(gateway.score("iris", None, "{}").await.status, 401);
        let after = next().await;
        assert_eq!(after["StatusCode"], 401);
        assert_ne!(after["RequestId"], before);
        tail.kill().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn top_shows_what_happens_per_service() {
    let (_upstream, gateway) = with_iris().await;
    let shell = Shell::of(&gateway);
    assert_eq!(gateway.score("iris", Some(KEY), "{}").await.status, 200);
    let observe = format!("http://{}", gateway.observe);
    let shown = shell.said(&["top", "--once", "-i", "0.1", "--observe", &observe]).await;
    assert!(shown.contains("requests/s") && shown.contains("\n iris "), "{shown}");
    let nowhere = shell.refused(&["top", "--once", "--observe", "http://127.0.0.1:1"]).await;
    assert!(nowhere.contains("observe address"), "{nowhere}");
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn the_login_file_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let gateway = gateway().await;
    let shell = logged_in(&gateway).await;
    assert_eq!(std::fs::metadata(&shell.login).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_became_of_the_records_is_told_by_the_api_the_metrics_and_the_spool_itself() {
    let upstream = Upstream::answering(|_| ok(b"[1]")).await;
    // Nobody takes what is sent there.
    let exporter = "telemetry: { spool: { path: spool }, application_insights: { connection_string: { file: insights } }, records:";
    let config = managed(&service("iris", upstream.address, "")).replace("telemetry: { records:", exporter);
    let insights =
        "InstrumentationKey=99999999-8888-4777-8666-555555555555;IngestionEndpoint=http://127.0.0.2:1/";
    let mut gateway = Gateway::start_with(&config, &[("bootstrap.key", OWNER), ("insights", insights)]).await;
    let shell = logged_in(&gateway).await;
    for _ in 0..3 {
        assert_eq!(gateway.score("iris", Some(KEY), "[1]").await.status, 200);
    }
    shell.json(&["tokens", "management", "create", "ann", "--days", "1"]).await;
    let series = "scoregate_exporter_spooled{exporter=\"application_insights\"}";
    let spooled = eventually("records and events in the spool", async || {
        let spooled = gateway.metric(series).await;
        (spooled >= 5.0).then_some(spooled)
    })
    .await;
    let told = shell.json(&["records", "stats"]).await;
    assert_eq!((&told[0]["name"], &told[0]["accepted"]), (&json!("records"), &json!(3)));
    assert_eq!(told[0]["delivered"], 3);
    let exporter = &told[1];
    assert_eq!(exporter["name"], "application_insights");
    let count = |name: &str| exporter[name].as_u64().unwrap();
    assert_eq!(count("accepted"), count("delivered") + count("spooled") + count("dropped"));
    assert_eq!(count("spooled") as f64, spooled);
    let observe = format!("http://{}", gateway.observe);
    assert_eq!(shell.json(&["records", "stats", "--observe", &observe]).await, told);
    let table = shell.said(&["records", "stats"]).await;
    assert!(table.contains("ACCEPTED") && table.contains("application_insights"), "{table}");

    gateway.drain().await;
    let spool = gateway.path("spool");
    let left = shell.json(&["records", "stats", "--spool", spool.to_str().unwrap()]).await;
    assert_eq!((&left[0]["name"], &left[0]["records"]), (&json!("application_insights"), &json!(3)));
    assert_eq!(left[0]["spooled"].as_f64().unwrap(), spooled);
    let nowhere = shell.refused(&["records", "stats", "--spool", "/nowhere"]).await;
    assert!(nowhere.contains("/nowhere"), "{nowhere}");
}
