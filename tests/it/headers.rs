//! Which fields cross the gateway, in both directions, and the ids that are its own.

use bytes::Bytes;
use http_body_util::Full;
use serde_json::{Value, json};

use crate::harness::{Gateway, KEY, Seen, Upstream, assert_record, config, service, service_of};

const PATH: &str = "/api/v1/service/iris/score";

/// A POST of `{}` with `fields`, each ended by CR LF.
fn post(fields: &str) -> String {
    format!("POST {PATH} HTTP/1.1\r\nHost: localhost:8443\r\nContent-Length: 2\r\n{fields}\r\n{{}}")
}

async fn open(replica: &Upstream) -> Gateway {
    Gateway::start(&config(&service_of("AKS none", "iris", replica.address, ""))).await
}

/// All values of a field as the replica saw them.
fn values<'a>(seen: &'a Seen, name: &str) -> Vec<&'a str> {
    let fields = seen.head.lines().skip(1).filter_map(|line| line.split_once(':'));
    fields.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_request_id_is_ours_in_both_directions() {
    let replica = Upstream::answering(|_| {
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nx-request-id: theirs\r\nx-ms-request-id: theirs\r\n\
          x-ms-client-request-id: theirs\r\nx-scoregate-reason: internal\r\nazureml-model-deployment: theirs\r\n\r\n"
            .to_vec()
    })
    .await;
    let gateway = open(&replica).await;
    let mut ids = Vec::new();
    for fields in
        ["", "x-request-id: mine\r\nx-ms-request-id: mine\r\n", "X-Request-ID: mine\r\nX-REQUEST-ID: two\r\n"]
    {
        let answer = gateway.call(post(fields)).await;
        let record = gateway.passed(&answer, 200).await;
        assert_eq!(record["Reason"], "ok");
        let id = answer.header("x-request-id");
        assert!(uuid::Uuid::parse_str(id).is_ok(), "{id}");
        assert_eq!(answer.header("x-ms-request-id"), id);
        assert!(!answer.headers.contains_key("x-ms-client-request-id"), "the client sent none");
        assert_eq!(answer.header("azureml-model-deployment"), "blue");
        let seen = replica.seen().pop().unwrap();
        assert_eq!(values(&seen, "x-request-id"), [id]);
        assert!(values(&seen, "x-ms-request-id").is_empty());
        ids.push(id.to_owned());
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 3, "each call has its own");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clients_own_id_is_cleaned_and_comes_back() {
    let replica = Upstream::echo().await;
    let gateway = Gateway::start(&config(&service("iris", replica.address, ""))).await;
    let long = "0123456789-abcdefghij_ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    for (sent, kept) in [
        ("3e2c7f0e-0000-4000-8000-000000000001", "3e2c7f0e-0000-4000-8000-000000000001"),
        ("a b\"c<d>;e", "abcde"),
        ("{3e2c}", "3e2c"),
        ("\u{e4}b", "b"),
        (long, &long[..40]),
        ("", ""),
        ("{}", ""),
    ] {
        for (credential, status) in [(KEY, 200), ("wrong", 401)] {
            let fields = format!("Authorization: Bearer {credential}\r\nX-MS-Client-Request-Id: {sent}\r\n");
            let answer = gateway.call(post(&fields)).await;
            assert_eq!(answer.status, status);
            assert_eq!(answer.header("x-ms-client-request-id"), kept);
            assert_eq!(answer.headers.contains_key("x-ms-client-request-id"), !kept.is_empty());
            let record = gateway.record(&answer).await;
            let expected = if kept.is_empty() { Value::Null } else { json!(kept) };
            assert_record(&record, &json!({"ClientRequestId": expected}));
        }
        let seen = replica.seen().pop().unwrap();
        assert_eq!(seen.header("x-ms-client-request-id"), kept);
    }
}

