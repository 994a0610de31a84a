//! Services that come and go while the gateway runs, at the door: what is published counts on open connections at once.

mod at_expiry;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use scoregate::auth::{AuthSettings, KeyDigest, KeySettings, MintRequest, SigningKey, TokenSettings, mint};
use scoregate::catalog::{AtExpiry, ComputeType, ServiceName, StatusMapping};
use scoregate::limit::{AdmissionSettings, ChosenBy, DeploymentLimits, Limits, QueueLength, RateLimits};
use scoregate::proxy::{DeploymentSettings, EndpointPaths, ServiceChanges, ServiceSettings, SplitSettings};
use scoregate::upstream::{
    AddressPolicy, BalancingSettings, Deadlines, NamesSettings, Origin, ReplicaProtocol, ReplicaSettings,
    RetrySettings,
};
use secrecy::ExposeSecret;

use crate::harness::{
    Gateway, KEY, OTHER_KEY, Upstream, assert_record, config, eventually, score_request, service,
};

const ISSUER: &str = "https://managed.test";

fn name(text: &str) -> ServiceName {
    ServiceName::parse(text).unwrap()
}

/// The auth mode of a service that takes these keys.
fn by_keys(primary: &str, secondary: Option<&str>) -> AuthSettings {
    let digest = |key: &str| KeyDigest::of(&key.into()).unwrap();
    AuthSettings::Key(KeySettings { primary: digest(primary), secondary: secondary.map(digest) })
}

/// The auth mode of a service that takes tokens of this key.
fn by_tokens(key: &SigningKey) -> AuthSettings {
    AuthSettings::Token(Arc::new(TokenSettings {
        issuer: ISSUER.to_owned(),
        keys: vec![key.public().clone()],
        leeway: Duration::ZERO,
        revoked: Arc::default(),
    }))
}

fn token(key: &SigningKey, service: &str, lifetime: Duration) -> String {
    let now = SystemTime::now();
    let request = MintRequest { issuer: ISSUER, audience: service, subject: "ann", lifetime, now };
    mint(key, &request).unwrap().token.expose_secret().to_owned()
}

/// A managed AKS service with one deployment and one replica.
fn managed(text: &str, replica: SocketAddr, auth: AuthSettings) -> ServiceSettings {
    let minute = Duration::from_secs(60);
    ServiceSettings {
        name: name(text),
        compute_type: ComputeType::Aks,
        hosts: vec![],
        opens: Arc::default(),
        auth,
        at_expiry: AtExpiry::Finish,
        websocket: false,
        limits: Limits {
            body_bytes: 1 << 20,
            header_bytes: 1 << 14,
            request_body: minute,
            response_write: minute,
            answer: None,
            rates: RateLimits::default(),
        },
        status_mapping: StatusMapping::ComputeType,
        cors: None,
        retry: RetrySettings::default(),
        split: SplitSettings::default(),
        collect: None,
        deployments: vec![DeploymentSettings {
            name: name("green"),
            traffic: 100,
            limits: DeploymentLimits {
                upstream: Deadlines { connect: minute, first_byte: minute, idle: minute },
                admission: AdmissionSettings {
                    per_replica: None,
                    chosen_by: ChosenBy::Owner,
                    queue_wait: minute,
                    queue_length: QueueLength::Fixed(10),
                },
            },
            replicas: vec![ReplicaSettings {
                origin: Origin { host: replica.ip().to_string().into(), port: replica.port() },
                protocol: ReplicaProtocol::H1,
                tls: None,
                policy: None,
            }],
            balancing: BalancingSettings::default(),
            health: None,
            names: NamesSettings::default(),
            paths: EndpointPaths::default(),
        }],
    }
}

fn upsert(gateway: &Gateway, services: impl IntoIterator<Item = ServiceSettings>) -> u64 {
    let upsert = services.into_iter().map(Arc::new).collect();
    gateway.running().publisher().apply(ServiceChanges { upsert, remove: vec![] }).unwrap()
}

fn remove(gateway: &Gateway, service: &str) -> u64 {
    let changes = ServiceChanges { upsert: vec![], remove: vec![name(service)] };
    gateway.running().publisher().apply(changes).unwrap()
}

