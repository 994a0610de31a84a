//! Data collection at the door: which calls leave a copy, what is in it, and that callers notice nothing.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::harness::{
    Gateway, KEY, Load, Mortal, Replica, Upstream, config, eventually, ok, read_request, score_request,
    service, websocket_agreed, websocket_handshake,
};

/// A service `iris` with `data_collection: {settings}`, and `more` lines of it.
fn with(replica: SocketAddr, settings: &str, more: &str) -> String {
    let section = format!("    data_collection: {{ {settings} }}\n{more}");
    config(&service("iris", replica, &section)).replacen(
        "telemetry: {",
        "telemetry: { data_collection: { path: collected },",
        1,
    )
}

fn collected(outcome: &str) -> String {
    format!("scoregate_collected_total{{service=\"iris\",outcome=\"{outcome}\"}}")
}

/// The files of the service.
fn files(gateway: &Gateway) -> Vec<PathBuf> {
    let folder = gateway.path("collected/iris");
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// The lines of the service, once the gateway says that it has written so many and no more were to be collected.
async fn lines(gateway: &Gateway, count: usize) -> Vec<Value> {
    gateway.until_metric(&collected("written"), count as f64).await;
    let texts = files(gateway).into_iter().map(|file| std::fs::read_to_string(file).unwrap());
    let text: String = texts.collect();
    let lines: Vec<_> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), count, "{text}");
    lines
}

