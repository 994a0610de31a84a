//! gRPC from an HTTP/2 client to an HTTP/2 replica: all kinds of calls, trailers, cancellation, deadlines, and refusals in
//! gRPC's own words.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::client::{ResponseFuture, SendRequest};
use http::{HeaderMap, Request, Response};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::harness::{Gateway, KEY, Replica, Upstream, assert_record, config, eventually, service, soon};

const METHOD: &str = "/echo.Echo/Talk";

/// A service that opens `echo.Echo` on HTTP/2 replicas.
fn grpc_service(replica: SocketAddr, more: &str) -> String {
    service("iris", replica, &format!("    grpc: [echo.Echo]\n    hosts: [localhost]\n{more}"))
        .replace("name: blue", "name: blue, protocol: h2")
}

async fn gateway(replica: &Upstream, more: &str) -> Gateway {
    Gateway::start(&config(&grpc_service(replica.address, more))).await
}

fn request(path: &str) -> http::request::Builder {
    Request::post(format!("https://localhost{path}"))
        .header("authorization", format!("Bearer {KEY}"))
        .header("content-type", "application/grpc+proto")
        .header("te", "trailers")
}

/// A message with gRPC's prefix of five bytes.
fn message(text: &str) -> Bytes {
    let mut framed = vec![0];
    framed.extend((text.len() as u32).to_be_bytes());
    framed.extend(text.as_bytes());
    framed.into()
}

fn trailers(status: &'static str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", status.parse().unwrap());
    trailers.insert("grpc-message", "said so".parse().unwrap());
    trailers.insert("x-trailing", "metadata".parse().unwrap());
    trailers
}

fn head() -> Response<()> {
    Response::builder().header("content-type", "application/grpc+proto").body(()).unwrap()
}

/// The next message of a stream whose peer sends one per DATA frame; `None`: there is none.
async fn next(stream: &mut RecvStream) -> Option<Bytes> {
    loop {
        let data = soon("a message or the end", stream.data()).await?.unwrap();
        stream.flow_control().release_capacity(data.len()).unwrap();
        if !data.is_empty() {
            return Some(data);
        }
    }
}

/// The status of an answer that may be only a head.
fn status(fields: &HeaderMap) -> &str {
    fields.get("grpc-status").map_or("", |status| status.to_str().unwrap())
}

/// An upstream that answers each call with what `talk` does, and tells of each head.
async fn replica<F>(
    talk: impl Fn(RecvStream, h2::server::SendResponse<Bytes>) -> F + Send + Sync + Clone + 'static,
) -> (Upstream, mpsc::UnboundedReceiver<http::request::Parts>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let (tell, told) = mpsc::unbounded_channel();
    let upstream = Upstream::h2(None, move |request, respond| {
        let (parts, body) = request.into_parts();
        tell.send(parts).unwrap();
        talk(body, respond)
    });
    (upstream.await, told)
}

/// Answers each message at once with the same, and ends when the client does.
async fn echo(mut body: RecvStream, mut respond: h2::server::SendResponse<Bytes>) {
    let mut answer = respond.send_response(head(), false).unwrap();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        answer.send_data(data, false).unwrap();
    }
    assert!(body.trailers().await.unwrap().is_none(), "trailers of a client end at the gateway");
    answer.send_trailers(trailers("0")).unwrap();
}

