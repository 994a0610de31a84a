//! Calls on their way to replicas: connections kept, replaced and retried, TLS, and both HTTP versions on both legs.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;
use tokio::sync::Semaphore;

use super::harness::{
    Authority, Gateway, KEY, Purpose, Upstream, config, ok, read_request, score_request, service,
};

/// One worker, so that there is one pool of upstream connections.
fn one_worker(services: &str) -> String {
    config(services).replace("workers: 2", "workers: 1")
}

/// A service `iris` whose one deployment is `deployment`, the inside of a YAML flow mapping.
fn service_with(deployment: &str) -> String {
    format!(
        "  - name: iris\n    compute_type: AKS\n    keys: {{ primary: {{ file: primary.key }} }}\n    \
         deployments: [ {{ name: blue, {deployment} }} ]\n"
    )
}

/// A port that refuses connections and that nobody else gets meanwhile.
fn refusing() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_one_after_the_other_share_one_connection() {
    let replica = Upstream::echo().await;
    let gateway = Gateway::start(&one_worker(&service("iris", replica.address, ""))).await;
    for number in 0..10 {
        let body = format!("call {number}");
        // From a new client each time.
        assert_eq!(gateway.score("iris", Some(KEY), &body).await.text(), body);
    }
    assert_eq!(replica.accepted(), 1);
    let records = gateway.exactly(10).await;
    let connected = records.iter().filter(|record| record["ConnectMs"].is_number());
    assert_eq!(connected.count(), 1, "only the first one had to connect");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_closes_after_each_answer_works_without_an_error() {
    let replica = Upstream::serving(|mut tcp, connection, log| async move {
        if let Some(seen) = read_request(&mut tcp, &mut Vec::new(), connection).await {
            let answer = format!(
                "HTTP/1.1 200 OK\r\nServer: gunicorn\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                seen.body.len()
            );
            let answer = [answer.as_bytes(), &seen.body].concat();
            log.lock().unwrap().push(seen);
            let _ = tcp.write_all(&answer).await;
        }
    })
    .await;
    let gateway = Gateway::start(&one_worker(&service("iris", replica.address, ""))).await;
    let mut connection = gateway.connect().await;
    for number in 0..20 {
        let body = format!("call {number}");
        connection.send(score_request("iris", Some(KEY), &body)).await;
        let answer = connection.answer().await;
        assert_eq!((answer.status, answer.text()), (200, body));
        assert_eq!(answer.header("connection"), "", "the caller's own connection is another matter");
    }
    assert_eq!(replica.accepted(), 20);
    let records = gateway.exactly(20).await;
    assert!(records.iter().all(|record| record["Attempts"] == 1 && record["Reason"] == "ok"), "{records:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooled_connection_that_was_closed_at_rest_is_replaced_without_an_error() {
    let closed = Arc::new(Semaphore::new(0));
    let told = Arc::clone(&closed);
    let replica = Upstream::serving(move |mut tcp, connection, log| {
        let closed = Arc::clone(&closed);
        async move {
            if let Some(seen) = read_request(&mut tcp, &mut Vec::new(), connection).await {
                // Keep-alive is promised, and broken.
                let _ = tcp.write_all(&ok(&seen.body)).await;
                log.lock().unwrap().push(seen);
                drop(tcp);
                closed.add_permits(1);
            }
        }
    })
    .await;
    let gateway = Gateway::start(&one_worker(&service("iris", replica.address, ""))).await;
    for number in 0..20 {
        let body = format!("call {number}");
        assert_eq!(gateway.score("iris", Some(KEY), &body).await.text(), body);
        told.acquire().await.unwrap().forget();
    }
    assert_eq!(replica.accepted(), 20);
    let records = gateway.exactly(20).await;
    assert!(records.iter().all(|record| record["Reason"] == "ok"), "{records:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_refuses_is_passed_over() {
    let replica = Upstream::echo().await;
    let (_held, refusing) = refusing();
    let replicas = format!("replicas: [\"http://{refusing}\", \"http://{}\"]", replica.address);
    let gateway = Gateway::start(&one_worker(&service_with(&replicas))).await;
    let mut connection = gateway.connect().await;
    for number in 0..40 {
        let body = format!("call {number}");
        connection.send(score_request("iris", Some(KEY), &body)).await;
        let answer = connection.answer().await;
        assert_eq!((answer.status, answer.text()), (200, body));
    }
    let records = gateway.exactly(40).await;
    assert!(records.iter().all(|record| record["Replica"] == replica.address.to_string()));
    let retried = records.iter().filter(|record| record["Attempts"] == 2).count();
    let direct = records.iter().filter(|record| record["Attempts"] == 1).count();
    assert!(retried > 0 && direct > 0 && retried + direct == 40, "{retried} retried, {direct} not");
    let attempts = gateway.metric("scoregate_upstream_attempts_total{service=\"iris\"}").await;
    assert_eq!(attempts, (direct + 2 * retried) as f64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_replica_to_connect_to_is_a_502() {
    let ((_held, one), (_held_too, other)) = (refusing(), refusing());
    let two = service_with(&format!("replicas: [\"http://{one}\", \"http://{other}\"]"));
    let single = service_with(&format!("replicas: [\"http://{one}\"]")).replace("iris", "single");
    let gateway = Gateway::start(&one_worker(&(two + &single))).await;
    for name in ["iris", "single"] {
        let answer = gateway.score(name, Some(KEY), "body").await;
        assert_eq!((answer.status, answer.reason()), (502, "connect_failed"));
        assert!(!answer.text().contains("127.0.0.1"), "nothing internal is told: {}", answer.text());
    }
    let records = gateway.exactly(2).await;
    assert!(records.iter().all(|record| record["Reason"] == "connect_failed" && record["StatusCode"] == 502));
    assert!(records[0]["Attempts"].as_u64().unwrap() > 1);
    assert_eq!(records[1]["Attempts"], 1);
}

fn tls(ca: &Path, more: &str) -> String {
    format!("tls: {{ ca: \"{}\", {more} }}", ca.display())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_https_replica_is_called_with_its_bundle_and_our_certificate() {
    let authority = Authority::new();
    let replica = Upstream::tls(authority.server("replica.test", Some(authority.ca()))).await;
    let ours = authority.certificate("gateway.test", Purpose::Client);
    let certificate = format!(
        "server_name: replica.test, certificate: {{ cert: \"{}\", key: \"{}\" }}",
        ours.cert.display(),
        ours.key.display()
    );
    let url = format!("replicas: [\"https://{}\"], ", replica.address);
    let with = service_with(&(url.clone() + &tls(&authority.ca(), &certificate)));
    let without =
        service_with(&(url + &tls(&authority.ca(), "server_name: replica.test"))).replace("iris", "bare");
    let gateway = Gateway::start(&one_worker(&(with + &without))).await;
    for _ in 0..3 {
        assert_eq!(gateway.score("iris", Some(KEY), "encrypted").await.text(), "encrypted");
    }
    assert_eq!(replica.accepted(), 1, "kept like any other");
    assert_eq!(gateway.score("bare", Some(KEY), "body").await.status, 502);
    assert_eq!(replica.seen().len(), 3);
    gateway.exactly(4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_cannot_prove_its_name_is_not_called() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let replica = Upstream::tls(authority.server("replica.test", None)).await;
    let url = format!("replicas: [\"https://{}\"], ", replica.address);
    let services = [
        ("name", &authority, "server_name: other.test"),
        // The address of the URL, which the certificate does not bear.
        ("address", &authority, ""),
        ("authority", &stranger, "server_name: replica.test"),
    ];
    let services = services.map(|(name, trusted, more)| {
        service_with(&(url.clone() + &tls(&trusted.ca(), more))).replace("iris", name)
    });
    let gateway = Gateway::start(&config(&services.concat())).await;
    for name in ["name", "address", "authority"] {
        let answer = gateway.score(name, Some(KEY), "secret").await;
        assert_eq!((answer.status, answer.reason()), (502, "connect_failed"), "{name}");
    }
    assert!(replica.seen().is_empty());
    gateway.exactly(3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_https_replica_that_answers_in_the_clear_is_a_502() {
    let replica = Upstream::serving(|mut tcp, _, _| async move {
        let _ = tcp.write_all(&ok(b"injected")).await;
        // Open until the gateway has judged it.
        let _ = read_request(&mut tcp, &mut Vec::new(), 0).await;
    })
    .await;
    let authority = Authority::new();
    let url = format!("replicas: [\"https://{}\"], ", replica.address);
    let services = ["h1", "h2"].map(|protocol| {
        let tls = tls(&authority.ca(), "server_name: replica.test");
        service_with(&format!("{url}protocol: {protocol}, {tls}"))
            .replace("iris", &format!("over-{protocol}"))
    });
    let gateway = Gateway::start(&config(&services.concat())).await;
    for name in ["over-h1", "over-h2"] {
        let answer = gateway.score(name, Some(KEY), "body").await;
        assert_eq!((answer.status, answer.reason()), (502, "connect_failed"), "{name}");
        assert!(!answer.text().contains("injected"));
    }
    gateway.exactly(2).await;
}

/// An HTTP/2 replica that answers each call with its body and with a trailer, and tells the request's fields.
async fn h2_echo(
    tls: Option<Arc<rustls::ServerConfig>>,
) -> (Upstream, tokio::sync::mpsc::UnboundedReceiver<http::request::Parts>) {
    let (tell, told) = tokio::sync::mpsc::unbounded_channel();
    let replica = Upstream::h2(tls, move |request, mut respond| {
        let tell = tell.clone();
        async move {
            let (parts, mut body) = request.into_parts();
            let _ = tell.send(parts);
            let mut received = Vec::new();
            while let Some(Ok(data)) = body.data().await {
                let _ = body.flow_control().release_capacity(data.len());
                received.extend_from_slice(&data);
            }
            let response = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
            let Ok(mut answer) = respond.send_response(response, false) else { return };
            let _ = answer.send_data(received.into(), false);
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            trailers.insert("grpc-message", "fine".parse().unwrap());
            trailers.insert("x-request-id", "not-ours".parse().unwrap());
            let _ = answer.send_trailers(trailers);
        }
    })
    .await;
    (replica, told)
}

fn h2_service(address: SocketAddr) -> String {
    service_with(&format!("replicas: [\"http://{address}\"], protocol: h2"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grpc_like_call_keeps_its_te_and_its_trailers() {
    let (replica, mut told) = h2_echo(None).await;
    let gateway = Gateway::start(&one_worker(&h2_service(replica.address))).await;
    let mut h2 = gateway.h2_streams().await;
    for _ in 0..3 {
        let request = Request::post("https://localhost/api/v1/service/iris/score")
            .header("authorization", format!("Bearer {KEY}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .unwrap();
        let (response, mut upload) = h2.send_request(request, false).unwrap();
        upload.send_data(Bytes::from_static(b"hello "), false).unwrap();
        upload.send_data(Bytes::from_static(b"grpc"), true).unwrap();
        let (parts, mut body) = response.await.unwrap().into_parts();
        assert_eq!(
            (parts.status.as_u16(), &parts.headers["content-type"]),
            (200, &"application/grpc".parse().unwrap())
        );
        let mut received = Vec::new();
        while let Some(data) = body.data().await {
            received.extend_from_slice(&data.unwrap());
        }
        assert_eq!(received, b"hello grpc");
        let trailers = body.trailers().await.unwrap().expect("trailers");
        assert_eq!(
            (&trailers["grpc-status"], &trailers["grpc-message"]),
            (&"0".parse().unwrap(), &"fine".parse().unwrap())
        );
        assert!(!trailers.contains_key("x-request-id"), "only the gateway sets that");

        let seen = told.recv().await.unwrap();
        assert_eq!(seen.headers["te"], "trailers");
        assert_eq!(seen.uri.path(), "/score");
        assert_eq!(seen.uri.authority().unwrap().as_str(), replica.address.to_string());
    }
    assert_eq!(replica.accepted(), 1);
    let records = gateway.exactly(3).await;
    assert!(records.iter().all(|record| record["Protocol"] == "HTTP/2" && record["ResponseBytes"] == 10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_http1_client_is_served_by_an_http2_replica() {
    let (replica, mut told) = h2_echo(None).await;
    let gateway = Gateway::start(&one_worker(&h2_service(replica.address))).await;
    let mut connection = gateway.connect().await;
    for body in ["one", "two"] {
        connection.send(score_request("iris", Some(KEY), body)).await;
        let answer = connection.answer().await;
        assert_eq!((answer.status, answer.text()), (200, body.to_owned()));
        assert!(!told.recv().await.unwrap().headers.contains_key("connection"));
    }
    let chunked = format!(
        "POST /api/v1/service/iris/score HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n\
         Transfer-Encoding: chunked\r\n\r\n3\r\nthr\r\n2\r\nee\r\n0\r\n\r\n"
    );
    connection.send(chunked).await;
    assert_eq!(connection.answer().await.text(), "three");
    assert_eq!(replica.accepted(), 1);
    gateway.exactly(3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_http2_client_is_served_by_an_http1_replica() {
    let replica = Upstream::echo().await;
    let gateway = Gateway::start(&one_worker(&service("iris", replica.address, ""))).await;
    let mut h2 = gateway.h2().await;
    for body in ["one", "two", ""] {
        let request =
            h2.request("POST", "/api/v1/service/iris/score").header("authorization", format!("Bearer {KEY}"));
        let answer = h2.call(request.header("te", "trailers").body(Bytes::from(body).into()).unwrap()).await;
        assert_eq!((answer.status, answer.text()), (200, body.to_owned()));
    }
    let seen = replica.seen();
    assert_eq!(replica.accepted(), 1);
    assert!(seen.iter().all(|seen| seen.line() == "POST /score HTTP/1.1" && seen.header("te").is_empty()));
    assert!(seen.iter().all(|seen| seen.header("host") == replica.address.to_string()));
    gateway.exactly(3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_http2_replica_over_tls_is_agreed_on_by_alpn() {
    let authority = Authority::new();
    let (replica, mut told) = h2_echo(Some(authority.server("replica.test", None))).await;
    let tls = tls(&authority.ca(), "server_name: replica.test");
    let deployment = format!("replicas: [\"https://{}\"], protocol: h2, {tls}", replica.address);
    let gateway = Gateway::start(&one_worker(&service_with(&deployment))).await;
    assert_eq!(gateway.score("iris", Some(KEY), "encrypted").await.text(), "encrypted");
    assert_eq!(told.recv().await.unwrap().uri.scheme_str(), Some("https"));
    gateway.exactly(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_an_http2_replica_resets_is_a_502_and_the_next_one_is_not() {
    let replica = Upstream::h2(None, |request, mut respond| async move {
        if request.headers().contains_key("x-reset") {
            respond.send_reset(h2::Reason::INTERNAL_ERROR);
        } else {
            let mut answer = respond.send_response(Response::new(()), false).unwrap();
            let _ = answer.send_data(Bytes::from_static(b"fine"), true);
        }
    })
    .await;
    let gateway = Gateway::start(&one_worker(&h2_service(replica.address))).await;
    let reset = score_request("iris", Some(KEY), "").replace("Content-Type", "x-reset: 1\r\nContent-Type");
    for _ in 0..2 {
        let answer = gateway.call(&reset).await;
        assert_eq!((answer.status, answer.reason()), (502, "upstream_reset"));
        assert_eq!(gateway.score("iris", Some(KEY), "").await.text(), "fine");
    }
    gateway.exactly(4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_last_piece_of_an_http2_replicas_answer_is_no_chunk_for_an_http1_client() {
    let replica = Upstream::h2(None, |_, mut respond| async move {
        let mut answer = respond.send_response(Response::new(()), false).unwrap();
        for (piece, is_last) in [("one", false), ("two", false), ("", true)] {
            let _ = answer.send_data(Bytes::from_static(piece.as_bytes()), is_last);
        }
    })
    .await;
    let gateway = Gateway::start(&one_worker(&h2_service(replica.address))).await;
    let mut connection = gateway.connect().await;
    for _ in 0..2 {
        connection.send(score_request("iris", Some(KEY), "")).await;
        let answer = connection.answer().await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "onetwo"));
        assert_eq!(answer.header("transfer-encoding"), "chunked");
    }
}
