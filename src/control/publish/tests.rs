//! Snapshots put together without a gateway around them, and what many services cost.

use std::path::Path;
use std::time::{Duration, Instant};

use super::super::config::{Source, load};
use super::*;
use crate::auth::{AuthSettings, KeyDigest, KeySettings, TokenSettings};
use crate::catalog::{AtExpiry, ComputeType, StatusMapping};
use crate::limit::{
    AdmissionSettings, ChosenBy, DeploymentLimits, Limits, PrincipalId, QueueLength, RateLimits, RateSettings,
};
use crate::proxy::{DeploymentSettings, EndpointPaths, ServiceSettings, SplitSettings};
use crate::upstream::{
    BalancingSettings, Deadlines, NamesSettings, Origin, ReplicaProtocol, ReplicaSettings, RetrySettings,
};

/// A configuration whose services have these names and hosts.
fn config(services: &[(&str, &str)]) -> Config {
    let mut text =
        "version: scoregate/v1\nlisteners: [{name: public, address: 127.0.0.1:0, plaintext: true}]\nservices:\n"
            .to_owned();
    for (name, host) in services {
        text += &format!(
            "- {{name: {name}, compute_type: ACI, hosts: ['{host}'], deployments: [{{name: blue, replicas: ['http://127.0.0.1:1']}}]}}\n"
        );
    }
    if services.is_empty() {
        text = text.replace("services:", "services: []");
    }
    let loaded = load(&Source::text("c.yaml", Path::new("/"), text));
    loaded.unwrap_or_else(|problems| panic!("{problems}")).config
}

fn name(text: &str) -> ServiceName {
    ServiceName::parse(text).unwrap()
}

fn digest(number: usize) -> KeyDigest {
    let mut digest = [0; 32];
    digest[..8].copy_from_slice(&number.to_be_bytes());
    KeyDigest::from_parts(digest, None)
}

