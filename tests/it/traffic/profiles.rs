//! Model servers: the paths that a profile opens and those that it does not, and what OpenAI-style answers leave in records.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::harness::{
    Answer, Connection, Gateway, H2Request, H2Respond, KEY, Replica, Upstream, assert_record, config, ok,
    service,
};

const PROFILES: [&str; 6] = ["azureml", "mlflow", "kserve-v2", "triton", "torchserve", "openai"];

/// A service for each profile, named after it without dashes; all by key, with a host of their own.
fn every_profile(replica: &Upstream) -> String {
    let services = PROFILES.map(|profile| {
        let name = name_of(profile);
        service(&name, replica.address, &format!("    profile: {profile}\n    hosts: [{name}.wild.test]"))
    });
    config(&services.concat())
}

fn name_of(profile: &str) -> String {
    profile.replace('-', "")
}

/// Calls `method path` of the profile's service on `connection`, in path form and in host form; both come to the same.
async fn call(connection: &mut Connection, profile: &str, method: &str, path: &str) -> [Answer; 2] {
    let name = name_of(profile);
    let by_path = raw(method, &format!("/api/v1/service/{name}{path}"), "localhost");
    let by_host = raw(method, path, &format!("{name}.wild.test"));
    connection.send(by_path).await;
    let first = connection.answer().await;
    connection.send(by_host).await;
    let second = connection.answer().await;
    assert_eq!((first.status, first.reason()), (second.status, second.reason()), "{profile} {method} {path}");
    [first, second]
}

fn raw(method: &str, target: &str, host: &str) -> String {
    format!(
        "{method} {target} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 0\r\n\r\n"
    )
}

/// What each profile opens beside `/score`, `/swagger.json` and `/`, each a method and a path.
const OPEN: [(&str, &[&str]); 6] = [
    ("azureml", &[]),
    ("mlflow", &["POST /invocations", "GET /ping", "GET /health", "GET /version"]),
    (
        "kserve-v2",
        &[
            "GET /v2",
            "GET /v2/health/live",
            "GET /v2/health/ready",
            "GET /v2/models/iris",
            "GET /v2/models/iris/ready",
            "POST /v2/models/iris/infer",
            "GET /v2/models/iris/versions/1",
            "GET /v2/models/iris/versions/1/ready",
            "POST /v2/models/iris/versions/1/infer",
            "POST /v2/models/iris/infer_stream",
            "POST /v2/models/iris/generate",
            "POST /v2/models/my%20iris/versions/v1.5/generate_stream",
        ],
    ),
    (
        "triton",
        &[
            "GET /v2",
            "GET /v2/health/live",
            "GET /v2/health/ready",
            "GET /v2/models/iris",
            "GET /v2/models/iris/ready",
            "POST /v2/models/iris/infer",
            "POST /v2/models/iris/versions/1/infer",
            "POST /v2/models/iris/generate",
            "POST /v2/models/iris/versions/1/generate_stream?x=1",
        ],
    ),
    (
        "torchserve",
        &[
            "GET /ping",
            "GET /api-description",
            "POST /predictions/resnet",
            "POST /predictions/resnet/2.0",
            "POST /explanations/resnet",
            "POST /wfpredict/flow",
            "POST /v1/models/mnist:predict",
            "POST /v1/models/mnist:explain",
            "POST /v2/models/mnist/infer",
        ],
    ),
    (
        "openai",
        &[
            "POST /v1/chat/completions",
            "POST /v1/completions",
            "POST /v1/embeddings",
            "POST /v1/responses",
            "GET /v1/responses/resp_1",
            "POST /v1/responses/resp_1/cancel",
            "GET /v1/models",
            "GET /v1/models/ft:gpt@org",
            "POST /v1/audio/transcriptions",
            "POST /v1/messages",
            "POST /v1/rerank",
            "POST /tokenize",
            "GET /health",
            "GET /version",
        ],
    ),
];

