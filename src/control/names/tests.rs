//! Members of a set as the answers about its names change; no resolver, no clock.

use super::*;
use crate::upstream::{AddressPolicy, BalancingSettings, ReplicaProtocol};

struct Nobody;

impl Resolver for Nobody {
    fn look_up<'a>(&'a self, _: &'a str, _: u16) -> LookUp<'a> {
        Box::pin(async { Err(io::Error::other("asked by a test that answers itself")) })
    }
}

fn settings(host: &str) -> ReplicaSettings {
    ReplicaSettings {
        origin: Origin { host: host.into(), port: 5001 },
        protocol: ReplicaProtocol::H1,
        tls: None,
        policy: None,
    }
}

/// A deployment with replicas at `hosts`, each of which has to prove something if `verdict` says so.
fn names(hosts: &[&str], verdict: Verdict) -> Names {
    let replicas: Vec<_> = hosts.iter().map(|host| settings(host)).collect();
    let members = replicas.iter().map(|settings| Replica::new(settings.clone())).collect();
    let subject = Subject {
        set: ReplicaSet::new("iris/blue", BalancingSettings::default(), members),
        replicas: replicas.into(),
        refresh: Duration::from_secs(5),
        verdict,
        service: "iris".into(),
        deployment: "blue".into(),
    };
    let shared = Shared {
        resolver: Arc::new(Nobody),
        metrics: Metrics::new(),
        topology: Topology::default(),
        places: Arc::new(Semaphore::new(1)),
        replace: Arc::new(|set, members| {
            set.replace_members(members);
            true
        }),
    };
    Names::new(subject, shared)
}

impl Names {
    /// Takes `answer` for the name `host`.
    fn hear(&mut self, host: &str, answer: &[&str]) {
        let addresses = answer.iter().map(|address| format!("{address}:5001").parse().unwrap()).collect();
        self.take(&settings(host).origin, Ok(Hosts::of(addresses)));
        self.apply();
    }

    fn fail(&mut self, host: &str) {
        self.take(&settings(host).origin, Err(io::Error::other("SERVFAIL")));
        self.apply();
    }

    fn labels(&self) -> Vec<String> {
        self.subject.set.members().iter().map(|replica| replica.label().to_string()).collect()
    }

    fn member(&self, label: &str) -> Arc<Replica> {
        let members = self.subject.set.members();
        Arc::clone(members.iter().find(|replica| &**replica.label() == label).unwrap())
    }

    fn counted(&self, outcome: &str) -> bool {
        let page = self.shared.metrics.render();
        page.lines().any(|line| line == format!(r#"scoregate_names_total{{outcome="{outcome}"}} 1"#))
    }
}

#[test]
fn each_address_is_a_member_and_those_that_stay_are_the_same() {
    let mut names = names(&["model", "127.0.0.1"], Verdict::Unprobed);
    assert_eq!(names.labels(), ["model:5001", "127.0.0.1:5001"]);
    names.hear("model", &["10.0.0.2", "10.0.0.1"]);
    assert_eq!(names.labels(), ["10.0.0.1:5001", "10.0.0.2:5001", "127.0.0.1:5001"]);
    let (stays, literal) = (names.member("10.0.0.2:5001"), names.member("127.0.0.1:5001"));
    names.hear("model", &["10.0.0.3", "10.0.0.2"]);
    assert_eq!(names.labels(), ["10.0.0.2:5001", "10.0.0.3:5001", "127.0.0.1:5001"]);
    assert!(Arc::ptr_eq(&stays, &names.member("10.0.0.2:5001")));
    assert!(Arc::ptr_eq(&literal, &names.member("127.0.0.1:5001")));
}

#[test]
fn a_look_up_that_brings_nothing_keeps_the_last_good_answer() {
    let mut names = names(&["model"], Verdict::Unprobed);
    names.fail("model");
    assert_eq!(names.labels(), ["model:5001"], "until the first answer the name stands for itself");
    names.hear("model", &["10.0.0.1"]);
    let member = names.member("10.0.0.1:5001");
    names.hear("model", &[]);
    assert!(Arc::ptr_eq(&member, &names.member("10.0.0.1:5001")));
    assert_eq!(names.labels(), ["10.0.0.1:5001"]);
    names.hear("model", &["10.0.0.1"]);
    for outcome in ["failed", "changed", "empty", "unchanged"] {
        assert!(names.counted(outcome), "{outcome}");
    }
}

#[test]
fn each_name_has_an_answer_of_its_own() {
    let mut names = names(&["one", "two"], Verdict::Unprobed);
    names.hear("two", &["10.0.0.2"]);
    assert_eq!(names.labels(), ["one:5001", "10.0.0.2:5001"]);
    names.hear("one", &["10.0.0.1"]);
    names.fail("two");
    assert_eq!(names.labels(), ["10.0.0.1:5001", "10.0.0.2:5001"]);
}

#[test]
fn a_host_of_two_addresses_is_one_member_in_whatever_order() {
    let mut names = names(&["localhost"], Verdict::Unprobed);
    names.take(
        &settings("localhost").origin,
        Ok(Hosts::of(vec!["[::1]:5001".parse().unwrap(), "127.0.0.1:5001".parse().unwrap()])),
    );
    names.apply();
    let member = names.member("localhost:5001");
    assert_eq!(member.addresses().len(), 2);
    names.take(
        &settings("localhost").origin,
        Ok(Hosts::of(vec!["127.0.0.1:5001".parse().unwrap(), "[::1]:5001".parse().unwrap()])),
    );
    names.apply();
    assert!(Arc::ptr_eq(&member, &names.member("localhost:5001")));
    assert!(names.counted("unchanged"));
}

#[test]
fn who_serves_stays_until_one_that_replaces_it_is_ready() {
    let mut names = names(&["model"], Verdict::Starting);
    names.member("model:5001").set_verdict(Verdict::Ready);
    names.hear("model", &["10.0.0.1"]);
    assert_eq!(names.labels(), ["10.0.0.1:5001", "model:5001"]);
    assert_eq!(names.member("10.0.0.1:5001").verdict(), Verdict::Starting);
    names.member("10.0.0.1:5001").set_verdict(Verdict::Ready);
    names.apply();
    assert_eq!(names.labels(), ["10.0.0.1:5001"]);

    names.hear("model", &["10.0.0.2"]);
    assert_eq!(names.labels(), ["10.0.0.2:5001", "10.0.0.1:5001"]);
    // Whose probes fail does not serve, and nothing is gained by its staying.
    names.member("10.0.0.1:5001").set_verdict(Verdict::NotReady);
    names.apply();
    assert_eq!(names.labels(), ["10.0.0.2:5001"]);
}

#[test]
fn addresses_that_no_replica_may_have_are_no_members() {
    let own = "10.0.0.1:5001".parse().unwrap();
    let policed =
        ReplicaSettings { policy: Some(Arc::new(AddressPolicy::new(vec![own]))), ..settings("model") };
    let answer = ["10.0.0.1:5001", "169.254.169.254:5001", "10.0.0.2:5001"];
    let answer = || answer.map(|address| address.parse().unwrap()).to_vec();
    assert_eq!(permitted(&policed, answer()), ["10.0.0.2:5001".parse().unwrap()]);
    assert_eq!(permitted(&settings("model"), answer()).len(), 3);
}
