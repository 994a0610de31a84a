//! What a service opens: its profile, further paths, gRPC services, and the paths of its containers.

use std::sync::Arc;

use http::uri::PathAndQuery;

use super::super::decode::At;
use super::super::raw::{RawPaths, RawService};
use super::Resolver;
use crate::catalog::Profile;
use crate::proxy::{self, DeploymentSettings, EndpointPaths};
use crate::route::{self, OpenPaths};

impl Resolver<'_> {
    /// What the service opens; whether gRPC can be among it is seen from its `deployments`.
    pub(super) fn opens(&mut self, raw: &At<RawService>, deployments: &[DeploymentSettings]) -> OpenPaths {
        let profile = raw.profile.value;
        let speaks_h2 = proxy::all_speak_h2(deployments);
        if let (Some(first), false) = (raw.grpc.first(), speaks_h2 || deployments.is_empty()) {
            self.report.error(
                first.at,
                "gRPC needs HTTP/2 to the replicas; write protocol: h2 in all deployments, or remove grpc",
            );
        }
        for entry in &raw.grpc {
            let opened_in_part =
                profile.opens_grpc().iter().any(|method| method.starts_with(&format!("{}/", entry.value)));
            if opened_in_part {
                self.report.warning(
                    entry.at,
                    format!("opens every method of {}, also those that load and unload models; the profile {} opens those that infer by itself: remove it", entry.value, profile.as_str()),
                );
            }
        }
        OpenPaths {
            profile,
            score_paths: self.listed(raw, ("score_paths", &raw.score_paths), route::score_path_problem),
            grpc: self.listed(raw, ("grpc", &raw.grpc), route::grpc_problem),
            profile_grpc: speaks_h2 && !profile.opens_grpc().is_empty(),
        }
    }

    fn listed(
        &mut self,
        raw: &At<RawService>,
        (field, entries): (&'static str, &[At<String>]),
        problem: fn(&str, &[String]) -> Option<String>,
    ) -> Box<[Arc<str>]> {
        if entries.len() > OpenPaths::MOST {
            let (count, most) = (entries.len(), OpenPaths::MOST);
            self.report.missing(raw.at, field, format!("has {count} entries; at most {most} are allowed"));
            return Box::default();
        }
        let values: Vec<String> = entries.iter().map(|entry| entry.value.clone()).collect();
        for (i, entry) in entries.iter().enumerate() {
            if let Some(problem) = problem(entry, &values[..i]) {
                self.report.error(entry.at, problem);
            }
        }
        values.iter().map(|value| value.as_str().into()).collect()
    }

    /// The paths of a container: the profile's, unless the deployment has its own.
    pub(super) fn paths(&mut self, profile: Profile, raw: &RawPaths) -> EndpointPaths {
        let profile = EndpointPaths::of_profile(profile);
        EndpointPaths {
            score: self.path(raw.score.as_ref()).or(profile.score),
            swagger: self.path(raw.swagger.as_ref()).or(profile.swagger),
            health: self.path(raw.health.as_ref()).unwrap_or(profile.health),
        }
    }

    pub(super) fn path(&mut self, field: Option<&At<String>>) -> Option<PathAndQuery> {
        let field = field?;
        EndpointPaths::parse(field).map_err(|problem| self.report.error(field.at, problem)).ok()
    }
}
