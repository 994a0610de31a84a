//! Deployments: the traffic split, replicas and TLS towards them.

use std::sync::Arc;

use super::super::decode::At;
use super::super::raw::{RawDeployment, RawProtocol, RawReplicaTls, RawService};
use super::Resolver;
use super::field::Taken;
use crate::catalog::Profile;
use crate::limit::DeploymentLimits;
use crate::proxy::DeploymentSettings;
use crate::tls::{self, ClientAlpn, ClientTls, ClientTlsSource};
use crate::upstream::{self, Origin, ReplicaProtocol, ReplicaSettings, ReplicaTls, ReplicaUrl};

impl Resolver<'_> {
    /// The deployments of a service, each with the service's `limits`.
    pub(super) fn deployments(
        &mut self,
        raw: &At<RawService>,
        limits: DeploymentLimits,
    ) -> Vec<DeploymentSettings> {
        if raw.deployments.is_empty() {
            self.report.missing(raw.at, "deployments", "lists no deployment; add one with name and replicas");
            return Vec::new();
        }
        let split = self.split(raw);
        let mut names = Taken::new();
        raw.deployments
            .iter()
            .zip(split)
            .filter_map(|(deployment, traffic)| {
                self.deployment(deployment, raw.profile.value, (traffic, limits), &mut names)
            })
            .collect()
    }

    /// Percent per deployment. The default one (`default: true`, else the first) also gets what is left of 100.
    fn split(&mut self, raw: &At<RawService>) -> Vec<u8> {
        let deployments = &raw.deployments;
        let explicit = self.explicit_default(deployments);
        let stated: Vec<Option<u32>> = deployments
            .iter()
            .map(|deployment| deployment.traffic.as_ref().map(|field| field.value))
            .collect();
        for field in deployments.iter().filter_map(|deployment| deployment.traffic.as_ref()) {
            self.within(field.at, &field.value, &(0..=100));
        }
        let sum: u32 = stated.iter().flatten().fold(0, |sum, percent| sum.saturating_add(*percent));
        let rest = 100_u32.saturating_sub(sum);
        match split_problem(&stated, explicit) {
            Some(SplitProblem::TooMuch) => self.report.missing(
                raw.at,
                "deployments",
                format!("the traffic adds up to {sum} percent; lower it to 100"),
            ),
            Some(SplitProblem::Nothing) => self.report.missing(
                raw.at,
                "deployments",
                "no deployment has traffic; give it to them in percent, or mark one with default: true",
            ),
            Some(SplitProblem::SilentRest) => {
                let first = deployments[0].name.as_ref().map_or("the first one", |name| name.as_str());
                self.report.missing_warning(
                    raw.at,
                    "deployments",
                    format!("the traffic adds up to {sum} percent and {first} gets the other {rest}; say so with default: true, or make it 100"),
                );
            }
            None => {}
        }
        let default = explicit.unwrap_or(0);
        stated
            .iter()
            .enumerate()
            .map(|(position, percent)| {
                let own = percent.unwrap_or(0);
                let whole = if position == default { own.saturating_add(rest) } else { own };
                // More than 100 is reported above.
                u8::try_from(whole).unwrap_or(100)
            })
            .collect()
    }

    fn explicit_default(&mut self, deployments: &[At<RawDeployment>]) -> Option<usize> {
        let mut marked = deployments.iter().enumerate().filter(|(_, deployment)| deployment.default.value);
        let first = marked.next();
        for (_, second) in marked {
            self.report.error(
                second.default.at,
                "another deployment is the default already; keep default: true on one",
            );
        }
        first.map(|(position, _)| position)
    }

    fn deployment(
        &mut self,
        raw: &At<RawDeployment>,
        profile: Profile,
        (traffic, limits): (u8, DeploymentLimits),
        names: &mut Taken,
    ) -> Option<DeploymentSettings> {
        let name = self.name(raw.at, &raw.name, names);
        let paths = self.paths(profile, &raw.paths);
        let replicas = self.replicas(raw);
        let health = self.health(raw, &paths).map(Arc::new);
        let names = self.names(&raw.names);
        let balancing = self.balancing(raw);
        Some(DeploymentSettings { name: name?, traffic, limits, replicas, balancing, paths, health, names })
    }

    fn replicas(&mut self, raw: &At<RawDeployment>) -> Vec<ReplicaSettings> {
        if raw.replicas.is_empty() {
            self.report.missing(
                raw.at,
                "replicas",
                "lists no replica; add one such as http://127.0.0.1:5001",
            );
        }
        let mut seen: Vec<Origin> = Vec::new();
        let mut parsed = Vec::new();
        for field in &raw.replicas {
            let Some(url) = self.replica_url(field) else {
                continue;
            };
            if seen.contains(&url.origin) {
                self.report.error(field.at, format!("{} is in this list already; remove it", url.origin));
            }
            seen.push(url.origin.clone());
            parsed.push(url);
        }
        let encrypted = parsed.iter().any(|url| url.encrypted);
        let config = if encrypted { self.client_tls(raw) } else { self.no_client_tls(raw) };
        parsed
            .into_iter()
            .filter_map(|ReplicaUrl { origin, encrypted }| {
                let tls = match &config {
                    Some(config) if encrypted => Some(self.replica_tls(raw, &origin, config)?),
                    _ => None,
                };
                Some(ReplicaSettings {
                    origin,
                    protocol: match raw.protocol.value {
                        RawProtocol::H1 => ReplicaProtocol::H1,
                        RawProtocol::H2 => ReplicaProtocol::H2,
                    },
                    tls,
                    policy: None,
                })
            })
            .collect()
    }

    fn replica_url(&mut self, field: &At<String>) -> Option<ReplicaUrl> {
        ReplicaUrl::parse(field).map_err(|problem| self.report.error(field.at, problem)).ok()
    }

    /// Settings for TLS are refused where they would encrypt nothing.
    fn no_client_tls(&mut self, raw: &At<RawDeployment>) -> Option<ClientTls> {
        if let Some(tls) = &raw.tls
            && !raw.replicas.is_empty()
        {
            self.report.error(
                tls.at,
                "no replica is https, so nothing would be encrypted; write https:// in replicas, or remove tls",
            );
        }
        None
    }

    /// One client configuration for all replicas: its session cache makes reconnects cheap.
    fn client_tls(&mut self, raw: &At<RawDeployment>) -> Option<ClientTls> {
        let none = RawReplicaTls::default();
        let section = raw.tls.as_ref().map_or(&none, |tls| &tls.value);
        let certificate = match &section.certificate {
            Some(certificate) => Some(self.certificate(certificate)?),
            None => None,
        };
        let source = ClientTlsSource {
            ca: section.ca.as_ref().map(|ca| self.files.note(ca)),
            certificate,
            alpn: match raw.protocol.value {
                RawProtocol::H1 => ClientAlpn::Http1,
                RawProtocol::H2 => ClientAlpn::Http2,
            },
        };
        match tls::client_config(&source) {
            Ok(config) => Some(config),
            Err(error) => {
                match &section.ca {
                    Some(ca) => self.report.error(ca.at, error.to_string()),
                    None => self.report.missing(raw.at, "tls", error.to_string()),
                }
                None
            }
        }
    }

    fn replica_tls(
        &mut self,
        raw: &At<RawDeployment>,
        origin: &Origin,
        client: &ClientTls,
    ) -> Option<ReplicaTls> {
        let named = raw.tls.as_ref().and_then(|tls| tls.server_name.as_ref());
        let name = named.map_or(&*origin.host, |name| name.as_str());
        match upstream::certificate_name(name) {
            Ok(server_name) => Some(ReplicaTls { client: client.clone(), server_name }),
            Err(problem) => {
                match named {
                    Some(field) => self.report.error(field.at, problem),
                    None => self.report.missing(raw.at, "tls.server_name", problem),
                }
                None
            }
        }
    }
}