/// Fields by which a replica could believe a client more than it should.
const OURS: [&str; 11] = [
    "x-request-id",
    "x-ms-request-id",
    "x-scoregate-reason",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-port",
    "x-forwarded-client-cert",
    "forwarded",
    "x-real-ip",
    "true-client-ip",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_client_says_of_itself_is_dropped_in_every_spelling() {
    let replica = Upstream::echo().await;
    let gateway = open(&replica).await;
    let first_dash = |name: &str| name.replacen('-', "_", 1);
    let mut h2 = gateway.h2().await;
    for name in OURS.into_iter().chain(["x-ms-client-request-id"]) {
        let twins = [name.replace('-', "_"), first_dash(name), name.to_uppercase().replace('-', "_")];
        let own = (name != "x-ms-client-request-id").then(|| [name.to_owned(), name.to_uppercase()]);
        let spellings = own.into_iter().flatten().chain(twins);
        for spelling in spellings {
            let answer = gateway.call(post(&format!("{spelling}: spoof\r\n{spelling}: spoof, 2\r\n"))).await;
            gateway.passed(&answer, 200).await;
            let request = h2.request("POST", PATH).header(spelling.to_lowercase(), "spoof");
            let answer = h2.call(request.body(Full::from("{}")).unwrap()).await;
            gateway.passed(&answer, 200).await;
        }
    }
    // And in the trailers of a chunked body.
    let trailers = OURS.map(|name| format!("{name}: spoof\r\n")).concat();
    let chunked = format!(
        "POST {PATH} HTTP/1.1\r\nHost: localhost:8443\r\nTransfer-Encoding: chunked\r\nTrailer: x-request-id\r\n\r\n\
         2\r\n{{}}\r\n0\r\n{trailers}\r\n"
    );
    gateway.passed(&gateway.call(chunked).await, 200).await;
    let seen = replica.seen();
    assert!(seen.len() > 100, "{}", seen.len());
    for seen in seen {
        assert!(!seen.head.contains("spoof"), "{}", seen.head);
        assert_eq!(values(&seen, "x-forwarded-for"), ["127.0.0.1"], "{}", seen.head);
        assert_eq!(values(&seen, "x-forwarded-proto"), ["https"], "{}", seen.head);
        assert_eq!(values(&seen, "x-forwarded-host").len(), 1, "{}", seen.head);
        assert_eq!(values(&seen, "host"), [replica.address.to_string()], "{}", seen.head);
        assert_eq!(values(&seen, "x-request-id").len(), 1, "{}", seen.head);
        assert_eq!(seen.body, b"{}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connection_cannot_take_away_what_the_gateway_adds() {
    let replica = Upstream::echo().await;
    let gateway = open(&replica).await;
    for connection in [
        "Connection: X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host, X-Request-Id, X-Custom\r\n",
        "connection: close, x-forwarded-for, x-custom, x-request-id\r\n",
        "CONNECTION: X-CUSTOM,X-FORWARDED-FOR\r\nConnection: X-Request-ID\r\n",
        "Connection:\tx-custom\t,\tx-forwarded-for ,, x-request-id\r\n",
        "Connection: keep-alive, x-custom, Host, Content-Length, Content-Type, Transfer-Encoding\r\n",
    ] {
        let fields = format!("X-Custom: 1\r\nx-kept: 2\r\nX-Forwarded-For: 10.0.0.1\r\n{connection}");
        let answer = gateway.call(post(&fields)).await;
        gateway.passed(&answer, 200).await;
        assert_eq!(answer.text(), "{}");
        let seen = replica.seen().pop().unwrap();
        assert_eq!(values(&seen, "x-custom"), [""; 0], "{connection}: {}", seen.head);
        assert_eq!(values(&seen, "x-kept"), ["2"], "{}", seen.head);
        assert_eq!(values(&seen, "x-forwarded-for"), ["127.0.0.1"], "{}", seen.head);
        assert_eq!(values(&seen, "x-forwarded-proto"), ["https"], "{}", seen.head);
        assert_eq!(values(&seen, "x-forwarded-host"), ["localhost:8443"], "{}", seen.head);
        assert_eq!(values(&seen, "x-request-id"), [answer.header("x-request-id")], "{}", seen.head);
        assert_eq!(values(&seen, "host"), [replica.address.to_string()], "{}", seen.head);
        assert_eq!(values(&seen, "content-length"), ["2"], "{}", seen.head);
        assert_eq!(values(&seen, "connection"), [""; 0], "{}", seen.head);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_credential_that_connection_names_is_no_credential() {
    let replica = Upstream::echo().await;
    let gateway = Gateway::start(&config(&service("iris", replica.address, ""))).await;
    let fields = format!("Authorization: Bearer {KEY}\r\nConnection: authorization\r\n");
    gateway.refused(&gateway.call(post(&fields)).await, 401, "auth_missing").await;
    assert_eq!(replica.accepted(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fields_of_one_connection_do_not_reach_the_next() {
    let replica = Upstream::answering(|_| {
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: X-Internal, x-other\r\nX-Internal: hop\r\nX-Other: hop\r\n\
          Keep-Alive: timeout=hop\r\nProxy-Authenticate: hop\r\nProxy-Connection: hop\r\nTrailer: hop\r\nUpgrade: hop\r\n\
          TE: hop\r\nX-Kept: kept\r\n\r\n{}"
            .to_vec()
    })
    .await;
    let gateway = open(&replica).await;
    let fields = "TE: hop\r\nTrailer: hop\r\nUpgrade: hop\r\nKeep-Alive: timeout=hop\r\nProxy-Connection: hop\r\n\
                  Proxy-Authorization: hop\r\nHTTP2-Settings: hop\r\nX-Kept: kept\r\n";
    let over_h1 = gateway.call(post(fields)).await;
    let mut h2 = gateway.h2().await;
    let request = h2.request("POST", PATH).header("te", "trailers").header("x-kept", "kept");
    let over_h2 = h2.call(request.body(Full::from("{}")).unwrap()).await;
    for answer in [over_h1, over_h2] {
        gateway.passed(&answer, 200).await;
        assert_eq!(answer.header("x-kept"), "kept");
        assert!(answer.headers.values().all(|value| !value.contains("hop")), "{answer:?}");
    }
    for seen in replica.seen() {
        assert_eq!(values(&seen, "x-kept"), ["kept"]);
        assert!(!seen.head.contains("hop"), "{}", seen.head);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_content_type_is_what_the_client_made_it() {
    let replica = Upstream::echo().await;
    let gateway = open(&replica).await;
    for (fields, expected) in [
        ("", &[][..]),
        ("Content-Type: application/json\r\n", &["application/json"]),
        (
            "content-type: Application/X-WWW-Form-urlencoded ;charset=X\r\n",
            &["Application/X-WWW-Form-urlencoded ;charset=X"],
        ),
        ("Content-Type: not a type\r\n", &["not a type"]),
        ("Content-Type:\r\n", &[""]),
    ] {
        gateway.passed(&gateway.call(post(fields)).await, 200).await;
        assert_eq!(values(&replica.seen().pop().unwrap(), "content-type"), expected);
    }
    let mut h2 = gateway.h2().await;
    for content_type in [None, Some("application/x-npy")] {
        let mut request = h2.request("POST", PATH);
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        let answer = h2.call(request.body(Full::new(Bytes::from_static(b"\x93NUMPY"))).unwrap()).await;
        gateway.passed(&answer, 200).await;
        let seen = replica.seen().pop().unwrap();
        assert_eq!(values(&seen, "content-type"), content_type.into_iter().collect::<Vec<_>>());
        assert_eq!(seen.body, b"\x93NUMPY");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_fields_reach_the_replica_as_they_are() {
    let replica = Upstream::echo().await;
    let gateway = open(&replica).await;
    let fields = "User-Agent: a \"test\"/1.0\r\nAccept: application/json\r\nAccept-Encoding: gzip, deflate\r\n\
                  Cookie: a=1; b=2\r\nx_custom_header: kept\r\nX-Twice: 1\r\nx-twice: 2\r\nContent-Encoding: gzip\r\n\
                  x-high: \u{e4}\r\n";
    let answer = gateway.call(post(fields)).await;
    let record = gateway.passed(&answer, 200).await;
    assert_eq!(record["UserAgent"], "a \"test\"/1.0");
    let seen = replica.seen().pop().unwrap();
    for (name, expected) in [
        ("user-agent", &["a \"test\"/1.0"][..]),
        ("accept", &["application/json"]),
        ("accept-encoding", &["gzip, deflate"]),
        ("cookie", &["a=1; b=2"]),
        ("x_custom_header", &["kept"]),
        ("x-twice", &["1", "2"]),
        ("content-encoding", &["gzip"]),
        ("x-high", &["\u{e4}"]),
        ("via", &[]),
        ("expect", &[]),
    ] {
        assert_eq!(values(&seen, name), expected, "{}", seen.head);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_goes_on_in_the_replica_and_is_named_in_the_record() {
    let replica = Upstream::echo().await;
    let gateway = open(&replica).await;
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for (fields, trace_id) in [
        (
            format!("traceparent: {parent}\r\ntracestate: a=1,b=2\r\nbaggage: k=v\r\n"),
            json!("0af7651916cd43dd8448eb211c80319c"),
        ),
        (format!("Traceparent: {}\r\n", parent.to_uppercase()), Value::Null),
        ("traceparent: 00-00000000000000000000000000000000-b7ad6b7169203331-01\r\n".to_owned(), Value::Null),
        (String::new(), Value::Null),
    ] {
        let answer = gateway.call(post(&fields)).await;
        let record = gateway.passed(&answer, 200).await;
        assert_record(&record, &json!({"TraceId": trace_id}));
        let seen = replica.seen().pop().unwrap();
        for line in fields.lines() {
            let (name, value) = line.split_once(": ").unwrap();
            assert_eq!(values(&seen, name), [value]);
        }
    }
    assert_eq!(replica.seen().pop().unwrap().header("traceparent"), "", "none is made up");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_may_choose_the_deployment_and_is_told_which_one_served() {
    let (blue, green) = (Upstream::echo().await, Upstream::echo().await);
    let services = format!(
        r#"  - name: iris
    compute_type: AKS
    auth: none
    deployments:
      - {{ name: blue, traffic: 100, replicas: ["http://{}"] }}
      - {{ name: green, traffic: 0, replicas: ["http://{}"] }}
"#,
        blue.address, green.address
    );
    let gateway = Gateway::start(&config(&services)).await;
    for (fields, served) in [
        ("", "blue"),
        ("azureml-model-deployment: green\r\n", "green"),
        ("AzureML-Model-Deployment: blue\r\n", "blue"),
    ] {
        for _ in 0..4 {
            let answer = gateway.call(post(fields)).await;
            let record = gateway.passed(&answer, 200).await;
            assert_eq!(answer.header("azureml-model-deployment"), served);
            let replica = if served == "blue" { &blue } else { &green };
            let address = replica.address.to_string();
            assert_record(&record, &json!({"Deployment": served, "Replica": address, "Attempts": 1}));
        }
    }
    assert_eq!((blue.seen().len(), green.seen().len()), (8, 4));
    for unknown in ["Green", "gree", "", "blue, green", "red"] {
        let answer = gateway.call(post(&format!("azureml-model-deployment: {unknown}\r\n"))).await;
        let record = gateway.refused(&answer, 404, "unknown_service").await;
        assert_record(&record, &json!({"Service": "iris", "Deployment": null, "Attempts": 0}));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_replicas_fields_reach_the_client() {
    let replica = Upstream::answering(|_| {
        b"HTTP/1.1 200 Fine\r\nServer: gunicorn\r\nDate: Tue, 24 Nov 2026 10:28:52 GMT\r\nSet-Cookie: a=1; Path=/\r\n\
          Set-Cookie: b=2\r\nContent-Type: text/x-odd; q=1\r\nContent-Length: 2\r\nETag: \"x\"\r\nCache-Control: no-store\r\n\
          x-ms-run-function-failed: False\r\nx-ms-run-fn-exec-ms: 1.234\r\nx-ms-server-version: azmlinfsrv/1.5.1\r\n\
          azureml-model-session: blue\r\nTraceId: abc\r\nRetry-After: 7\r\nWWW-Authenticate: Basic\r\n\r\n{}"
            .to_vec()
    })
    .await;
    let gateway = open(&replica).await;
    let over_h1 = gateway.call(post("")).await;
    assert_eq!(over_h1.header("set-cookie"), "a=1; Path=/, b=2");
    let mut h2 = gateway.h2().await;
    let over_h2 = h2.call(h2.request("POST", PATH).body(Full::from("{}")).unwrap()).await;
    for answer in [over_h1, over_h2] {
        gateway.passed(&answer, 200).await;
        for (name, value) in [
            ("server", "gunicorn"),
            ("date", "Tue, 24 Nov 2026 10:28:52 GMT"),
            ("content-type", "text/x-odd; q=1"),
            ("content-length", "2"),
            ("etag", "\"x\""),
            ("cache-control", "no-store"),
            ("x-ms-run-function-failed", "False"),
            ("x-ms-run-fn-exec-ms", "1.234"),
            ("x-ms-server-version", "azmlinfsrv/1.5.1"),
            ("azureml-model-session", "blue"),
            ("traceid", "abc"),
            ("retry-after", "7"),
            ("www-authenticate", "Basic"),
        ] {
            assert_eq!(answer.header(name), value, "{name}");
        }
        assert_eq!(answer.text(), "{}");
    }
}