async fn start(client: &mut SendRequest<Bytes>, path: &str) -> (ResponseFuture, h2::SendStream<Bytes>) {
    client.clone().ready().await.unwrap().send_request(request(path).body(()).unwrap(), false).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unary_call_gets_its_message_and_its_trailers() {
    let (replica, mut told) = replica(echo).await;
    let gateway = gateway(&replica, "").await;
    let mut client = gateway.h2_streams().await;
    let asked = request(METHOD)
        .header("grpc-timeout", "5S")
        .header("grpc-encoding", "identity")
        .header("x-leading", "metadata");
    let (answer, mut sending) = client.send_request(asked.body(()).unwrap(), false).unwrap();
    sending.send_data(message("hello"), true).unwrap();
    let answer = soon("the answer", answer).await.unwrap();
    assert_eq!(
        (answer.status(), &answer.headers()["content-type"]),
        (http::StatusCode::OK, &"application/grpc+proto".parse().unwrap())
    );
    let mut body = answer.into_body();
    assert_eq!(next(&mut body).await.unwrap(), message("hello"));
    assert_eq!(next(&mut body).await, None);
    let behind = body.trailers().await.unwrap().expect("trailers");
    assert_eq!(
        (status(&behind), &behind["grpc-message"], &behind["x-trailing"]),
        ("0", &"said so".parse().unwrap(), &"metadata".parse().unwrap())
    );

    let seen = told.recv().await.unwrap();
    assert_eq!(seen.uri.path(), METHOD);
    for (name, value) in [
        ("te", "trailers"),
        ("grpc-timeout", "5S"),
        ("grpc-encoding", "identity"),
        ("x-leading", "metadata"),
        ("content-type", "application/grpc+proto"),
    ] {
        assert_eq!(seen.headers[name], value);
    }
    assert!(!seen.headers.contains_key("authorization"));
    let expected = json!({"StatusCode": 200, "Reason": "ok", "RequestBytes": 10, "ResponseBytes": 10});
    assert_record(&gateway.exactly(1).await[0], &expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_of_a_call_talk_at_once() {
    let (replica, _told) = replica(echo).await;
    let gateway = gateway(&replica, "").await;
    let mut client = gateway.h2_streams().await;
    let (answer, mut sending) = start(&mut client, METHOD).await;
    // The answer begins before the client has said anything.
    let mut body = soon("the head", answer).await.unwrap().into_body();
    for number in 0..5 {
        let text = format!("message {number}");
        sending.send_data(message(&text), false).unwrap();
        assert_eq!(next(&mut body).await.unwrap(), message(&text));
    }
    sending.send_data(Bytes::new(), true).unwrap();
    assert_eq!(next(&mut body).await, None);
    assert_eq!(status(&body.trailers().await.unwrap().unwrap()), "0");
    gateway.exactly(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_flows_before_the_answer_begins() {
    // Client streaming: each message is told of before the next is sent, and the answer comes last.
    let (tell, mut told) = mpsc::unbounded_channel();
    let replica = Upstream::h2(None, move |request, mut respond| {
        let tell = tell.clone();
        async move {
            let mut body = request.into_body();
            while let Some(data) = body.data().await {
                let data = data.unwrap();
                body.flow_control().release_capacity(data.len()).unwrap();
                tell.send(data).unwrap();
            }
            let mut answer = respond.send_response(head(), false).unwrap();
            answer.send_data(message("sum"), false).unwrap();
            answer.send_trailers(trailers("0")).unwrap();
        }
    })
    .await;
    let gateway = gateway(&replica, "").await;
    let mut client = gateway.h2_streams().await;
    let (answer, mut sending) = start(&mut client, METHOD).await;
    for text in ["one", "two", "three"] {
        sending.send_data(message(text), false).unwrap();
        assert_eq!(soon("the message", told.recv()).await.unwrap(), message(text));
    }
    sending.send_data(Bytes::new(), true).unwrap();
    let mut body = soon("the head", answer).await.unwrap().into_body();
    assert_eq!(next(&mut body).await.unwrap(), message("sum"));
    assert_eq!(next(&mut body).await, None);
    assert_eq!(status(&body.trailers().await.unwrap().unwrap()), "0");
    gateway.exactly(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_of_the_replica_is_passed_on_as_it_is_and_told_in_the_record() {
    let (replica, _told) = replica(|_, mut respond: h2::server::SendResponse<Bytes>| async move {
        // Trailers-only: one head that is the end.
        let mut only = Response::builder().header("content-type", "application/grpc");
        only.headers_mut().unwrap().extend(trailers("5"));
        respond.send_response(only.body(()).unwrap(), true).unwrap();
    })
    .await;
    // Managed makes 424 of what is not 200; statuses of gRPC are none of HTTP.
    let managed = grpc_service(replica.address, "").replace("AKS", "Managed");
    let gateway = Gateway::start(&config(&managed)).await;
    let mut client = gateway.h2_streams().await;
    let (answer, mut sending) = start(&mut client, METHOD).await;
    sending.send_data(message("where"), true).unwrap();
    let answer = soon("the answer", answer).await.unwrap();
    assert!(answer.body().is_end_stream(), "a head alone stays a head alone");
    assert_eq!((answer.status().as_u16(), status(answer.headers())), (200, "5"));
    assert_eq!(answer.headers()["grpc-message"], "said so");
    assert!(!answer.headers().contains_key("x-scoregate-reason"));
    assert_record(&gateway.exactly(1).await[0], &json!({"StatusCode": 200, "Reason": "model_error"}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_status_behind_the_messages_is_told_in_the_record() {
    let (replica, _told) = replica(|_, mut respond: h2::server::SendResponse<Bytes>| async move {
        let mut answer = respond.send_response(head(), false).unwrap();
        answer.send_data(message("half"), false).unwrap();
        answer.send_trailers(trailers("13")).unwrap();
    })
    .await;
    let gateway = gateway(&replica, "").await;
    let mut client = gateway.h2_streams().await;
    let (answer, mut sending) = start(&mut client, METHOD).await;
    sending.send_data(message("go"), true).unwrap();
    let mut body = soon("the answer", answer).await.unwrap().into_body();
    assert_eq!(next(&mut body).await.unwrap(), message("half"));
    assert_eq!(next(&mut body).await, None);
    assert_eq!(status(&body.trailers().await.unwrap().unwrap()), "13");
    assert_record(&gateway.exactly(1).await[0], &json!({"StatusCode": 200, "Reason": "model_error"}));
}

/// A refusal as the client of a gRPC call gets it.
async fn refused(client: &mut SendRequest<Bytes>, call: Request<()>) -> HeaderMap {
    let (answer, mut sending) = client.clone().ready().await.unwrap().send_request(call, false).unwrap();
    // A refusal may come before the message.
    let _ = sending.send_data(message("sixteen letters!"), true);
    let answer = soon("a refusal", answer).await.unwrap();
    assert_eq!(answer.status(), 200, "gRPC has statuses of its own");
    assert!(answer.body().is_end_stream(), "a trailers-only answer");
    assert_eq!(answer.headers()["content-type"], "application/grpc");
    answer.headers().clone()
}

/// The record of the call that was refused so. Its status is the one that the refusal means.
async fn record_of(gateway: &Gateway, refusal: &HeaderMap) -> Value {
    let id = refusal["x-request-id"].to_str().unwrap().to_owned();
    eventually("the record", async || {
        let records = gateway.records(1).await;
        records.into_iter().find(|record| record["RequestId"] == id.as_str())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gateways_own_refusals_are_statuses_of_grpc() {
    let (replica, _told) = replica(echo).await;
    let gateway = gateway(&replica, "    limits: { body_bytes: 20 }").await;
    let mut client = gateway.h2_streams().await;
    let bare = |path: &str| {
        let mut call = request(path).body(()).unwrap();
        call.headers_mut().remove("authorization");
        call
    };
    let with = |path: &str, name: &'static str, value: &'static str| {
        request(path).header(name, value).body(()).unwrap()
    };
    let mut wrong = bare(METHOD);
    wrong.headers_mut().insert("authorization", "Bearer wrong".parse().unwrap());
    for (call, grpc, http, reason) in [
        (bare(METHOD), "16", 401, "auth_missing"),
        (wrong, "16", 401, "auth_invalid"),
        (request("/other.Service/Method").body(()).unwrap(), "12", 404, "unknown_service"),
        (with(METHOD, "azureml-model-deployment", "none"), "12", 404, "unknown_service"),
        (with(METHOD, "content-length", "21"), "8", 413, "body_too_large"),
    ] {
        let refusal = refused(&mut client, call).await;
        assert_eq!(
            (status(&refusal), &refusal["x-scoregate-reason"]),
            (grpc, &reason.parse().unwrap()),
            "{refusal:?}"
        );
        assert!(!refusal["grpc-message"].is_empty());
        let record = record_of(&gateway, &refusal).await;
        assert_record(&record, &json!({"StatusCode": http, "Reason": reason, "EndedBy": "gateway"}));
    }
    // gRPC-Web and whatever else is not gRPC are refused as always.
    let web = Request::post(format!("https://localhost{METHOD}"))
        .header("content-type", "application/grpc-web+proto");
    let (answer, _) = client.send_request(web.body(()).unwrap(), true).unwrap();
    let answer = soon("a refusal", answer).await.unwrap();
    assert_eq!((answer.status().as_u16(), status(answer.headers())), (401, ""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_not_there_or_does_not_answer_is_a_status_of_grpc() {
    let gone = Replica::bind().await.address;
    let (silent, _told) = replica(|body, respond| async move {
        let _held = (body, respond);
        std::future::pending::<()>().await;
    })
    .await;
    let (resetting, _also_told) = replica(|_, mut respond: h2::server::SendResponse<Bytes>| async move {
        respond.send_reset(h2::Reason::REFUSED_STREAM);
    })
    .await;
    for (address, limits, grpc, http, reason) in [
        (silent.address, "scoring_timeout: 200ms", "4", 504, "upstream_timeout"),
        (resetting.address, "scoring_timeout: 60s", "14", 502, "upstream_reset"),
        (gone, "scoring_timeout: 60s", "14", 502, "connect_failed"),
    ] {
        let gateway =
            Gateway::start(&config(&grpc_service(address, &format!("    limits: {{ {limits} }}")))).await;
        let mut client = gateway.h2_streams().await;
        let refusal = refused(&mut client, request(METHOD).body(()).unwrap()).await;
        assert_eq!((status(&refusal), &refusal["x-scoregate-reason"]), (grpc, &reason.parse().unwrap()));
        let record = record_of(&gateway, &refusal).await;
        assert_record(&record, &json!({"StatusCode": http, "Reason": reason}));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clients_grpc_timeout_bounds_the_wait_where_it_is_the_shorter() {
    let (replica, _told) = replica(|body, respond| async move {
        let _held = (body, respond);
        std::future::pending::<()>().await;
    })
    .await;
    let gateway = gateway(&replica, "    limits: { scoring_timeout: 1h }").await;
    let mut client = gateway.h2_streams().await;
    let call = request(METHOD).header("grpc-timeout", "200m").body(()).unwrap();
    let refusal = refused(&mut client, call).await;
    assert_eq!(status(&refusal), "4");
    assert!(refusal["grpc-message"].to_str().unwrap().contains("grpc-timeout (200ms)"), "{refusal:?}");
    // Also while the client still sends.
    let call = request(METHOD).header("grpc-timeout", "200m").body(()).unwrap();
    let (answer, sending) = client.clone().ready().await.unwrap().send_request(call, false).unwrap();
    let answer = soon("a refusal", answer).await.unwrap();
    assert_eq!(status(answer.headers()), "4");
    drop(sending);
    gateway.exactly(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_in_which_both_sides_are_silent_is_ended_by_the_idle_timeout_and_no_other() {
    let (replica, _told) =
        replica(|mut body: RecvStream, mut respond: h2::server::SendResponse<Bytes>| async move {
            // Answers at the first message, and then never again.
            body.data().await;
            let answer = respond.send_response(head(), false).unwrap();
            while let Some(Ok(data)) = body.data().await {
                body.flow_control().release_capacity(data.len()).unwrap();
            }
            drop(answer);
        })
        .await;
    let limits = "    limits: { scoring_timeout: 100ms, request_body_timeout: 100ms, idle_timeout: 1s }";
    let gateway = gateway(&replica, limits).await;
    let mut client = gateway.h2_streams().await;
    let (answer, mut sending) = start(&mut client, METHOD).await;
    // The client may take longer than scoring_timeout and request_body_timeout: it is not the replica's turn, nor is a
    // stream a body that is to be sent.
    tokio::time::sleep(Duration::from_millis(400)).await;
    sending.send_data(message("first"), false).unwrap();
    let mut body = soon("the head", answer).await.unwrap().into_body();
    // As long as the client sends, the call is not idle.
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_millis(250)).await;
        sending.send_data(message("more"), false).unwrap();
    }
    let end = soon("the end", body.data()).await.expect("not a clean end");
    assert!(end.unwrap_err().is_reset());
    let record = &gateway.exactly(1).await[0];
    assert_record(record, &json!({"StatusCode": 200, "Reason": "upstream_timeout", "RequestBytes": 64}));
    assert!(record["StreamMs"].as_f64().unwrap() > 2300.0, "cut before its time: {record}");
}

/// A replica that answers with one message and then waits to be reset, of which it tells.
async fn waiting() -> (Upstream, mpsc::UnboundedReceiver<Result<h2::Reason, String>>) {
    let (tell, told) = mpsc::unbounded_channel();
    let upstream = Upstream::h2(None, move |request, mut respond| {
        let tell = tell.clone();
        async move {
            let _body = request.into_body();
            let mut answer = respond.send_response(head(), false).unwrap();
            answer.send_data(message("first"), false).unwrap();
            let reset = std::future::poll_fn(|cx| answer.poll_reset(cx)).await;
            let _ = tell.send(reset.map_err(|error| error.to_string()));
        }
    });
    (upstream.await, told)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_cancels_cancels_its_call_at_the_replica_and_no_other() {
    let (replica, mut told) = waiting().await;
    let gateway = gateway(&replica, "").await;
    let mut client = gateway.h2_streams().await;
    let (other, mut other_sending) = start(&mut client, METHOD).await;
    other_sending.send_data(message("other"), false).unwrap();
    let mut other = soon("the head", other).await.unwrap().into_body();
    assert_eq!(next(&mut other).await.unwrap(), message("first"));
    // Once with the request still open, once with it ended.
    for ended in [false, true] {
        let (answer, mut sending) = start(&mut client, METHOD).await;
        sending.send_data(message("hello"), ended).unwrap();
        let mut body = soon("the head", answer).await.unwrap().into_body();
        assert_eq!(next(&mut body).await.unwrap(), message("first"));
        sending.send_reset(h2::Reason::CANCEL);
        assert_eq!(
            soon("the cancellation", told.recv()).await.unwrap(),
            Ok(h2::Reason::CANCEL),
            "ended: {ended}"
        );
    }
    let records = gateway.records(2).await;
    for record in &records {
        assert_record(record, &json!({"StatusCode": 200, "Reason": "client_gone", "EndedBy": "client"}));
    }
    assert!(told.try_recv().is_err(), "the other call goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_holds_its_place_and_who_finds_none_is_refused_in_grpcs_words() {
    let (replica, mut told) = waiting().await;
    let limits = "    limits: { concurrent_requests_per_replica: 1, queue_wait: 0s }";
    let gateway = gateway(&replica, limits).await;
    let mut client = gateway.h2_streams().await;
    let (answer, mut sending) = start(&mut client, METHOD).await;
    let mut body = soon("the head", answer).await.unwrap().into_body();
    assert_eq!(next(&mut body).await.unwrap(), message("first"));
    let refusal = refused(&mut client, request(METHOD).body(()).unwrap()).await;
    assert_eq!(status(&refusal), "8");
    assert!(refusal["x-scoregate-reason"].to_str().unwrap().starts_with("queue_"), "{refusal:?}");
    assert_eq!(record_of(&gateway, &refusal).await["StatusCode"], 503);
    // The place is free when the stream has ended.
    sending.send_reset(h2::Reason::CANCEL);
    assert_eq!(soon("the cancellation", told.recv()).await.unwrap(), Ok(h2::Reason::CANCEL));
    gateway.exactly(2).await;
    let (answer, _sending) = start(&mut client, METHOD).await;
    assert_eq!(status(soon("the head", answer).await.unwrap().headers()), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_breaks_off_in_mid_stream_is_never_a_clean_end() {
    let (replica, _told) = replica(|_, mut respond: h2::server::SendResponse<Bytes>| async move {
        let mut answer = respond.send_response(head(), false).unwrap();
        answer.send_data(message("half"), false).unwrap();
        answer.reserve_capacity(1);
        // The message is on its way when room for another one is given.
        std::future::poll_fn(|cx| answer.poll_capacity(cx)).await;
        answer.send_reset(h2::Reason::INTERNAL_ERROR);
    })
    .await;
    let gateway = gateway(&replica, "").await;
    let mut client = gateway.h2_streams().await;
    let (answer, mut sending) = start(&mut client, METHOD).await;
    sending.send_data(message("go"), true).unwrap();
    let answer = soon("the answer", answer).await;
    let Ok(answer) = answer else { panic!("the call itself was reset") };
    if status(answer.headers()).is_empty() {
        let mut body = answer.into_body();
        let broken = loop {
            match soon("the end", body.data()).await {
                Some(Ok(_)) => {}
                end => break end,
            }
        };
        assert!(broken.expect("not a clean end").unwrap_err().is_reset());
    }
    assert_eq!(gateway.exactly(1).await[0]["Reason"], "upstream_reset");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trailers_of_a_client_end_at_the_gateway() {
    let (replica, _told) = replica(echo).await;
    let gateway = gateway(&replica, "").await;
    let mut client = gateway.h2_streams().await;
    let (answer, mut sending) = start(&mut client, METHOD).await;
    sending.send_data(message("hello"), false).unwrap();
    let mut smuggled = HeaderMap::new();
    smuggled.insert("authorization", "Bearer x".parse().unwrap());
    sending.send_trailers(smuggled).unwrap();
    let mut body = soon("the head", answer).await.unwrap().into_body();
    assert_eq!(next(&mut body).await.unwrap(), message("hello"));
    assert_eq!(next(&mut body).await, None);
    // The replica asserts that it got none.
    assert_eq!(status(&body.trailers().await.unwrap().unwrap()), "0");
    gateway.exactly(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_stops_the_replica() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let replica = Upstream::h2(None, move |_, mut respond| {
        let tell = tell.clone();
        async move {
            let mut answer = respond.send_response(head(), false).unwrap();
            let piece = Bytes::from(vec![7; 16 << 10]);
            for _ in 0..1024 {
                answer.reserve_capacity(piece.len());
                while answer.capacity() < piece.len() {
                    if std::future::poll_fn(|cx| answer.poll_capacity(cx)).await.is_none() {
                        return;
                    }
                }
                answer.send_data(piece.clone(), false).unwrap();
                tell.send(piece.len()).unwrap();
            }
            answer.send_trailers(trailers("0")).unwrap();
        }
    })
    .await;
    let gateway = gateway(&replica, "").await;
    let mut client = gateway.h2_streams().await;
    let (answer, mut sending) = start(&mut client, METHOD).await;
    sending.send_data(message("go"), true).unwrap();
    let mut body = soon("the head", answer).await.unwrap().into_body();
    // Until nothing more is taken: the windows of the streams, and what the gateway holds, are far below the whole.
    let mut taken = 0;
    while let Ok(Some(more)) = tokio::time::timeout(Duration::from_millis(500), told.recv()).await {
        taken += more;
    }
    assert!(taken > 0 && taken < 4 << 20, "{taken} bytes were taken for a client that reads nothing");
    let mut read = 0;
    while let Some(data) = next(&mut body).await {
        read += data.len();
    }
    assert_eq!(read, 16 << 20);
    assert_eq!(status(&body.trailers().await.unwrap().unwrap()), "0");
    gateway.exactly(1).await;
}