/// What stays closed whatever the method: management first of all.
const CLOSED: [(&str, &[&str]); 6] = [
    ("azureml", &["/metrics", "/invocations", "/v2", "/v1/models", "/score/x", "/ping"]),
    (
        "mlflow",
        &["/metrics", "/docs", "/openapi.json", "/invocations/", "/api/2.0/mlflow/runs/search", "/v2"],
    ),
    (
        "kserve-v2",
        &[
            "/v2/repository/index",
            "/v2/repository/models/iris/load",
            "/v2/repository/models/iris/unload",
            "/v2/docs",
            "/metrics",
            "/v2/models",
            "/v2/models/stats",
        ],
    ),
    (
        "triton",
        &[
            "/v2/repository/index",
            "/v2/repository/models/iris/load",
            "/v2/systemsharedmemory/status",
            "/v2/systemsharedmemory/region/a/register",
            "/v2/cudasharedmemory/unregister",
            "/v2/logging",
            "/v2/trace/setting",
            "/v2/models/iris/trace/setting",
            "/v2/models/iris/config",
            "/v2/models/iris/stats",
            "/v2/models/stats",
            "/metrics",
        ],
    ),
    (
        "torchserve",
        &[
            "/models",
            "/models/resnet",
            "/models/resnet/2.0/set-default",
            "/workflows",
            "/metrics",
            "/predictions/a/b/c",
        ],
    ),
    (
        "openai",
        &[
            "/metrics",
            "/load",
            "/sleep",
            "/wake_up",
            "/v1/load_lora_adapter",
            "/v1/unload_lora_adapter",
            "/collective_rpc",
            "/reset_prefix_cache",
            "/server_info",
            "/start_profile",
            "/invocations",
            "/v1",
        ],
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_profile_opens_what_infers_and_describes_and_nothing_that_manages() {
    let replica = Upstream::echo().await;
    let gateway = Gateway::start(&every_profile(&replica)).await;
    let mut connection = gateway.connect().await;
    for (profile, open) in OPEN {
        for (method, path) in open.iter().map(|line| line.split_once(' ').unwrap()) {
            for answer in call(&mut connection, profile, method, path).await {
                gateway.passed(&answer, 200).await;
                assert_eq!(replica.seen().last().unwrap().line(), format!("{method} {path} HTTP/1.1"));
            }
            let other = if method == "GET" { "POST" } else { "GET" };
            for refused in [other, "PUT", "DELETE", "OPTIONS"] {
                for answer in call(&mut connection, profile, refused, path).await {
                    gateway.refused(&answer, 405, "bad_request").await;
                    assert_eq!(answer.header("allow"), method, "{refused} {path}");
                }
            }
        }
    }
    let arrived = replica.seen().len();
    for (profile, closed) in CLOSED {
        for path in closed {
            for method in ["GET", "POST", "PUT"] {
                for answer in call(&mut connection, profile, method, path).await {
                    let record = gateway.refused(&answer, 404, "unknown_service").await;
                    assert_record(
                        &record,
                        &json!({"Service": name_of(profile), "Attempts": 0, "Deployment": null}),
                    );
                }
            }
        }
    }
    assert_eq!(replica.seen().len(), arrived);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn score_swagger_and_health_are_the_servers_own() {
    let replica = Upstream::echo().await;
    let gateway = Gateway::start(&every_profile(&replica)).await;
    let mut connection = gateway.connect().await;
    for (profile, [score, swagger, health]) in [
        ("azureml", [Some("/score"), Some("/swagger.json"), Some("/")]),
        ("mlflow", [Some("/invocations"), None, Some("/ping")]),
        ("kserve-v2", [None, Some("/v2/docs/dataplane.json"), Some("/v2/health/ready")]),
        ("triton", [None, None, Some("/v2/health/ready")]),
        ("torchserve", [None, Some("/api-description"), Some("/ping")]),
        ("openai", [Some("/v1/chat/completions"), Some("/openapi.json"), Some("/health")]),
    ] {
        for (path, own) in [("/score", score), ("/swagger.json", swagger), ("/", health)] {
            for answer in call(&mut connection, profile, "GET", path).await {
                match own {
                    Some(own) => {
                        gateway.passed(&answer, 200).await;
                        assert_eq!(replica.seen().last().unwrap().line(), format!("GET {own} HTTP/1.1"));
                    }
                    None => drop(gateway.refused(&answer, 404, "unknown_service").await),
                }
            }
        }
    }
    let [answer, _] = call(&mut connection, "triton", "GET", "/score").await;
    assert!(answer.text().contains("paths.score"), "{}", answer.text());
    let [answer, _] = call(&mut connection, "mlflow", "GET", "/metrics").await;
    assert!(
        answer.text().contains("profile mlflow") && answer.text().contains("/invocations"),
        "{}",
        answer.text()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_may_say_which_path_scores_and_the_profile_changes_live() {
    let replica = Upstream::echo().await;
    let of = |profile: &str| {
        config(&format!(
            r#"  - name: iris
    compute_type: Managed
    hosts: [iris.wild.test]
    profile: {profile}
    keys: {{ primary: {{ file: primary.key }} }}
    deployments:
      - name: blue
        replicas: ["http://{}"]
        paths: {{ score: /v2/models/iris/infer }}
"#,
            replica.address
        ))
    };
    let gateway = Gateway::start(&of("triton")).await;
    let answer = gateway.call(raw("POST", "/score?a=b", "iris.wild.test")).await;
    gateway.passed(&answer, 200).await;
    assert_eq!(replica.seen().last().unwrap().line(), "POST /v2/models/iris/infer?a=b HTTP/1.1");
    let ready = raw("GET", "/v2/models/iris/ready", "iris.wild.test");
    gateway.passed(&gateway.call(&ready).await, 200).await;

    gateway.replace("scoregate.yaml", &of("mlflow"));
    gateway.reload().await;
    gateway.refused(&gateway.call(&ready).await, 404, "unknown_service").await;
    gateway.passed(&gateway.call(raw("GET", "/ping", "iris.wild.test")).await, 200).await;
    gateway.passed(&gateway.call(raw("POST", "/score", "iris.wild.test")).await, 200).await;
    assert_eq!(replica.seen().last().unwrap().line(), "POST /v2/models/iris/infer HTTP/1.1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_open_without_a_credential_not_even_health() {
    let replica = Upstream::echo().await;
    let gateway = Gateway::start(&every_profile(&replica)).await;
    for (profile, open) in OPEN {
        let fixed = ["GET /", "POST /score", "GET /swagger.json"];
        for (method, path) in open.iter().chain(&fixed).map(|line| line.split_once(' ').unwrap()) {
            let name = name_of(profile);
            let answer =
                gateway.call(raw(method, path, &format!("{name}.wild.test")).replace(KEY, "wrong")).await;
            gateway.refused(&answer, 401, "auth_invalid").await;
        }
    }
    assert_eq!(replica.accepted(), 0);
}

/// What follows `/v2/models/` or stands before it; every one is an attempt to be read as another path by the server.
const TRICKS: [&str; 24] = [
    "/v2/models/../repository/index",
    "/v2/models/%2e%2e/repository/index",
    "/v2/models/a/../../repository/index",
    "/v2/models/a%2f..%2f..%2frepository/index",
    "/v2/models/a%2Finfer",
    "/v2/models/a%5c..%5cb/infer",
    "/v2/models/a\\b/infer",
    "/v2//repository/index",
    "//v2/repository/index",
    "/v2/./models/a",
    "/v2/models/a/./infer",
    "/v2/models//infer",
    "/v2/models/a;x/infer",
    "/v2/models/a%3bx/infer",
    "/v2/models/a%3F/infer",
    "/v2/models/a%23/infer",
    "/v2/models/a%00/infer",
    "/v2/models/a%0d%0a/infer",
    "/v2/models/a%c0%af..%c0%afrepository/infer",
    "/v2/models/a%EF%BC%8Frepository/infer",
    "/v2/models/a%252frepository/infer",
    "/v2/models/%61/infer",
    "/v2/models/%73tats",
    "/%762/models/a/infer",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_in_a_path_is_one_segment_and_nothing_else() {
    let replica = Upstream::echo().await;
    let gateway = Gateway::start(&every_profile(&replica)).await;
    for trick in TRICKS {
        for profile in ["kserve-v2", "triton", "torchserve"] {
            for method in ["GET", "POST"] {
                let name = name_of(profile);
                for target in [format!("/api/v1/service/{name}{trick}"), trick.to_owned()] {
                    let answer = gateway.call(raw(method, &target, &format!("{name}.wild.test"))).await;
                    assert!(matches!(answer.status, 400 | 404), "{method} {target}: {answer:?}");
                }
            }
        }
    }
    assert_eq!(replica.accepted(), 0, "{:?}", replica.seen());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_may_have_several_scoring_paths() {
    let replica = Upstream::echo().await;
    let more = "    hosts: [iris.wild.test]\n    score_paths: [/score, /explain, \"/v1/models/m:predict\"]";
    let gateway = Gateway::start(&config(&service("iris", replica.address, more))).await;
    let open = ["/score", "/explain", "/v1/models/m:predict", "/explain?verbose=1"];
    for (path, method) in open.into_iter().flat_map(|path| [(path, "GET"), (path, "POST")]) {
        for (target, host) in
            [(format!("/api/v1/service/iris{path}"), "x"), (path.to_owned(), "iris.wild.test")]
        {
            gateway.passed(&gateway.call(raw(method, &target, host)).await, 200).await;
            assert_eq!(replica.seen().last().unwrap().line(), format!("{method} {path} HTTP/1.1"));
        }
    }
    let answer = gateway.call(raw("PUT", "/explain", "iris.wild.test")).await;
    gateway.refused(&answer, 405, "bad_request").await;
    for closed in ["/explain/", "/explain/x", "/Explain", "/v1/models/n:predict"] {
        let answer = gateway.call(raw("POST", closed, "iris.wild.test")).await;
        gateway.refused(&answer, 404, "unknown_service").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_inference_methods_of_grpc_are_open_and_those_that_manage_are_not() {
    let replica = Upstream::h2(None, async |request: H2Request, mut respond: H2Respond| {
        let path = request.uri().path().to_owned();
        let head = http::Response::builder().header("x-path", path).body(()).unwrap();
        let mut body = respond.send_response(head, false).unwrap();
        let _ = body.send_data(Bytes::new(), false);
        let trailers = http::HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
        let _ = body.send_trailers(trailers);
    })
    .await;
    let of = |name: &str, more: &str| {
        format!(
            r#"  - name: {name}
    compute_type: AKS
    auth: none
    deployments: [ {{ name: blue, protocol: h2, replicas: ["http://{}"] }} ]
{more}
"#,
            replica.address
        )
    };
    let services =
        of("triton", "    profile: triton") + &of("own", "    grpc: [acme.v1.Scorer, other.Service/One]");
    let gateway = Gateway::start(&config(&services)).await;
    let mut client = gateway.h2().await;
    for (service, path, open) in [
        ("triton", "inference.GRPCInferenceService/ModelInfer", true),
        ("triton", "inference.GRPCInferenceService/ModelStreamInfer", true),
        ("triton", "inference.GRPCInferenceService/ServerReady", true),
        ("triton", "inference.GRPCInferenceService/RepositoryModelLoad", false),
        ("triton", "inference.GRPCInferenceService/SystemSharedMemoryRegister", false),
        ("triton", "inference.GRPCInferenceService/LogSettings", false),
        ("triton", "acme.v1.Scorer/Score", false),
        ("own", "acme.v1.Scorer/Score", true),
        ("own", "acme.v1.Scorer/Any_Other", true),
        ("own", "other.Service/One", true),
        ("own", "other.Service/Two", false),
        ("own", "acme.v1.Scorer/", false),
        ("own", "acme.v1.Scorer/a/b", false),
        ("own", "acme.v1.Scorer/a-b", false),
        ("own", "inference.GRPCInferenceService/ModelInfer", false),
    ] {
        let target = format!("/api/v1/service/{service}/{path}");
        let request = client.request("POST", &target).header("te", "trailers");
        // What is closed is asked for as plain HTTP, whose refusals have a status.
        let request = if open { request.header("content-type", "application/grpc") } else { request };
        let answer = client.call(request.body(Bytes::new().into()).unwrap()).await;
        if open {
            gateway.passed(&answer, 200).await;
            assert_eq!(answer.header("x-path"), format!("/{path}"));
        } else {
            gateway.refused(&answer, 404, "unknown_service").await;
        }
    }
    let get =
        client.request("GET", "/api/v1/service/own/acme.v1.Scorer/Score").body(Bytes::new().into()).unwrap();
    let answer = client.call(get).await;
    gateway.refused(&answer, 405, "bad_request").await;
    assert_eq!(answer.header("allow"), "POST");
}

/// An OpenAI service in front of `replica`.
fn openai(replica: std::net::SocketAddr) -> String {
    config(&service("llm", replica, "    profile: openai\n    hosts: [llm.wild.test]"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn model_and_tokens_of_an_answer_reach_its_record() {
    let replica = Upstream::answering(|seen| {
        let answer = match seen.line().split(' ').nth(1).unwrap() {
            "/v1/embeddings" => {
                json!({"data": [], "model": "e5", "usage": {"prompt_tokens": 3, "total_tokens": 3}})
            }
            "/v1/responses" => {
                json!({"model": "r1", "output": [], "usage": {"input_tokens": 4, "output_tokens": 5}})
            }
            "/v1/models" => json!({"object": "list", "data": [{"id": "m"}]}),
            _ => json!({
                "id": "c", "object": "chat.completion", "model": "org/m\u{7}\n",
                "choices": [{"message": {"content": "{\"usage\":{\"prompt_tokens\":99}}"}}],
                "usage": {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21},
            }),
        };
        ok(answer.to_string().as_bytes())
    })
    .await;
    let services = openai(replica.address)
        + &service("other", replica.address, "    score_paths: [/v1/chat/completions]");
    let gateway = Gateway::start(&services).await;
    for (target, expected) in [
        (
            "POST /v1/chat/completions",
            json!({"Model": "org/m\u{7}\n", "PromptTokens": 9, "CompletionTokens": 12}),
        ),
        ("POST /score", json!({"Model": "org/m\u{7}\n", "PromptTokens": 9, "CompletionTokens": 12})),
        ("POST /v1/embeddings", json!({"Model": "e5", "PromptTokens": 3, "CompletionTokens": null})),
        ("POST /v1/responses", json!({"Model": "r1", "PromptTokens": 4, "CompletionTokens": 5})),
        ("GET /v1/models", json!({"Model": null, "PromptTokens": null, "CompletionTokens": null})),
    ] {
        let (method, path) = target.split_once(' ').unwrap();
        let answer = gateway.call(raw(method, path, "llm.wild.test")).await;
        let record = gateway.passed(&answer, 200).await;
        assert_record(&record, &expected);
        assert!(serde_json::from_slice::<Value>(&answer.body).is_ok(), "untouched: {}", answer.text());
    }
    gateway.until_metric(r#"scoregate_tokens_total{service="llm",kind="prompt"}"#, 25.0).await;
    gateway.until_metric(r#"scoregate_tokens_total{service="llm",kind="completion"}"#, 29.0).await;

    // The same answer of a service with another profile tells nothing.
    let answer = gateway.call(raw("POST", "/api/v1/service/other/v1/chat/completions", "x")).await;
    let record = gateway.passed(&answer, 200).await;
    assert_record(&record, &json!({"Model": null, "PromptTokens": null, "CompletionTokens": null}));
    let (_, page) = gateway.observe("/metrics").await;
    assert!(!page.contains(r#"scoregate_tokens_total{service="other""#), "{page}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_passes_piece_by_piece_while_its_tokens_are_read() {
    let replica = Replica::bind().await;
    let gateway = Gateway::start(&openai(replica.address)).await;
    let mut client = gateway.connect().await;
    client.send(raw("POST", "/v1/chat/completions", "llm.wild.test")).await;
    let (mut call, _) = replica.request().await;
    call.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    client.head().await.unwrap();
    // Cut within a line, a word and a number; each piece is read by the client before the next one is sent.
    let pieces = [
        "data: {\"id\":\"1\",\"model\":\"m-7b\",\"choices\":[{\"delta\":{\"content\":\"he\"}}],\"usage\":null}\n\n",
        "data: {\"id\":\"1\",\"model\":\"m-7b\",\"choices\":[],\"us",
        "age\":{\"prompt_tokens\":1",
        "7,\"completion_tokens\":230,\"total_tokens\":247}}\n\nda",
        "ta: [DONE]\n\n",
    ];
    for piece in pieces {
        call.send(format!("{:x}\r\n{piece}\r\n", piece.len())).await;
        assert_eq!(client.chunk().await, piece.as_bytes());
    }
    call.send("0\r\n\r\n").await;
    assert_eq!(client.chunk().await, b"");
    let [record] = <[Value; 1]>::try_from(gateway.exactly(1).await).unwrap();
    let bytes: usize = pieces.iter().map(|piece| piece.len()).sum();
    assert_record(
        &record,
        &json!({"Model": "m-7b", "PromptTokens": 17, "CompletionTokens": 230, "Reason": "ok", "ResponseBytes": bytes}),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_keeps_what_the_stream_had_said() {
    let replica = Replica::bind().await;
    let gateway = Gateway::start(&openai(replica.address)).await;
    let mut client = gateway.connect().await;
    client.send(raw("POST", "/v1/completions", "llm.wild.test")).await;
    let (mut call, _) = replica.request().await;
    call.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    client.head().await.unwrap();
    let piece = "data: {\"model\":\"m\",\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":1}}\n\n";
    call.send(format!("{:x}\r\n{piece}\r\n", piece.len())).await;
    assert_eq!(client.chunk().await, piece.as_bytes());
    drop(client);
    let [record] = <[Value; 1]>::try_from(gateway.exactly(1).await).unwrap();
    assert_record(
        &record,
        &json!({"Reason": "client_gone", "Model": "m", "PromptTokens": 5, "CompletionTokens": 1}),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_encoded_too_long_or_no_answer_of_a_model_is_passed_on_and_not_read() {
    let huge = json!({"model": "x".repeat(5000), "data": "y".repeat(300_000), "usage": {"prompt_tokens": 2}})
        .to_string();
    let body = huge.clone();
    let replica = Upstream::answering(move |seen| {
        let usage = br#"{"model":"m","usage":{"prompt_tokens":1}}"#;
        match seen.line().split(' ').nth(1).unwrap() {
            "/v1/completions" => {
                with("200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip", usage)
            }
            "/v1/audio/speech" => with("200 OK\r\nContent-Type: audio/mpeg", usage),
            "/v1/embeddings" => ok(body.as_bytes()),
            _ => with("429 Too Many Requests\r\nContent-Type: application/json", usage),
        }
    })
    .await;
    let gateway = Gateway::start(&openai(replica.address)).await;
    for (path, status) in [("/v1/completions", 200), ("/v1/audio/speech", 200), ("/v1/chat/completions", 429)]
    {
        let answer = gateway.call(raw("POST", path, "llm.wild.test")).await;
        let record = gateway.passed(&answer, status).await;
        assert_record(&record, &json!({"Model": null, "PromptTokens": null}));
        assert_eq!(answer.text(), r#"{"model":"m","usage":{"prompt_tokens":1}}"#);
    }
    let answer = gateway.call(raw("POST", "/v1/embeddings", "llm.wild.test")).await;
    let record = gateway.passed(&answer, 200).await;
    assert_record(&record, &json!({"Model": null, "PromptTokens": 2}));
    assert_eq!(answer.text(), huge);
    gateway.until_metric(r#"scoregate_usage_unread_total{service="llm"}"#, 1.0).await;
}

/// An answer with `head`, its status and fields, and `body`.
fn with(head: &str, body: &[u8]) -> Vec<u8> {
    let mut answer = format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    answer.extend_from_slice(body);
    answer
}