/// What is odd about a traffic split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SplitProblem {
    /// More than 100 percent.
    TooMuch,
    /// Nobody has any, and nobody is marked to take what is left.
    Nothing,
    /// The first deployment has a number and gets more than that without being marked for it.
    SilentRest,
}

fn split_problem(stated: &[Option<u32>], explicit: Option<usize>) -> Option<SplitProblem> {
    let sum: u64 = stated.iter().flatten().copied().map(u64::from).sum();
    match sum {
        101.. => Some(SplitProblem::TooMuch),
        100 => None,
        _ if explicit.is_some() || stated == [None] => None,
        0 => Some(SplitProblem::Nothing),
        _ => matches!(stated, [Some(_), ..]).then_some(SplitProblem::SilentRest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_must_be_unambiguous() {
        let problem = |stated: &[Option<u32>]| split_problem(stated, None);
        assert_eq!(problem(&[None]), None);
        assert_eq!(problem(&[Some(90), Some(10)]), None);
        assert_eq!(problem(&[None, Some(10)]), None);
        assert_eq!(problem(&[Some(90), Some(20)]), Some(SplitProblem::TooMuch));
        assert_eq!(problem(&[Some(0), Some(0)]), Some(SplitProblem::Nothing));
        assert_eq!(problem(&[None, None]), Some(SplitProblem::Nothing));
        assert_eq!(problem(&[Some(0)]), Some(SplitProblem::Nothing));
        assert_eq!(problem(&[Some(90), Some(5)]), Some(SplitProblem::SilentRest));
        assert_eq!(split_problem(&[Some(90), Some(5)], Some(1)), None);
        assert_eq!(split_problem(&[None, None], Some(1)), None);
    }
}