/// A gateway whose configuration has one service, `wine`.
async fn gateway(upstream: &Upstream) -> Gateway {
    Gateway::start(&config(&service("wine", upstream.address, ""))).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_managed_service_appears_on_open_connections_and_is_gone_when_removed() {
    let upstream = Upstream::echo().await;
    let gateway = gateway(&upstream).await;
    let mut h1 = gateway.connect().await;
    let mut h2 = gateway.h2().await;
    let generation = upsert(&gateway, [managed("iris", upstream.address, by_keys(KEY, None))]);
    assert_eq!(generation, 2);
    for _ in 0..2 {
        h1.send(score_request("iris", Some(KEY), "1")).await;
        assert_eq!(h1.answer().await.status, 200);
        assert_eq!(h2.score("iris", KEY, "1").await.status, 200);
        h1.send(score_request("wine", Some(KEY), "1")).await;
        assert_eq!(h1.answer().await.status, 200, "declared ones stay");
        // Published again as it is: nothing is to be noticed.
        upsert(&gateway, [managed("iris", upstream.address, by_keys(KEY, None))]);
    }
    remove(&gateway, "iris");
    h1.send(score_request("iris", Some(KEY), "1")).await;
    assert_eq!(h1.answer().await.status, 404);
    assert_eq!(h2.score("iris", KEY, "1").await.status, 404);
    let records = gateway.exactly(8).await;
    assert_record(
        &records[0],
        &serde_json::json!({"Service": "iris", "Deployment": "green", "KeyId": "primary"}),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_key_is_dead_on_the_next_request_of_an_open_connection() {
    const THIRD: &str = "third-0123456789abcdefghijklmnopqrs";
    let upstream = Upstream::echo().await;
    let gateway = gateway(&upstream).await;
    let mut h1 = gateway.connect().await;
    let mut h2 = gateway.h2().await;
    let last_use = || gateway.running().publisher().key_use(&name("iris")).unwrap();
    upsert(&gateway, [managed("iris", upstream.address, by_keys(KEY, Some(OTHER_KEY)))]);
    assert_eq!(last_use(), [None, None]);
    let before = SystemTime::now() - Duration::from_secs(1);
    h1.send(score_request("iris", Some(KEY), "1")).await;
    assert_eq!(h1.answer().await.status, 200);
    let [used, unused] = last_use();
    assert!(used.is_some_and(|used| before <= used && used <= SystemTime::now()), "{used:?}");
    assert_eq!(unused, None);

    upsert(&gateway, [managed("iris", upstream.address, by_keys(THIRD, Some(OTHER_KEY)))]);
    assert_eq!(last_use(), [None, None], "a new key was never used");
    for (key, status) in [(KEY, 401), (THIRD, 200), (OTHER_KEY, 200)] {
        h1.send(score_request("iris", Some(key), "1")).await;
        assert_eq!(h1.answer().await.status, status, "{key}");
        assert_eq!(h2.score("iris", key, "1").await.status, status, "{key}");
    }
    assert!(last_use().iter().all(Option::is_some));
}

/// What one connection sees of the switch from keys to tokens: each round is a call with the key, one with a token and one
/// with neither. On a connection, whose worker goes from one snapshot to the next, there must be one moment before which
/// only the key opens and after which only the token does.
async fn watch_switch(gateway: &Gateway, token: &str) {
    let mut connection = gateway.connect().await;
    let mut switched = false;
    let mut rounds_after = 0;
    while rounds_after < 20 {
        let mut outcomes = [0; 3];
        for (outcome, credential) in outcomes.iter_mut().zip([Some(KEY), Some(token), None]) {
            connection.send(score_request("iris", credential, "1")).await;
            *outcome = connection.answer().await.status;
        }
        let expected: &[[u16; 3]] = match switched {
            // Between the two calls of a round both may be right, never none.
            false => &[[200, 401, 401], [200, 200, 401], [401, 200, 401]],
            true => &[[401, 200, 401]],
        };
        assert!(expected.contains(&outcomes), "{outcomes:?}, switched: {switched}");
        switched |= outcomes[1] == 200;
        rounds_after += usize::from(switched);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switch_from_keys_to_tokens_has_no_instant_in_which_both_or_neither_open() {
    let upstream = Upstream::echo().await;
    let gateway = gateway(&upstream).await;
    let signing = SigningKey::generate().unwrap();
    let token = token(&signing, "iris", Duration::from_secs(3600));
    upsert(&gateway, [managed("iris", upstream.address, by_keys(KEY, None))]);
    let switch = async {
        upstream.until_seen(40).await;
        upsert(&gateway, [managed("iris", upstream.address, by_tokens(&signing))]);
    };
    let watch = || watch_switch(&gateway, &token);
    tokio::join!(watch(), watch(), watch(), watch(), switch);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_keeps_managed_services_and_their_connections() {
    let upstream = Upstream::echo().await;
    let managed_upstream = Upstream::echo().await;
    let wine = service("wine", upstream.address, "");
    let one_worker = |services: &str| config(services).replace("workers: 2", "workers: 1");
    let gateway = Gateway::start(&one_worker(&wine)).await;
    upsert(&gateway, [managed("iris", managed_upstream.address, by_keys(KEY, None))]);
    assert_eq!(gateway.score("iris", Some(KEY), "1").await.status, 200);

    let both = wine + &service("rose", upstream.address, "");
    gateway.replace("scoregate.yaml", &one_worker(&both));
    gateway.reload().await;
    for service in ["wine", "rose", "iris"] {
        assert_eq!(gateway.score(service, Some(KEY), "1").await.status, 200, "{service}");
    }
    assert_eq!(managed_upstream.accepted(), 1, "the pooled connection lived through the reload");
    gateway.replace("scoregate.yaml", &one_worker("  []"));
    gateway.reload().await;
    assert_eq!(gateway.score("wine", Some(KEY), "1").await.status, 404);
    assert_eq!(gateway.score("iris", Some(KEY), "1").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_declared_service_stands_before_a_managed_one_of_its_name_or_host() {
    let upstream = Upstream::echo().await;
    let hosts = "    hosts: [iris.test]";
    let gateway = Gateway::start(&config(&service("wine", upstream.address, hosts))).await;
    let by_host = ServiceSettings {
        hosts: vec!["iris.test".into()],
        ..managed("iris", upstream.address, by_keys(OTHER_KEY, None))
    };
    upsert(&gateway, [managed("wine", upstream.address, AuthSettings::None), by_host]);
    assert_eq!(gateway.score("wine", None, "1").await.status, 401, "the declared one asks for a key");
    assert_eq!(gateway.score("iris", Some(OTHER_KEY), "1").await.status, 404, "left out for its host");

    gateway.replace("scoregate.yaml", &config("  []"));
    gateway.reload().await;
    assert_eq!(gateway.score("wine", None, "1").await.status, 200);
    assert_eq!(gateway.score("iris", Some(OTHER_KEY), "1").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_without_deployments_answers_404_to_those_it_lets_in() {
    let upstream = Upstream::echo().await;
    let gateway = gateway(&upstream).await;
    let bare = managed("iris", upstream.address, by_keys(KEY, None));
    upsert(&gateway, [ServiceSettings { deployments: vec![], ..bare.clone() }]);
    let answer = gateway.score("iris", Some(KEY), "1").await;
    assert_eq!((answer.status, answer.reason()), (404, "unknown_service"));
    assert!(answer.text().contains("the service has no deployment with traffic"), "{}", answer.text());
    assert_eq!(gateway.score("iris", None, "1").await.status, 401);

    let mut idle = bare;
    idle.deployments[0].traffic = 0;
    upsert(&gateway, [idle]);
    assert_eq!(gateway.score("iris", Some(KEY), "1").await.status, 404);
    let named =
        score_request("iris", Some(KEY), "1").replace("Host:", "azureml-model-deployment: green\r\nHost:");
    assert_eq!(gateway.call(named).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_of_a_managed_service_is_never_the_gateway_itself() {
    let upstream = Upstream::echo().await;
    let gateway = gateway(&upstream).await;
    let policy = Some(Arc::new(AddressPolicy::new(vec![gateway.observe])));
    let at = |text, address| {
        let mut settings = managed(text, address, by_keys(KEY, None));
        settings.deployments[0].replicas[0].policy = policy.clone();
        settings.deployments[0].paths.score = Some("/metrics".parse().unwrap());
        settings
    };
    let mut by_name = at("named", gateway.observe);
    by_name.deployments[0].replicas[0].origin.host = "localhost".into();
    upsert(&gateway, [at("iris", gateway.observe), by_name, at("elsewhere", upstream.address)]);
    for service in ["iris", "named"] {
        let answer = gateway.score(service, Some(KEY), "1").await;
        assert_eq!((answer.status, answer.reason()), (502, "connect_failed"), "{service}");
        assert!(!answer.text().contains("scoregate_"), "{}", answer.text());
    }
    assert_eq!(gateway.score("elsewhere", Some(KEY), "1").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retired_snapshots_are_freed_though_workers_are_idle() {
    let upstream = Upstream::echo().await;
    let gateway = gateway(&upstream).await;
    let published = gateway.running().publisher().published();
    let first = Arc::downgrade(&published.load_full());
    upsert(&gateway, [managed("iris", upstream.address, by_keys(KEY, None))]);
    eventually("the first snapshot is free", async || first.upgrade().is_none().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_has_series_from_its_first_call_on() {
    let upstream = Upstream::echo().await;
    let gateway = gateway(&upstream).await;
    upsert(&gateway, [managed("iris", upstream.address, by_keys(KEY, None))]);
    let (_, page) = gateway.observe("/metrics").await;
    assert!(!page.contains(r#"scoregate_requests_total{service="iris""#));
    gateway.score("iris", Some(KEY), "1").await;
    let series = r#"scoregate_requests_total{service="iris",compute_type="AKS",deployment="green",code="200",reason="ok"}"#;
    gateway.until_metric(series, 1.0).await;
    // Another key, another service object, the same counts.
    upsert(&gateway, [managed("iris", upstream.address, by_keys(OTHER_KEY, None))]);
    gateway.score("iris", Some(OTHER_KEY), "1").await;
    gateway.until_metric(series, 2.0).await;
}
