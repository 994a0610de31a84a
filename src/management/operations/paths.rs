//! Which paths a managed service opens, and where they are in its containers.

use std::sync::Arc;

use super::project::at_most;
use crate::catalog::{PathsSpec, Profile, ServiceSpec};
use crate::management::Refusal;
use crate::proxy::{self, DeploymentSettings, EndpointPaths};
use crate::route::{OpenPaths, grpc_problem, score_path_problem};

/// What a service of `spec` with `deployments` opens.
///
/// # Errors
/// [`Cause::Invalid`](crate::management::Cause::Invalid) for the first entry that cannot be opened.
pub(super) fn opens(spec: &ServiceSpec, deployments: &[DeploymentSettings]) -> Result<OpenPaths, Refusal> {
    let speaks_h2 = proxy::all_speak_h2(deployments);
    if !spec.grpc.is_empty() && !speaks_h2 && !deployments.is_empty() {
        return Err(Refusal::invalid(
            "grpc",
            "gRPC needs HTTP/2 to the replicas; set protocol to h2 in all deployments, or remove grpc",
        ));
    }
    Ok(OpenPaths {
        profile: spec.profile,
        score_paths: listed("score_paths", &spec.score_paths, score_path_problem)?,
        grpc: listed("grpc", &spec.grpc, grpc_problem)?,
        profile_grpc: speaks_h2 && !spec.profile.opens_grpc().is_empty(),
    })
}

fn listed(
    field: &str,
    entries: &[String],
    problem: fn(&str, &[String]) -> Option<String>,
) -> Result<Box<[Arc<str>]>, Refusal> {
    at_most(field, entries.len(), OpenPaths::MOST)?;
    for (i, entry) in entries.iter().enumerate() {
        if let Some(problem) = problem(entry, &entries[..i]) {
            return Err(Refusal::invalid(format!("{field}[{i}]"), problem));
        }
    }
    Ok(entries.iter().map(|entry| entry.as_str().into()).collect())
}

/// The paths of a container, for the deployment whose field is `place`: the profile's, unless it has its own.
///
/// # Errors
/// [`Cause::Invalid`](crate::management::Cause::Invalid) for the first that is no path.
pub(super) fn of_container(
    place: &str,
    profile: Profile,
    spec: Option<&PathsSpec>,
) -> Result<EndpointPaths, Refusal> {
    let mut paths = EndpointPaths::of_profile(profile);
    let Some(spec) = spec else { return Ok(paths) };
    let path = |field: &str, text: &str| {
        EndpointPaths::parse(text)
            .map_err(|problem| Refusal::invalid(format!("{place}.paths.{field}"), problem))
    };
    if let Some(score) = &spec.score {
        paths.score = Some(path("score", score)?);
    }
    if let Some(swagger) = &spec.swagger {
        paths.swagger = Some(path("swagger", swagger)?);
    }
    if let Some(health) = &spec.health {
        paths.health = path("health", health)?;
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::auth::AuthSettings;
    use crate::catalog::{Endpoint, Methods, ServiceName};
    use crate::management::operations::project::project;
    use crate::management::operations::replicas::Replicas;
    use crate::proxy::ServiceSettings;

    fn project_with(fields: Value, deployment: Value) -> Result<ServiceSettings, Refusal> {
        let mut spec = json!({
            "compute_type": "AKS",
            "deployments": {"blue": {"traffic": 100, "replicas": ["http://127.0.0.1:5001"]}},
        });
        let Value::Object(fields) = fields else { panic!() };
        let Value::Object(deployment) = deployment else { panic!() };
        spec.as_object_mut().unwrap().extend(fields);
        spec["deployments"]["blue"].as_object_mut().unwrap().extend(deployment);
        let spec = serde_json::from_value(spec).unwrap();
        let name = ServiceName::parse("iris").unwrap();
        project(&name, &spec, AuthSettings::None, &Replicas::new(None, Arc::default()))
    }

    #[test]
    fn a_profile_sets_the_paths_that_the_deployment_does_not() {
        let settings =
            project_with(json!({"profile": "mlflow"}), json!({"paths": {"health": "/version"}})).unwrap();
        let paths = &settings.deployments[0].paths;
        assert_eq!(paths.score.as_ref().unwrap(), "/invocations");
        assert_eq!((paths.swagger.as_ref(), paths.health.path()), (None, "/version"));
        assert_eq!(settings.opens.endpoint("/ping").unwrap(), Endpoint::Open(Methods::Get));
        let settings = project_with(json!({}), json!({})).unwrap();
        assert_eq!(
            (&settings.deployments[0].paths, &*settings.opens),
            (&EndpointPaths::default(), &OpenPaths::default())
        );
    }

    #[test]
    fn grpc_goes_with_http_2() {
        let method = "/inference.GRPCInferenceService/ModelInfer";
        let triton = |protocol: &str| {
            project_with(json!({"profile": "triton"}), json!({"protocol": protocol})).unwrap().opens
        };
        assert_eq!(triton("h2").endpoint(method).unwrap(), Endpoint::Grpc);
        assert!(triton("h1").endpoint(method).is_err());
        let own = |protocol: &str| project_with(json!({"grpc": ["a.B"]}), json!({"protocol": protocol}));
        assert_eq!(own("h2").unwrap().opens.endpoint("/a.B/C").unwrap(), Endpoint::Grpc);
        assert_eq!(own("h1").unwrap_err().target.as_deref(), Some("grpc"));
    }

    #[test]
    fn an_entry_that_cannot_be_opened_is_named() {
        for (fields, target) in [
            (json!({"score_paths": ["/a", "/a"]}), "score_paths[1]"),
            (json!({"score_paths": ["/a/../b"]}), "score_paths[0]"),
            (json!({"score_paths": vec!["/a"; 101]}), "score_paths"),
            (json!({"grpc": ["a.B/"]}), "grpc[0]"),
        ] {
            let refusal = project_with(fields, json!({"protocol": "h2"})).unwrap_err();
            assert_eq!(refusal.target.as_deref(), Some(target));
        }
    }
}
