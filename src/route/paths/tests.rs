use super::*;

fn opens(profile: Profile) -> OpenPaths {
    OpenPaths { profile, ..OpenPaths::default() }
}

#[track_caller]
fn all(opens: &OpenPaths, paths: &[&str], expected: Option<Endpoint>) {
    for path in paths {
        assert_eq!(opens.endpoint(path).ok(), expected, "{path}");
    }
}

#[test]
fn the_default_profile_opens_three_paths() {
    let azure = opens(Profile::AzureMl);
    assert_eq!(azure.endpoint("/score").unwrap(), Endpoint::Score);
    assert_eq!(azure.endpoint("/swagger.json").unwrap(), Endpoint::Swagger);
    assert_eq!(azure.endpoint("/").unwrap(), Endpoint::Health);
    all(&azure, &["", "/score/", "/metrics", "/v2", "/ping", "/a.B/C"], None);
}

#[test]
fn every_pattern_fits_its_own_paths_and_none_of_the_others_methods() {
    for profile in Profile::ALL {
        for (pattern, methods) in profile.opens() {
            let path = pattern.replace("{}", "my-model_v1.5");
            assert_eq!(opens(profile).endpoint(&path).unwrap(), Endpoint::Open(*methods), "{path}");
            for odd in [format!("{path}/"), format!("{path}/x"), format!("/x{path}"), path.to_uppercase()] {
                if odd != path && !profile.opens().iter().any(|(other, _)| fits(other, &odd)) {
                    assert!(opens(profile).endpoint(&odd).is_err(), "{odd}");
                }
            }
        }
    }
}

#[test]
fn a_name_is_one_segment_that_no_server_reads_as_something_else() {
    let triton = opens(Profile::Triton);
    let open = [
        "/v2/models/a",
        "/v2/models/a%20b",
        "/v2/models/ft:gpt@1",
        "/v2/models/versions",
        "/v2/models/a/versions/3",
    ];
    all(&triton, &open, Some(Endpoint::Open(Methods::Get)));
    all(
        &triton,
        &[
            "/v2/models/",
            "/v2/models//infer",
            "/v2/models",
            "/v2/models/stats",
            "/v2/models/a/stats",
            "/v2/models/a/config",
            "/v2/models/a/trace/setting",
            "/v2/models/a/b/infer",
            "/v2/models/a%3Fx/infer",
            "/v2/models/a%23/infer",
            "/v2/models/a%c0%afb/infer",
            "/v2/models/a%EF%BC%8Fb/infer",
            "/v2/models/a/versions//infer",
        ],
        None,
    );
}

#[test]
fn a_verb_behind_a_name_leaves_no_choice() {
    let torch = opens(Profile::TorchServe);
    all(&torch, &["/v1/models/a:predict", "/v1/models/a.b:explain"], Some(Endpoint::Open(Methods::Post)));
    all(
        &torch,
        &[
            "/v1/models/:predict",
            "/v1/models/a:explain:predict",
            "/v1/models/a%3Aexplain:predict",
            "/v1/models/a",
        ],
        None,
    );
}

#[test]
fn management_is_closed() {
    for (profile, paths) in [
        (Profile::Mlflow, &["/openapi.json", "/docs", "/metrics", "/api/2.0/mlflow/experiments/list"][..]),
        (
            Profile::KserveV2,
            &["/v2/repository/index", "/v2/repository/models/a/load", "/metrics", "/v2/docs"],
        ),
        (
            Profile::Triton,
            &[
                "/v2/repository/index",
                "/v2/repository/models/a/unload",
                "/v2/systemsharedmemory/status",
                "/v2/cudasharedmemory/region/a/register",
                "/v2/logging",
                "/v2/trace/setting",
                "/metrics",
                "/v2/models/a/infer_stream",
            ],
        ),
        (
            Profile::TorchServe,
            &["/models", "/models/a", "/models/a/invoke", "/workflows", "/metrics", "/invocations"],
        ),
        (
            Profile::OpenAi,
            &[
                "/metrics",
                "/load",
                "/sleep",
                "/wake_up",
                "/v1/load_lora_adapter",
                "/v1/unload_lora_adapter",
                "/collective_rpc",
                "/server_info",
                "/tokenizer_info",
                "/pause",
                "/update_weights",
                "/invocations",
                "/v1",
                "/docs",
            ],
        ),
    ] {
        all(&opens(profile), paths, None);
        for method in profile.opens_grpc() {
            all(&opens(profile), &[&format!("/{method}")], None);
        }
    }
}

#[test]
fn own_paths_are_open_as_they_are() {
    let own =
        OpenPaths { score_paths: ["/explain".into(), "/score".into()].into(), ..opens(Profile::Mlflow) };
    all(&own, &["/explain"], Some(Endpoint::Open(Methods::GetAndPost)));
    all(&own, &["/score"], Some(Endpoint::Score));
    all(&own, &["/explain/", "/explain/x", "/Explain"], None);
}

#[test]
fn grpc_is_open_by_service_or_by_method() {
    let own = OpenPaths { grpc: ["a.b.C".into(), "d.E/F".into()].into(), ..OpenPaths::default() };
    all(&own, &["/a.b.C/Any", "/d.E/F"], Some(Endpoint::Grpc));
    all(
        &own,
        &["/a.b.C", "/a.b.C/", "/a.b.C/x/y", "/a.b.C/a.b", "/a.b.C/a%20b", "/d.E/G", "/b.C/F", "/d.E"],
        None,
    );
    let triton = OpenPaths { profile_grpc: true, ..opens(Profile::Triton) };
    all(&triton, &["/inference.GRPCInferenceService/ModelInfer"], Some(Endpoint::Grpc));
    all(
        &triton,
        &[
            "/inference.GRPCInferenceService/RepositoryModelLoad",
            "/inference.GRPCInferenceService/SystemSharedMemoryRegister",
            "/inference.GRPCInferenceService/LogSettings",
            "/inference.Other/ModelInfer",
        ],
        None,
    );
}

#[test]
fn a_closed_path_is_told_what_is_open() {
    let told = |profile| opens(profile).endpoint("/metrics").unwrap_err();
    let azure = told(Profile::AzureMl);
    assert_eq!(
        (azure.kind, &*azure.message),
        (Kind::UnknownPath, "a service has the paths score, swagger.json and / only")
    );
    assert_eq!(
        told(Profile::Mlflow).message,
        "a service of profile mlflow has the paths score, swagger.json, /, /invocations, /ping, /health, /version only"
    );
}

#[test]
fn lists_of_the_configuration_are_judged() {
    let others = ["/explain".to_owned()];
    for good in ["/score", "/a/b", "/a/", "/v1/models/m:predict"] {
        assert_eq!(score_path_problem(good, &others), None, "{good}");
    }
    for bad in [
        "",
        "a",
        "/",
        "/swagger.json",
        "/a?b",
        "/a//b",
        "/a/../b",
        "/%61",
        "/a/{}",
        "/a*",
        "/explain",
        "/a b",
        "/api/v1/service/x/y",
    ] {
        assert!(score_path_problem(bad, &others).is_some(), "{bad}");
    }
    let others = ["a.B".to_owned()];
    for good in ["inference.GRPCInferenceService", "a.B/C", "Plain", "a_b.C"] {
        assert_eq!(grpc_problem(good, &others), None, "{good}");
    }
    for bad in ["", "/a.B", "a.B/", "a.B/C/D", "a..B", "a.B", "a.B/*", "a b"] {
        assert!(grpc_problem(bad, &others).is_some(), "{bad}");
    }
}
