//! Which deployments a call may go to, why, and which gets a copy of it.

use http::{HeaderMap, Method};
use serde_json::{Value, json};

use crate::catalog::{Endpoint, Replay, UnknownDeployment};
use crate::error::Error;
use crate::proxy::{self, DeploymentSettings, ServiceSettings};
use crate::route::Split;
use crate::upstream::{Balancing, BalancingSettings};

/// The deployments that may get the call, and why these.
pub(super) struct Candidates<'a> {
    pub deployments: Vec<&'a DeploymentSettings>,
    pub because: String,
    /// What the caller is told if there is none.
    none: fn() -> Error,
}

impl<'a> Candidates<'a> {
    /// Those of a call with `headers`.
    pub fn of(service: &'a ServiceSettings, headers: &HeaderMap) -> Self {
        let Some(named) = headers.get(proxy::DEPLOYMENT) else { return Self::by_weight(service, headers) };
        let mut all = service.deployments.iter();
        let names: Vec<_> = all.clone().map(|deployment| deployment.name.as_str()).collect();
        if let Some(found) = all.find(|deployment| deployment.name.as_str().as_bytes() == named.as_bytes()) {
            let because = "azureml-model-deployment names it".to_owned();
            return Self { deployments: vec![found], because, none: proxy::unknown_deployment };
        }
        let unknown =
            format!("azureml-model-deployment names {named:?}, but the service has {}", names.join(", "));
        match service.split.unknown {
            UnknownDeployment::Refuse => {
                Self { deployments: vec![], because: unknown, none: proxy::unknown_deployment }
            }
            UnknownDeployment::Ignore => {
                let mut others = Self::by_weight(service, headers);
                others.because =
                    format!("{unknown}, which unknown_deployment: ignore passes over; {}", others.because);
                others
            }
        }
    }

    fn by_weight(service: &'a ServiceSettings, headers: &HeaderMap) -> Self {
        let (all, none) = (&service.deployments, proxy::no_traffic);
        let sticky =
            service.split.sticky.as_ref().and_then(|name| headers.get(name).map(|value| (name, value)));
        if let Some((name, value)) = sticky {
            let percents: Vec<_> = all.iter().map(|deployment| deployment.traffic).collect();
            let place = Split::new(&percents).pick_for(value.as_bytes());
            let deployments = place.map(|place| &all[place]).into_iter().collect();
            let because = format!("the traffic shares give it all calls with this {name} (sticky)");
            return Self { deployments, because, none };
        }
        let deployments = all.iter().filter(|deployment| deployment.traffic > 0).collect();
        Self { deployments, because: "the traffic split decides".to_owned(), none }
    }

    /// The refusal of a call for which there is none.
    pub fn check(&self) -> Result<(), Error> {
        if self.deployments.is_empty() { Err((self.none)()) } else { Ok(()) }
    }
}

/// Where copies of calls like this one go; null: nowhere.
pub(super) fn show_mirror(
    service: &ServiceSettings,
    headers: &HeaderMap,
    (endpoint, method): (Endpoint, &Method),
) -> Value {
    match &service.split.mirror {
        Some(mirror) if proxy::is_scoring(endpoint, method) && !headers.contains_key(proxy::DEPLOYMENT) => {
            json!({
                "deployment": mirror.deployment.as_str(),
                "percent": mirror.percent,
                "bodyBytes": mirror.body_bytes,
                "concurrent": mirror.concurrent,
            })
        }
        _ => Value::Null,
    }
}

/// Who of the deployment's replicas gets the call, in the words of the configuration, and when one is left out.
pub(super) fn show_balancing(settings: &BalancingSettings, headers: &HeaderMap) -> Value {
    let (policy, because) = match &settings.policy {
        Balancing::LeastBusy => {
            (json!("least_busy"), "of two drawn at random the one with fewer calls".to_owned())
        }
        Balancing::RoundRobin => {
            (json!("round_robin"), "one after the other, counted over all workers".to_owned())
        }
        Balancing::Hash(name) if headers.contains_key(name) => {
            (json!({ "hash": name.as_str() }), format!("all calls with this {name} go to the same replica"))
        }
        Balancing::Hash(name) => (
            json!({ "hash": name.as_str() }),
            format!("the call has no {name}: of two drawn at random the one with fewer calls"),
        ),
    };
    let ejection = settings.ejection.as_ref().map(|ejection| {
        json!({
            "failures": ejection.failures,
            "time": format!("{:?}", ejection.time),
            "mostTime": format!("{:?}", ejection.most_time),
            "keepPercent": ejection.keep,
        })
    });
    json!({
        "policy": policy,
        "because": because,
        "slowStart": format!("{:?}", settings.slow_start),
        "ejection": ejection,
    })
}

/// How the call is tried again where an attempt fails.
pub(super) fn show_retry(service: &ServiceSettings, method: &Method) -> Value {
    let retry = &service.retry;
    let replay = match retry.replay {
        Replay::Never => "never",
        Replay::Idempotent => "idempotent",
        Replay::Always => "always",
    };
    let statuses: Vec<_> = retry.statuses.iter().map(http::StatusCode::as_u16).collect();
    json!({
        "attempts": retry.attempts,
        "replay": replay,
        "mayBeSentTwice": retry.replays(method),
        "bodyBytes": retry.body_bytes,
        "budgetPercent": retry.budget,
        "statuses": statuses,
    })
}