/// A managed service with two keys and one replica, all after `number`.
fn managed(text: &str, number: usize) -> ServiceSettings {
    let seconds = Duration::from_secs(60);
    ServiceSettings {
        name: name(text),
        compute_type: ComputeType::Aks,
        hosts: vec![],
        opens: Arc::default(),
        auth: AuthSettings::Key(KeySettings {
            primary: digest(2 * number),
            secondary: Some(digest(2 * number + 1)),
        }),
        at_expiry: AtExpiry::Finish,
        websocket: false,
        limits: Limits {
            body_bytes: 1 << 20,
            header_bytes: 1 << 14,
            request_body: seconds,
            response_write: seconds,
            answer: None,
            rates: RateLimits::default(),
        },
        status_mapping: StatusMapping::ComputeType,
        cors: None,
        retry: RetrySettings::default(),
        split: SplitSettings::default(),
        collect: None,
        deployments: vec![DeploymentSettings {
            name: name("blue"),
            traffic: 100,
            limits: DeploymentLimits {
                upstream: Deadlines { connect: seconds, first_byte: seconds, idle: seconds },
                admission: AdmissionSettings {
                    per_replica: Some(4),
                    chosen_by: ChosenBy::Owner,
                    queue_wait: seconds,
                    queue_length: QueueLength::Fixed(10),
                },
            },
            replicas: vec![ReplicaSettings {
                origin: Origin { host: format!("{text}.models.svc").into(), port: 5001 },
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

fn upsert(settings: impl IntoIterator<Item = ServiceSettings>) -> ServiceChanges {
    ServiceChanges { upsert: settings.into_iter().map(Arc::new).collect(), remove: vec![] }
}

fn publisher(config: &Config) -> Publisher {
    Publisher::start(config, Metrics::new(), JwksRegistry::default()).unwrap()
}

fn names(publisher: &Publisher) -> Vec<String> {
    let running = publisher.published.load();
    running.services.iter().map(|service| service.settings.name.to_string()).collect()
}

fn service(publisher: &Publisher, name: &str) -> Arc<Service> {
    Arc::clone(publisher.published.load().service(name).unwrap())
}

#[test]
fn what_has_not_changed_is_carried_over_and_what_has_keeps_its_counts() {
    let publisher = publisher(&config(&[("wine", "wine.test")]));
    publisher.apply(upsert([managed("iris", 1), managed("rose", 2)])).unwrap();
    let (wine, iris, rose) =
        (service(&publisher, "wine"), service(&publisher, "iris"), service(&publisher, "rose"));
    // The same settings again, another traffic limit, and a reload.
    let mut changed = managed("rose", 2);
    changed.deployments[0].limits.upstream.idle = Duration::from_secs(1);
    publisher.apply(upsert([managed("iris", 1), changed.clone()])).unwrap();
    publisher.publish(&config(&[("wine", "wine.test")])).unwrap();
    assert!(Arc::ptr_eq(&wine, &service(&publisher, "wine")));
    assert!(Arc::ptr_eq(&iris, &service(&publisher, "iris")));
    let new = service(&publisher, "rose");
    assert!(!Arc::ptr_eq(&rose, &new));
    assert_eq!(new.deployments[0].deadlines.idle, Duration::from_secs(1));
    assert!(Arc::ptr_eq(
        &rose.deployments[0].replicas.members()[0],
        &new.deployments[0].replicas.members()[0]
    ));
    assert!(Arc::ptr_eq(&rose.deployments[0].admission, &new.deployments[0].admission));
    assert!(Arc::ptr_eq(&rose.authenticator, &new.authenticator));
    changed.auth = AuthSettings::None;
    publisher.apply(upsert([changed])).unwrap();
    assert!(!Arc::ptr_eq(&new.authenticator, &service(&publisher, "rose").authenticator));
}

#[test]
fn limits_change_in_the_place_that_calls_are_counted_in() {
    let publisher = publisher(&config(&[]));
    let rate = RateSettings::new(0.001, Some(1));
    let mut settings = managed("iris", 1);
    settings.limits.rates = RateLimits { service: Some(rate), per_principal: None };
    publisher.apply(upsert([settings.clone()])).unwrap();
    let before = service(&publisher, "iris");
    let admission = Arc::clone(&before.deployments[0].admission);
    let held: Vec<_> = (0..4).map(|_| admission.try_admit().unwrap()).collect();
    let caller = PrincipalId::of(&"ann");
    before.rates.as_ref().unwrap().take(caller).unwrap();

    // What cannot be published changes no limit, though it was built.
    settings.deployments[0].limits.admission.per_replica = Some(5);
    let nameless =
        TokenSettings { issuer: "me".into(), keys: vec![], leeway: Duration::ZERO, revoked: Arc::default() };
    let bad = ServiceSettings { auth: AuthSettings::Token(Arc::new(nameless)), ..managed("wine", 3) };
    publisher.apply(upsert([settings.clone(), bad])).unwrap_err();
    assert_eq!((admission.per_replica(), admission.try_admit().is_some()), (Some(4), false));

    publisher.apply(upsert([settings])).unwrap();
    let after = service(&publisher, "iris");
    assert!(Arc::ptr_eq(&admission, &after.deployments[0].admission));
    assert_eq!(admission.per_replica(), Some(5));
    let fifth = admission.try_admit();
    assert!(fifth.is_some() && admission.try_admit().is_none(), "the four are counted still");
    assert!(after.rates.as_ref().unwrap().take(caller).is_err(), "what was used of a rate is used still");
    drop(held);
}

#[test]
fn a_change_that_cannot_be_built_changes_nothing() {
    let publisher = publisher(&config(&[]));
    publisher.apply(upsert([managed("iris", 1)])).unwrap();
    let keyless =
        TokenSettings { issuer: "me".into(), keys: vec![], leeway: Duration::ZERO, revoked: Arc::default() };
    let bad = ServiceSettings { auth: AuthSettings::Token(Arc::new(keyless)), ..managed("wine", 3) };
    let changes = ServiceChanges { remove: vec![name("iris")], ..upsert([managed("rose", 2), bad]) };
    let error = publisher.apply(changes).unwrap_err();
    assert!(matches!(&error, PublishError::Auth(service, _) if *service == name("wine")), "{error}");
    assert_eq!((names(&publisher), publisher.generation()), (vec!["iris".to_owned()], 2));
    publisher.apply(upsert([managed("rose", 2)])).unwrap();
    assert_eq!(names(&publisher), ["iris", "rose"], "nothing of the refused change was kept");
}

#[test]
fn a_declared_name_or_host_stands_before_a_managed_one_for_as_long_as_it_is_there() {
    let publisher = publisher(&config(&[("iris", "iris.test")]));
    let by_host = ServiceSettings { hosts: vec!["iris.test".into()], ..managed("rose", 2) };
    publisher.apply(upsert([managed("iris", 1), by_host, managed("wine", 3)])).unwrap();
    assert_eq!(names(&publisher), ["iris", "wine"]);
    assert_eq!(service(&publisher, "iris").settings.compute_type, ComputeType::Aci);
    publisher.publish(&config(&[])).unwrap();
    assert_eq!(names(&publisher), ["iris", "rose", "wine"]);
    assert_eq!(service(&publisher, "iris").settings.compute_type, ComputeType::Aks);
    publisher.apply(ServiceChanges { remove: vec![name("iris"), name("nobody")], upsert: vec![] }).unwrap();
    assert_eq!(names(&publisher), ["rose", "wine"]);
}

#[test]
fn a_retired_snapshot_is_freed_by_the_publisher_once_the_last_holder_lets_go() {
    let publisher = publisher(&config(&[]));
    let held = publisher.published.load_full();
    let weak = Arc::downgrade(&held);
    publisher.apply(upsert([managed("iris", 1)])).unwrap();
    publisher.apply(upsert([managed("iris", 2)])).unwrap();
    assert_eq!(publisher.reap(), 1, "the one between was held by nobody");
    drop(held);
    assert!(weak.upgrade().is_some(), "whoever lets go does not free it");
    assert_eq!(publisher.reap(), 0);
    assert!(weak.upgrade().is_none());
}

#[test]
fn the_use_of_keys_is_told_by_service() {
    let publisher = publisher(&config(&[("wine", "wine.test")]));
    publisher.apply(upsert([managed("iris", 1)])).unwrap();
    assert_eq!(publisher.key_use(&name("iris")), Some([None, None]));
    assert_eq!(publisher.key_use(&name("wine")), None, "it has no keys");
    assert_eq!(publisher.key_use(&name("nobody")), None);
}

/// What many services cost: `cargo test --release price_of -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn price_of_many_services() {
    let resident = || {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    };
    for count in [10_000, 100_000] {
        let publisher = publisher(&config(&[]));
        let before = resident();
        let all = (0..count).map(|number| managed(&format!("service-{number}"), number));
        let start = Instant::now();
        publisher.apply(upsert(all)).unwrap();
        let first = start.elapsed();
        let bytes = (resident() - before) / count;
        let mut times: Vec<_> = (0..20)
            .map(|round| {
                // Two new keys for one service.
                let changed = managed(&format!("service-{}", round * 7), count + round);
                let start = Instant::now();
                publisher.apply(upsert([changed])).unwrap();
                start.elapsed()
            })
            .collect();
        times.sort();
        let (median, worst) = (times[10], times[19]);
        println!(
            "{count} services: {bytes} bytes each, first {first:?}, one change {median:?}, worst {worst:?}"
        );
    }
}
