//! Tests of what a service opens: `profile`, `score_paths`, `grpc`, `paths`.

use super::*;
use crate::catalog::{Endpoint, Methods, Profile};
use crate::proxy::{EndpointPaths, ServiceSettings};

fn service(fields: &str, deployment: &str) -> String {
    format!(
        "{HEAD}services: [{{name: iris, compute_type: ACI, deployments: [{{name: blue, replicas: ['http://h']{deployment}}}]{fields}}}]\n"
    )
}

fn loaded(text: &str) -> Loaded {
    load(&Source::text("c.yaml", Path::new("/nowhere"), text)).unwrap_or_else(|problems| panic!("{problems}"))
}

fn settings(fields: &str, deployment: &str) -> ServiceSettings {
    (*loaded(&service(fields, deployment)).config.services[0]).clone()
}

/// The problems of a service, without their places.
fn problems(fields: &str, deployment: &str) -> Vec<String> {
    let lines = lines(&service(fields, deployment), &[]);
    lines.iter().map(|line| line.splitn(4, ':').nth(3).unwrap().trim().to_owned()).collect()
}

#[test]
fn each_profile_has_its_paths_and_a_deployment_may_have_others() {
    for profile in Profile::ALL {
        let fields = format!(", profile: {}", profile.as_str());
        let service = settings(&fields, "");
        assert_eq!(
            (service.opens.profile, &service.deployments[0].paths),
            (profile, &EndpointPaths::of_profile(profile))
        );
        let service = settings(&fields, ", paths: {score: /own}");
        let own =
            EndpointPaths { score: Some("/own".parse().unwrap()), ..EndpointPaths::of_profile(profile) };
        assert_eq!(service.deployments[0].paths, own);
    }
    let plain = settings("", "");
    assert_eq!(
        (plain.opens.profile, &plain.deployments[0].paths),
        (Profile::AzureMl, &EndpointPaths::default())
    );
}

#[test]
fn grpc_methods_of_a_profile_are_open_where_replicas_speak_http_2() {
    let method = "/inference.GRPCInferenceService/ModelInfer";
    let triton = |protocol: &str| settings(", profile: triton", &format!(", protocol: {protocol}")).opens;
    assert_eq!(triton("h2").endpoint(method).unwrap(), Endpoint::Grpc);
    assert!(triton("h1").endpoint(method).is_err());
    let own = settings(", score_paths: [/explain], grpc: [a.B, c.D/E]", ", protocol: h2").opens;
    assert_eq!(own.endpoint("/explain").unwrap(), Endpoint::Open(Methods::GetAndPost));
    assert_eq!(own.endpoint("/c.D/E").unwrap(), Endpoint::Grpc);
    assert!(own.endpoint("/c.D/F").is_err());
}

#[test]
fn what_cannot_be_opened_is_told() {
    assert_eq!(
        problems(", grpc: [a.B]", ""),
        [
            "services[0].grpc[0]: gRPC needs HTTP/2 to the replicas; write protocol: h2 in all deployments, or remove grpc"
        ]
    );
    assert_eq!(
        problems(", grpc: [a.B, a.B, /a.B/C]", ", protocol: h2"),
        [
            "services[0].grpc[1]: 'a.B' is in this list already; remove it",
            "services[0].grpc[2]: '/a.B/C' is no gRPC service; write package.Service or package.Service/Method",
        ]
    );
    assert_eq!(
        problems(", score_paths: [explain, /a, /a, '/a/{m}', /a/../b, /]", ""),
        [
            "services[0].score_paths[0]: 'explain' is no path; write one that begins with '/' and has no '?'",
            "services[0].score_paths[2]: '/a' is in this list already; remove it",
            "services[0].score_paths[3]: '/a/{m}' is a pattern; list each path by itself",
            "services[0].score_paths[4]: '/a/../b' could be read in two ways: the path has a dot segment; write it plainly",
            "services[0].score_paths[5]: '/' is open already, at a path that the deployment sets; remove it",
        ]
    );
    let many = (0..101).map(|i| format!("/p{i}")).collect::<Vec<_>>().join(", ");
    assert_eq!(
        problems(&format!(", score_paths: [{many}]"), ""),
        ["services[0].score_paths: has 101 entries; at most 100 are allowed"]
    );
    let [unknown] = <[String; 1]>::try_from(problems(", profile: onnx", "")).unwrap();
    assert!(unknown.contains("services[0].profile") && unknown.contains("kserve-v2"), "{unknown}");
    let [warning] = <[String; 1]>::try_from(problems(
        ", profile: triton, grpc: [inference.GRPCInferenceService]",
        ", protocol: h2",
    ))
    .unwrap();
    assert!(warning.starts_with("warning: services[0].grpc[0]: opens every method"), "{warning}");
}

#[test]
fn the_dump_tells_the_paths_in_force() {
    let dump = loaded(&service(", profile: mlflow", ", paths: {health: /version}")).dump().unwrap();
    let again = loaded(&dump);
    let paths = &again.config.services[0].deployments[0].paths;
    assert_eq!(paths, &settings(", profile: mlflow", ", paths: {health: /version}").deployments[0].paths);
    assert!(dump.contains("score: /invocations") && !dump.contains("swagger:"), "{dump}");
}
