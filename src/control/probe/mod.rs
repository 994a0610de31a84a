//! The prober: asks the replicas that have to prove that they can take calls, one task each, for as long as a snapshot has
//! them.

mod ask;
mod grpc;
mod judge;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio::time::{Instant, sleep};

use self::ask::Fault;
use self::judge::{Answer, Judge, Question};
use super::publish::Publisher;
use super::topology::{Plan, Tasks, Topology};
use crate::proxy::Snapshot;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::ProbeOutcome;
use crate::telemetry::record::RequestId;
use crate::upstream::{HealthSettings, Replica, Verdict};

/// Asks the replicas of what `publisher` publishes and tells them the verdict. Never returns. Belongs on the control plane's
/// runtime.
pub async fn run(publisher: Arc<Publisher>, metrics: Arc<Metrics>) {
    let topology = publisher.topology().clone();
    let mut changes = topology.follow();
    let mut prober = Prober { topology, metrics, tasks: Tasks::new("probe"), deployments: HashSet::new() };
    loop {
        prober.reconcile(&publisher.published().load_full());
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// A deployment by the names of its service and its own.
type DeploymentName = (Arc<str>, Arc<str>);

struct Prober {
    topology: Topology,
    metrics: Arc<Metrics>,
    tasks: Tasks<u64, Subject>,
    /// Those with replicas that are asked.
    deployments: HashSet<DeploymentName>,
}

/// Whom a task asks, and what.
#[derive(Clone)]
struct Subject {
    replica: Arc<Replica>,
    health: Arc<HealthSettings>,
    deployment: DeploymentName,
}

/// The task's replica never changes.
impl PartialEq for Subject {
    fn eq(&self, other: &Self) -> bool {
        self.health == other.health && self.deployment == other.deployment
    }
}

impl Prober {
    /// Makes the tasks those that `snapshot` needs.
    fn reconcile(&mut self, snapshot: &Snapshot) {
        let mut subjects = HashMap::new();
        let mut deployments = HashSet::new();
        let mut unasked = Vec::new();
        for service in &snapshot.services {
            for (deployment, settings) in service.deployments.iter().zip(&service.settings.deployments) {
                let members = deployment.replicas.members();
                let Some(health) = &settings.health else {
                    unasked.extend(members.iter().map(Arc::clone));
                    continue;
                };
                let name = (service.settings.name.shared(), Arc::clone(&deployment.name));
                subjects.extend(members.iter().map(|replica| {
                    let (replica, health) = (Arc::clone(replica), Arc::clone(health));
                    (replica.id(), Subject { replica, health, deployment: name.clone() })
                }));
                deployments.insert(name);
            }
        }
        let (metrics, topology) = (&self.metrics, &self.topology);
        self.tasks.reconcile(subjects, |plan| follow(plan, Arc::clone(metrics), topology.clone()));
        for (service, deployment) in self.deployments.difference(&deployments) {
            self.metrics.health().forget_probes(service, deployment);
        }
        self.deployments = deployments;
        // One that was to be asked, but whose settings changed before anybody began to. A task that ends does it itself.
        let stuck = |replica: &&Arc<Replica>| replica.verdict() != Verdict::Unprobed;
        unasked.iter().filter(stuck).for_each(|replica| replica.set_verdict(Verdict::Unprobed));
    }
}

/// Asks one replica until it is not wanted any more.
async fn follow(mut plan: Plan<Subject>, metrics: Arc<Metrics>, topology: Topology) {
    let replica = plan.now().replica;
    plan.follow(|subject| Asking::new(subject, &metrics, &topology).run()).await;
    replica.set_verdict(Verdict::Unprobed);
}

/// One replica being asked by one set of rules.
struct Asking {
    subject: Subject,
    metrics: Arc<Metrics>,
    topology: Topology,
    judge: Judge,
    /// What was last said about a scoring call that failed: it is not said again for each.
    told: Option<Fault>,
}

impl Asking {
    fn new(subject: Subject, metrics: &Arc<Metrics>, topology: &Topology) -> Self {
        let judge = Judge::new(&subject.health, subject.replica.verdict(), Instant::now());
        Self { subject, metrics: Arc::clone(metrics), topology: topology.clone(), judge, told: None }
    }

    async fn run(mut self) {
        self.subject.replica.set_verdict(self.judge.verdict());
        sleep(self.judge.first_pause(fastrand::f64())).await;
        while let Some(question) = self.judge.next() {
            let answer = self.ask(question).await;
            self.judged(question, answer);
            sleep(self.judge.pause(fastrand::f64())).await;
        }
    }

    async fn ask(&mut self, question: Question) -> Result<(), Fault> {
        let Subject { replica, health, .. } = &self.subject;
        let answer = match (question, &health.probe, &health.readiness) {
            (Question::Probe, Some(probe), _) => ask::probe(replica, probe).await,
            (Question::Score, _, Some(readiness)) => {
                let (id, begun) = (RequestId::new(), Instant::now());
                let answer = ask::score(replica, readiness, id).await;
                self.tell_of_score(id, begun, answer.as_ref().err());
                answer
            }
            // The judge asks nothing that is not in the settings.
            (Question::Probe, None, _) | (Question::Score, _, None) => Ok(()),
        };
        let (service, deployment) = &self.subject.deployment;
        self.metrics.health().probed(service, deployment, outcome(question, answer.as_ref().err()));
        answer
    }

    fn judged(&mut self, question: Question, answer: Result<(), Fault>) {
        let before = self.judge.verdict();
        let verdict = if answer.is_ok() { Answer::Good } else { Answer::Bad };
        self.judge.answered(question, verdict, Instant::now());
        let after = self.judge.verdict();
        let (service, deployment) = &self.subject.deployment;
        let replica = &self.subject.replica;
        if let Err(fault) = &answer {
            tracing::debug!(%service, %deployment, replica = %replica.label(), ?question, %fault, "a replica did not pass");
        }
        if before == after {
            return;
        }
        replica.set_verdict(after);
        self.topology.changed();
        match answer {
            Ok(()) => {
                tracing::info!(%service, %deployment, replica = %replica.label(), "a replica is ready");
            }
            Err(fault) => {
                tracing::warn!(%service, %deployment, replica = %replica.label(), %fault, "a replica is not ready: it gets no calls");
            }
        }
    }

    fn tell_of_score(&mut self, id: RequestId, begun: Instant, fault: Option<&Fault>) {
        let (service, deployment) = &self.subject.deployment;
        let (replica, elapsed) = (self.subject.replica.label(), begun.elapsed());
        let request_id = id.as_str();
        match fault {
            None => {
                tracing::info!(%service, %deployment, %replica, request_id, ?elapsed, "readiness call answered");
            }
            Some(fault) if self.told.as_ref() != Some(fault) => {
                tracing::warn!(%service, %deployment, %replica, request_id, ?elapsed, %fault, "readiness call failed");
            }
            Some(fault) => {
                tracing::debug!(%service, %deployment, %replica, request_id, ?elapsed, %fault, "readiness call failed again");
            }
        }
        self.told = fault.cloned();
    }
}

fn outcome(question: Question, fault: Option<&Fault>) -> ProbeOutcome {
    match (question, fault) {
        (Question::Probe, None) => ProbeOutcome::Passed,
        (Question::Probe, Some(Fault::Unreachable(_))) => ProbeOutcome::Unreachable,
        (Question::Probe, Some(Fault::TimedOut(_))) => ProbeOutcome::TimedOut,
        (Question::Probe, Some(Fault::Broken(_) | Fault::Status(_) | Fault::NotServing(_))) => {
            ProbeOutcome::Failed
        }
        (Question::Score, None) => ProbeOutcome::ScorePassed,
        (Question::Score, Some(_)) => ProbeOutcome::ScoreFailed,
    }
}