/// Today and tomorrow, so that midnight decides no test.
fn days() -> [String; 2] {
    let now = time::OffsetDateTime::now_utc();
    [now, now + time::Duration::days(1)].map(|day| format!("{}.jsonl", day.date()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_call_of_the_sample_leaves_one_line_over_both_protocols() {
    let upstream = Upstream::answering(|_| {
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 6\r\n\r\n[0, 2]"
            .into()
    });
    let upstream = upstream.await;
    let gateway = Gateway::start(&with(upstream.address, "", "")).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let answer = gateway.score("iris", Some(KEY), "{\"data\": [\n1]}").await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "[0, 2]"));
        ids.push(answer.header("x-ms-request-id").to_owned());
    }
    let mut h2 = gateway.h2().await;
    let answer = h2.call(h2.score_request("iris", KEY, "{\"data\": [\n1]}")).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "[0, 2]"));
    ids.push(answer.header("x-ms-request-id").to_owned());

    let lines = lines(&gateway, 4).await;
    let records = gateway.exactly(4).await;
    for (id, line) in ids.iter().zip(&lines) {
        let record = records.iter().find(|record| record["RequestId"] == **id).unwrap();
        let mut expected = json!({
            "InputBytes": 14, "InputTruncated": false, "Input": "{\"data\": [\n1]}",
            "OutputType": "text/plain; charset=utf-8", "OutputBytes": 6, "OutputTruncated": false,
            "Output": "[0, 2]", "InputType": line["InputType"],
        });
        for field in ["Time", "RequestId", "Service", "Deployment", "StatusCode", "Reason"] {
            expected[field] = record[field].clone();
        }
        assert_eq!(*line, expected);
    }
    assert_eq!(lines[0]["InputType"], "application/json");
    for file in files(&gateway) {
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o137, 0, "{file:?}");
        assert!(!std::fs::read_to_string(file).unwrap().contains(KEY));
    }
    let page = gateway.observe("/metrics").await.1;
    let all = page.lines().filter(|line| line.starts_with("scoregate_collected_total{"));
    assert_eq!(all.collect::<Vec<_>>(), [format!("{} 4", collected("written"))]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_share_changes_with_a_reload_and_what_is_left_is_written_at_the_end() {
    let upstream = Upstream::echo().await;
    let text = with(upstream.address, "sample: 0", "");
    let mut gateway = Gateway::start(&text).await;
    for _ in 0..10 {
        assert_eq!(gateway.score("iris", Some(KEY), "none").await.status, 200);
    }
    gateway.replace("scoregate.yaml", &text.replace("sample: 0", "sample: 1"));
    gateway.reload().await;
    for _ in 0..10 {
        assert_eq!(gateway.score("iris", Some(KEY), "all").await.status, 200);
    }
    gateway.drain().await;
    let texts: String = files(&gateway).iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    assert_eq!((texts.matches("\"Input\":\"all\"").count(), texts.lines().count()), (10, 10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_are_cut_in_the_copy_alone() {
    let upstream = Upstream::echo().await;
    let gateway = Gateway::start(&with(upstream.address, "body_bytes: 8", "")).await;
    let large = "0123456789".repeat(300_000);
    let mut client = gateway.connect().await;
    client.send(score_request("iris", Some(KEY), &large)).await;
    assert!(client.answer().await.text() == large);
    let head =
        score_request("iris", Some(KEY), "").replace("Content-Length: 0", "Transfer-Encoding: chunked");
    client.send(head + "3\r\none\r\n3\r\ntwo\r\n5\r\nthree\r\n0\r\n\r\n").await;
    assert_eq!(client.answer().await.text(), "onetwothree");
    client.send(score_request("iris", Some(KEY), "12345678")).await;
    assert_eq!(client.answer().await.text(), "12345678");
    let cut = |line: &Value| {
        ["Input", "Output"].map(|side| {
            let [bytes, truncated] = ["Bytes", "Truncated"].map(|name| line[format!("{side}{name}")].clone());
            (line[side].as_str().unwrap().to_owned(), bytes.as_u64().unwrap(), truncated == true)
        })
    };
    let lines = lines(&gateway, 3).await;
    for (line, (text, bytes, truncated)) in
        lines.iter().zip([("01234567", 3_000_000, true), ("onetwoth", 11, true), ("12345678", 8, false)])
    {
        let expected = (text.to_owned(), bytes, truncated);
        assert_eq!(cut(line), [expected.clone(), expected]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_not_held_up_and_bytes_that_are_no_text_are_told_as_such() {
    let replica = Replica::bind().await;
    let gateway = Gateway::start(&with(replica.address, "", "")).await;
    let mut h2 = gateway.h2_streams().await;
    let request = http::Request::post("https://localhost/api/v1/service/iris/score")
        .header("authorization", format!("Bearer {KEY}"))
        .header("content-type", "application/octet-stream")
        .body(())
        .unwrap();
    let (answer, mut upload) = h2.send_request(request, false).unwrap();
    upload.send_data(Bytes::from_static(b"\xff\x00"), false).unwrap();
    let mut call = replica.accept().await;
    call.head().await;
    // The first piece is there before the second one is sent.
    assert_eq!(call.bytes(7).await, b"2\r\n\xff\x00\r\n");
    upload.send_data(Bytes::from_static(b"\xfe"), true).unwrap();
    assert_eq!(call.bytes(11).await, b"1\r\n\xfe\r\n0\r\n\r\n");
    call.send("HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n\u{1}\r\n")
        .await;
    let mut body = answer.await.unwrap().into_body();
    assert_eq!(body.data().await.unwrap().unwrap(), "\u{1}");
    call.send(b"1\r\n\x80\r\n0\r\n\r\n").await;
    assert_eq!(body.data().await.unwrap().unwrap(), &b"\x80"[..]);
    while body.data().await.is_some() {}
    let line = lines(&gateway, 1).await.remove(0);
    assert_eq!(line["InputBase64"], "/wD+");
    assert_eq!(line["InputType"], "application/octet-stream");
    assert_eq!((&line["OutputBase64"], &line["OutputCoding"]), (&json!("AYA="), &json!("br")));
    assert_eq!((&line["OutputType"], line.get("Output")), (&Value::Null, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_scoring_calls_that_were_let_in_are_collected_and_only_the_models_own_answers() {
    let upstream = Upstream::answering(|seen| {
        if seen.header("upgrade").is_empty() {
            b"HTTP/1.1 422 Odd\r\nContent-Length: 3\r\n\r\nodd".into()
        } else {
            websocket_agreed().into_bytes()
        }
    })
    .await;
    let gateway = Gateway::start(&with(upstream.address, "", "    websocket: true")).await;
    assert_eq!(gateway.score("iris", Some("wrong-0123456789abcdefghijklmnop"), "stranger").await.status, 401);
    for path in ["swagger.json", ""] {
        let request = format!(
            "GET /api/v1/service/iris/{path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n\r\n"
        );
        assert_eq!(gateway.call(request).await.status, 422);
    }
    let mut tunnel = gateway.connect().await;
    tunnel.send(websocket_handshake("iris", KEY)).await;
    assert!(tunnel.head().await.unwrap().starts_with("HTTP/1.1 101 "));
    drop(tunnel);
    // The model's own refusal is an output.
    assert_eq!(gateway.score("iris", Some(KEY), "mine").await.text(), "odd");
    let line = lines(&gateway, 1).await.remove(0);
    assert_eq!(
        (&line["Input"], &line["Output"], &line["StatusCode"], &line["Reason"]),
        (&json!("mine"), &json!("odd"), &json!(422), &json!("model_error"))
    );

    // The gateway's is not.
    let down = Mortal::dead(|_| async { Vec::new() });
    let gateway = Gateway::start(&with(down.address, "", "")).await;
    assert_eq!(gateway.score("iris", Some(KEY), "lost").await.status, 502);
    let line = lines(&gateway, 1).await.remove(0);
    assert_eq!((&line["Input"], &line["StatusCode"]), (&json!("lost"), &json!(502)));
    assert_eq!(line["Reason"], "connect_failed");
    assert!(line.as_object().unwrap().keys().all(|field| !field.starts_with("Output")), "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_gateway_says_in_the_place_of_an_answer_that_broke_is_no_output() {
    let replica = Replica::bind().await;
    let gateway = Gateway::start(&with(replica.address, "", "")).await;
    let mut client = gateway.connect().await;
    client.send(score_request("iris", Some(KEY), "question")).await;
    let (mut call, _) = replica.request().await;
    // Head and end leave together: the gateway has passed nothing on when it sees the end.
    #[cfg(target_os = "linux")]
    socket2::SockRef::from(&call.tcp).set_tcp_cork(true).unwrap();
    call.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n").await;
    drop(call);
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.reason()), (502, "upstream_reset"));
    let line = lines(&gateway, 1).await.remove(0);
    assert_eq!((&line["Input"], &line["StatusCode"]), (&json!("question"), &json!(502)));
    assert!(line.as_object().unwrap().keys().all(|field| !field.starts_with("Output")), "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_calls_at_once_each_has_its_own_line() {
    let upstream = Upstream::answering(|seen| ok(seen.header("x-request-id").as_bytes())).await;
    let gateway = Gateway::start(&with(upstream.address, "", "")).await;
    let load = Load::start(&gateway, 8, score_request("iris", Some(KEY), "x"), |answer| {
        (answer.status != 200).then(|| answer.text())
    });
    load.further(400).await;
    let (calls, problems) = load.stop().await;
    assert_eq!(problems, Vec::<String>::new());
    let lines = lines(&gateway, calls).await;
    assert!(lines.iter().all(|line| line["Output"] == line["RequestId"]));
    let ids: BTreeSet<_> = lines.iter().map(|line| line["RequestId"].as_str()).collect();
    assert_eq!(ids.len(), calls);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_side_may_be_left_out_and_a_call_that_is_tried_again_is_collected_once() {
    // Closes each connection but every second one before it has answered.
    let upstream = Upstream::serving(|mut tcp, connection, log| async move {
        let Some(seen) = read_request(&mut tcp, &mut Vec::new(), connection).await else { return };
        log.lock().unwrap().push(seen);
        if connection % 2 == 1 {
            let answer = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";
            let _ = tokio::io::AsyncWriteExt::write_all(&mut tcp, answer.as_bytes()).await;
        }
    })
    .await;
    let retry = "    retry: { replay: always }";
    for (settings, kept, left_out) in
        [("outputs: false", ("Input", "onetwo"), "Output"), ("inputs: false", ("Output", "ok"), "Input")]
    {
        let before = upstream.seen().len();
        let gateway = Gateway::start(&with(upstream.address, settings, retry)).await;
        let head =
            score_request("iris", Some(KEY), "").replace("Content-Length: 0", "Transfer-Encoding: chunked");
        let answer = gateway.call(head + "3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n").await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
        assert_eq!(upstream.seen().len() - before, 2);
        let line = lines(&gateway, 1).await.remove(0);
        assert_eq!(line[kept.0], kept.1);
        assert_eq!(line[format!("{}Bytes", kept.0)], kept.1.len());
        assert!(line.as_object().unwrap().keys().all(|field| !field.starts_with(left_out)), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_leaves_has_its_line_with_what_has_passed() {
    let replica = Replica::bind().await;
    let gateway = Gateway::start(&with(replica.address, "", "")).await;
    let mut client = gateway.connect().await;
    client.send(score_request("iris", Some(KEY), "question")).await;
    let (mut call, _) = replica.request().await;
    call.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf").await;
    client.head().await.unwrap();
    assert_eq!(client.bytes(4).await, b"half");
    drop(client);
    let line = lines(&gateway, 1).await.remove(0);
    assert_eq!((&line["Input"], &line["Output"]), (&json!("question"), &json!("half")));
    assert_eq!((&line["Reason"], &line["OutputTruncated"]), (&json!("client_gone"), &json!(false)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_costs_no_call_and_is_used_again_when_there_is_room() {
    let upstream = Upstream::echo().await;
    let gateway = Gateway::start(&with(upstream.address, "", "")).await;
    std::fs::create_dir(gateway.path("collected/iris")).unwrap();
    for day in days() {
        std::os::unix::fs::symlink("/dev/full", gateway.path("collected/iris").join(day)).unwrap();
    }
    for number in 0..5 {
        assert_eq!(gateway.score("iris", Some(KEY), &number.to_string()).await.text(), number.to_string());
    }
    gateway.until_metric(&collected("failed"), 5.0).await;
    for day in days() {
        let _ = std::fs::remove_file(gateway.path("collected/iris").join(day));
    }
    assert_eq!(gateway.score("iris", Some(KEY), "room").await.status, 200);
    assert_eq!(lines(&gateway, 1).await[0]["Input"], "room");
    assert_eq!(gateway.metric(&collected("failed")).await, 5.0);
    gateway.exactly(6).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_stuck_holds_up_no_call_and_the_counts_add_up_to_the_calls() {
    let upstream = Upstream::echo().await;
    let gateway = Gateway::start(&with(upstream.address, "body_bytes: 1MiB", "")).await;
    std::fs::create_dir(gateway.path("collected/iris")).unwrap();
    let pipes = days().map(|day| gateway.path("collected/iris").join(day));
    // A pipe that nobody reads takes a little, and then blocks whoever writes.
    let made = std::process::Command::new("mkfifo").args(&pipes).status().unwrap();
    assert!(made.success());
    let body = "x".repeat(1 << 20);
    let mut client = gateway.connect().await;
    let mut calls = 0;
    // What waits is bounded by 16 MiB, and each call is 2.
    while gateway.metric(&collected("behind")).await < 2.0 {
        client.send(score_request("iris", Some(KEY), &body)).await;
        assert_eq!(client.answer().await.body.len(), body.len());
        calls += 1;
        assert!(calls < 30);
    }
    // The disk works again: all that has waited is written.
    let readers = pipes.map(|pipe| {
        std::thread::spawn(move || {
            let file = std::fs::OpenOptions::new().read(true).write(true).open(pipe).unwrap();
            std::io::copy(&mut std::io::BufReader::new(file), &mut std::io::sink())
        })
    });
    eventually("all are counted", async || {
        let counted =
            gateway.metric(&collected("written")).await + gateway.metric(&collected("behind")).await;
        (counted == f64::from(calls)).then_some(())
    })
    .await;
    // They read for ever: the process ends them.
    drop(readers);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_it_goes_needs_a_restart() {
    let upstream = Upstream::echo().await;
    let text = with(upstream.address, "", "");
    let gateway = Gateway::start(&text).await;
    gateway.replace("scoregate.yaml", &text.replace("path: collected", "path: elsewhere, keep: 1d"));
    gateway.reload().await;
    let status = gateway.status().await;
    let error = status["error"].as_str().unwrap();
    assert!(error.contains("telemetry.data_collection.path changed from"), "{error}");
    assert!(error.contains("telemetry.data_collection.keep changed from 604800s to 86400s"), "{error}");
}
