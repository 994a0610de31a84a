//! Names of replicas, looked up again and again: each host that a name means is a replica of its own, and the last good
//! answer stays until there is another one.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until};

use super::publish::Publisher;
use super::topology::{Plan, Tasks, Topology};
use crate::proxy::Snapshot;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::LookUpOutcome;
use crate::upstream::{
    HostAddresses, Hosts, MAX_HOSTS, Origin, Replica, ReplicaSet, ReplicaSettings, Verdict,
};

/// Look-ups at once. Each takes a thread of the pool that reloads use as well, and one that hangs takes it for long.
const MOST_LOOK_UPS: usize = 32;

/// A look-up under way.
pub type LookUp<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'a>>;

/// Knows what names mean.
pub trait Resolver: Send + Sync {
    /// The addresses of `host`, each with the port to connect to, which is mostly `port`.
    fn look_up<'a>(&'a self, host: &'a str, port: u16) -> LookUp<'a>;
}

/// The system's own resolver: its hosts file, its name servers, its order.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

impl Resolver for SystemResolver {
    fn look_up<'a>(&'a self, host: &'a str, port: u16) -> LookUp<'a> {
        Box::pin(async move { tokio::net::lookup_host((host, port)).await.map(Iterator::collect) })
    }
}

/// Looks up the names in what `publisher` publishes and gives the sets their members. Never returns. Belongs on the control
/// plane's runtime.
pub async fn run(publisher: Arc<Publisher>, resolver: Arc<dyn Resolver>, metrics: Arc<Metrics>) {
    let topology = publisher.topology().clone();
    let mut changes = topology.follow();
    let mut tasks = Tasks::new("names");
    let replacing = Arc::clone(&publisher);
    let shared = Shared {
        resolver,
        metrics,
        topology,
        places: Arc::new(Semaphore::new(MOST_LOOK_UPS)),
        replace: Arc::new(move |set, members| replacing.replace_members(set, members)),
    };
    loop {
        let subjects = subjects(&publisher.published().load_full());
        tasks.reconcile(subjects, |plan| follow(plan, shared.clone()));
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// What all tasks have in common.
#[derive(Clone)]
struct Shared {
    resolver: Arc<dyn Resolver>,
    metrics: Arc<Metrics>,
    topology: Topology,
    places: Arc<Semaphore>,
    replace: Arc<Replace>,
}

/// Gives a set its members; `false`: not now.
type Replace = dyn Fn(&Arc<ReplicaSet>, Vec<Arc<Replica>>) -> bool + Send + Sync;

/// The names of one deployment.
#[derive(Clone)]
struct Subject {
    set: Arc<ReplicaSet>,
    replicas: Arc<[ReplicaSettings]>,
    refresh: Duration,
    /// What a new replica is thought of.
    verdict: Verdict,
    service: Arc<str>,
    deployment: Arc<str>,
}

/// The task's set never changes.
impl PartialEq for Subject {
    fn eq(&self, other: &Self) -> bool {
        (&self.replicas, self.refresh, self.verdict) == (&other.replicas, other.refresh, other.verdict)
    }
}

/// Deployments with replicas that are given by name, by where their set is.
fn subjects(snapshot: &Snapshot) -> HashMap<usize, Subject> {
    let mut subjects = HashMap::new();
    for service in &snapshot.services {
        for (deployment, settings) in service.deployments.iter().zip(&service.settings.deployments) {
            if !settings.replicas.iter().any(is_named) {
                continue;
            }
            let set = Arc::clone(&deployment.replicas);
            let subject = Subject {
                replicas: settings.replicas.as_slice().into(),
                refresh: settings.names.refresh,
                verdict: if settings.health.is_some() { Verdict::Starting } else { Verdict::Unprobed },
                service: service.settings.name.shared(),
                deployment: Arc::clone(&deployment.name),
                set,
            };
            // The subject holds the set, so that no other one can get its place.
            subjects.insert(Arc::as_ptr(&subject.set).addr(), subject);
        }
    }
    subjects
}

fn is_named(settings: &ReplicaSettings) -> bool {
    settings.origin.host.parse::<std::net::IpAddr>().is_err()
}

async fn follow(mut plan: Plan<Subject>, shared: Shared) {
    plan.follow(|subject| Names::new(subject, shared.clone()).run()).await;
}

/// The names of one deployment being looked up.
struct Names {
    subject: Subject,
    shared: Shared,
    known: HashMap<Origin, Known>,
}

/// What is known of one name.
#[derive(Debug, Default)]
struct Known {
    /// The last good answer; empty: there was none yet.
    hosts: Vec<HostAddresses>,
    /// How many hosts were left out of it.
    left_out: usize,
    /// The last look-up brought nothing, which was told.
    is_failing: bool,
}

impl Names {
    fn new(subject: Subject, shared: Shared) -> Self {
        Self { subject, shared, known: HashMap::new() }
    }

    async fn run(mut self) {
        let mut changes = self.shared.topology.follow();
        loop {
            self.look_up().await;
            self.apply();
            let next = Instant::now() + self.subject.refresh.mul_f64(0.2f64.mul_add(fastrand::f64(), 0.9));
            loop {
                tokio::select! {
                    () = sleep_until(next) => break,
                    // A replica that has become ready may take the place of one that is to go.
                    Ok(()) = changes.changed() => self.apply(),
                }
            }
        }
    }

    /// Looks all names up, at once.
    async fn look_up(&mut self) {
        let Shared { resolver, places, .. } = &self.shared;
        let named = self.subject.replicas.iter().filter(|settings| is_named(settings));
        let answers = join_all(named.map(async |settings| {
            let _place = places.acquire().await;
            let Origin { host, port } = &settings.origin;
            (settings.clone(), resolver.look_up(host, *port).await)
        }));
        for (settings, answer) in answers.await {
            let answer = answer.map(|addresses| Hosts::of(permitted(&settings, addresses)));
            self.take(&settings.origin, answer);
        }
    }

    /// Takes the answer for one name.
    fn take(&mut self, name: &Origin, answer: io::Result<Hosts>) {
        let (service, deployment) = (&self.subject.service, &self.subject.deployment);
        let known = self.known.entry(name.clone()).or_default();
        let (outcome, cause) = match answer {
            Ok(answer) if !answer.hosts.is_empty() => {
                if std::mem::take(&mut known.is_failing) {
                    tracing::info!(%service, %deployment, %name, "a name of replicas is known again");
                }
                if answer.left_out > 0 && answer.left_out != known.left_out {
                    let left_out = answer.left_out;
                    tracing::warn!(%service, %deployment, %name, left_out, most = MAX_HOSTS, "a name means more hosts than are taken");
                }
                known.left_out = answer.left_out;
                let same = same_hosts(&known.hosts, &answer.hosts);
                known.hosts = answer.hosts;
                let outcome = if same { LookUpOutcome::Unchanged } else { LookUpOutcome::Changed };
                return self.shared.metrics.health().looked_up(outcome);
            }
            Ok(_) => (LookUpOutcome::Empty, "no address that a replica may have".to_owned()),
            Err(error) => (LookUpOutcome::Failed, error.to_string()),
        };
        self.shared.metrics.health().looked_up(outcome);
        if !std::mem::replace(&mut known.is_failing, true) {
            tracing::warn!(%service, %deployment, %name, cause, "a name of replicas cannot be looked up: the last good answer stays");
        }
    }

    /// Makes the members of the set what is known of the names.
    fn apply(&self) {
        let before = self.subject.set.members();
        let (members, news) = self.members(&before);
        let same = members.len() == before.len()
            && members.iter().zip(before.iter()).all(|(new, old)| Arc::ptr_eq(new, old));
        if same {
            return;
        }
        let is_member = |replica: &&Arc<Replica>| members.iter().any(|member| Arc::ptr_eq(member, replica));
        let gone: Vec<_> = before.iter().filter(|old| !is_member(old)).map(|old| &**old.label()).collect();
        // Where it is not to be now, the next look or the next change of the topology comes back to it.
        if (self.shared.replace)(&self.subject.set, members) {
            let (service, deployment) = (&self.subject.service, &self.subject.deployment);
            tracing::info!(%service, %deployment, new = ?news, ?gone, "names of replicas mean other hosts now");
            self.shared.topology.changed();
        }
    }

    /// The members that the set should have, in the order of the settings, and the labels of those that are new. Where a
    /// replica has to prove something before it gets calls, those that the new ones replace stay until one of these is ready.
    fn members(&self, before: &[Arc<Replica>]) -> (Vec<Arc<Replica>>, Vec<Arc<str>>) {
        let mut news = Vec::new();
        let mut members = Vec::with_capacity(before.len());
        for settings in &*self.subject.replicas {
            let old: Vec<_> = before.iter().filter(|replica| replica.settings() == settings).collect();
            let hosts = self.known.get(&settings.origin).map_or(&[][..], |known| &known.hosts);
            if hosts.is_empty() {
                members.extend(old.into_iter().map(Arc::clone));
                continue;
            }
            let mut own = Vec::with_capacity(hosts.len());
            for host in hosts {
                let same = old.iter().find(|replica| same_host(replica.addresses(), host));
                own.push(same.map_or_else(
                    || {
                        let new = Replica::at(settings.clone(), host.clone());
                        new.set_verdict(self.subject.verdict);
                        news.push(Arc::clone(new.label()));
                        new
                    },
                    |same| Arc::clone(same),
                ));
            }
            if !own.iter().any(|replica| replica.may_serve()) {
                let leaving = |replica: &&&Arc<Replica>| {
                    replica.may_serve() && !own.iter().any(|member| Arc::ptr_eq(member, replica))
                };
                let leaving: Vec<_> = old.iter().filter(leaving).map(|replica| Arc::clone(replica)).collect();
                own.extend(leaving);
            }
            members.extend(own);
        }
        (members, news)
    }
}

/// Judged again at each connect; an address that is refused now need not become a replica that never answers.
fn permitted(settings: &ReplicaSettings, mut addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    if let Some(policy) = &settings.policy {
        addresses.retain(|address| policy.permits(address.ip(), address.port()).is_ok());
    }
    addresses
}

/// Two answers about one host may have its addresses in another order.
fn same_host(one: &[SocketAddr], other: &[SocketAddr]) -> bool {
    one.len() == other.len() && one.iter().all(|address| other.contains(address))
}

fn same_hosts(one: &[HostAddresses], other: &[HostAddresses]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same_host(one, other))
}

#[cfg(test)]
mod tests;
