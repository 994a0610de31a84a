//! HTTP/1.1: reuse, framing, faults of either side, deadlines.

use super::*;
use crate::tls::{ClientTlsSource, client_config, development_certificates};

const H1: ReplicaProtocol = ReplicaProtocol::H1;

/// Calls once, with a replica that reads the request, answers with these bytes and closes.
async fn once(request: Request<Body>, end: &str, answer: &[u8]) -> Result<Response<Body>, Error> {
    let (listener, replica) = listen(H1).await;
    let pools = Pools::new();
    let script = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        read_until(&mut socket, end).await;
        socket.write_all(answer).await.unwrap();
    };
    let (response, ()) = tokio::join!(call(&pools, &replica, request), script);
    if response.is_err() {
        assert_eq!(pools.idle(), 0);
    }
    response
}

async fn answered(answer: &str) -> Result<Response<Body>, Error> {
    once(post(Body::full("hi")), "hi", answer.as_bytes()).await
}

#[tokio::test(flavor = "local")]
async fn two_calls_share_a_connection() {
    let (listener, replica) = listen(H1).await;
    let pools = Pools::new();
    let script = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        for _ in 0..2 {
            let request = read_until(&mut socket, "hi").await;
            assert_eq!(
                request,
                "POST /score?x=1 HTTP/1.1\r\nhost: iris.example\r\ncontent-length: 2\r\n\r\nhi"
            );
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: b\r\n\r\nok";
            socket.write_all(answer).await.unwrap();
        }
        socket
    };
    let calls = async {
        for first in [true, false] {
            let connection = pools.connection(&replica, &DEADLINES).await.unwrap();
            assert_eq!(connection.connect_time().is_some(), first);
            let response = connection.send(post(Body::full("hi")), &DEADLINES).await.unwrap();
            assert_eq!(response.headers().len(), 1);
            assert!(response.body().is_buffered());
            assert_eq!(pools.idle(), 1);
            assert_eq!(text(response).await.unwrap(), "ok");
        }
    };
    tokio::join!(script, calls);
}

#[tokio::test(flavor = "local")]
async fn a_replica_that_says_close_is_connected_to_anew() {
    let (listener, replica) = listen(H1).await;
    let pools = Pools::new();
    let script = async {
        for _ in 0..2 {
            let (mut socket, _) = listener.accept().await.unwrap();
            read_until(&mut socket, "hi").await;
            let answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";
            socket.write_all(answer).await.unwrap();
            closes(&mut socket).await;
        }
    };
    let calls = async {
        for _ in 0..2 {
            let response = call(&pools, &replica, post(Body::full("hi"))).await.unwrap();
            assert_eq!(text(response).await.unwrap(), "ok");
            assert_eq!(pools.idle(), 0);
        }
    };
    tokio::join!(script, calls);
}

#[tokio::test(flavor = "local")]
async fn answers_are_read_by_their_framing() {
    for (answer, body) in [
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "abc"),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n1\r\nf\r\n0\r\n\r\n",
            "abcdef",
        ),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", ""),
        ("HTTP/1.1 200 OK\r\n\r\nuntil the end", "until the end"),
        ("HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc", "abc"),
        ("HTTP/1.1 204 No Content\r\n\r\n", ""),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", ""),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na",
            "a",
        ),
    ] {
        let response = answered(answer).await.unwrap();
        assert_eq!(text(response).await.unwrap(), body, "{answer}");
    }
    let head = Request::head("/").header("host", "h").body(Body::empty()).unwrap();
    let response = once(head, "\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n").await;
    assert_eq!(text(response.unwrap()).await.unwrap(), "");
}

#[tokio::test(flavor = "local")]
async fn a_get_has_no_framing_field_and_an_empty_post_has() {
    let (listener, replica) = listen(H1).await;
    let pools = Pools::new();
    let script = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
        let get = read_until(&mut socket, "\r\n\r\n").await;
        assert_eq!(get, "GET / HTTP/1.1\r\nhost: h\r\n\r\n");
        socket.write_all(answer).await.unwrap();
        let post = read_until(&mut socket, "\r\n\r\n").await;
        assert!(post.contains("content-length: 0\r\n"), "{post}");
        socket.write_all(answer).await.unwrap();
        socket
    };
    let calls = async {
        let get = Request::get("/").header("host", "h").body(Body::empty()).unwrap();
        call(&pools, &replica, get).await.unwrap();
        call(&pools, &replica, post(Body::empty())).await.unwrap();
    };
    tokio::join!(script, calls);
}

#[tokio::test(flavor = "local")]
async fn odd_answers_are_protocol_violations() {
    let interim = "HTTP/1.1 103 x\r\n\r\n".repeat(1000);
    let long = format!("HTTP/1.1 200 OK\r\na: {}\r\n\r\n", "b".repeat(1 << 20));
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        "HTTP/1.1 99\r\n\r\n",
        "SSH-2.0-x\r\n",
        &interim,
        &long[..100_000],
    ] {
        let kind = answered(answer).await.unwrap_err().kind;
        assert_eq!(kind, Kind::UpstreamProtocol, "{}", &answer[..20.min(answer.len())]);
    }
}

#[tokio::test(flavor = "local")]
async fn truncated_answers_are_never_a_clean_end() {
    for answer in ["", "HTTP/1.1 200", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n"] {
        let error = answered(answer).await.unwrap_err();
        assert_eq!(error.kind, Kind::UpstreamReset, "{answer}");
        assert!(!error.message.contains("127.0.0.1"));
    }
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n",
    ] {
        let response = answered(answer).await.unwrap();
        assert_eq!(text(response).await.unwrap_err().kind, Kind::UpstreamReset, "{answer}");
    }
    let response =
        answered("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\nx").await;
    assert_eq!(text(response.unwrap()).await.unwrap_err().kind, Kind::UpstreamProtocol);
}

#[tokio::test(flavor = "local")]
async fn bytes_after_an_answer_never_reach_the_next_call() {
    let evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    for at_once in [true, false] {
        let (listener, replica) = listen(H1).await;
        let pools = Pools::new();
        let (said, mut heard) = tokio::sync::mpsc::channel::<()>(1);
        let script = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            read_until(&mut socket, "hi").await;
            let mut answer = String::from("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            if at_once {
                answer.push_str(evil);
                socket.write_all(answer.as_bytes()).await.unwrap();
            } else {
                socket.write_all(answer.as_bytes()).await.unwrap();
                heard.recv().await;
                socket.write_all(evil.as_bytes()).await.unwrap();
            }
            closes(&mut socket).await;
            let (mut socket, _) = listener.accept().await.unwrap();
            read_until(&mut socket, "hi").await;
            socket.write_all(&answer.as_bytes()[..40]).await.unwrap();
        };
        let calls = async {
            for _ in 0..2 {
                let response = call(&pools, &replica, post(Body::full("hi"))).await.unwrap();
                assert_eq!(text(response).await.unwrap(), "ok");
                let _ = said.try_send(());
                // The unasked bytes have arrived once the pool notices.
                while pools.idle() > 0 {
                    tokio::task::yield_now().await;
                    pools.sweep(Instant::now());
                }
            }
        };
        tokio::join!(script, async { tokio::time::timeout(DEADLINES.connect, calls).await.unwrap() });
    }
}

#[tokio::test(flavor = "local")]
async fn a_connection_that_was_closed_is_not_used() {
    let (listener, replica) = listen(H1).await;
    let pools = Pools::new();
    let taken = tokio::sync::Notify::new();
    let script = async {
        for _ in 0..2 {
            let (mut socket, _) = listener.accept().await.unwrap();
            read_until(&mut socket, "hi").await;
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
            socket.write_all(answer).await.unwrap();
            taken.notified().await;
        }
    };
    let calls = async {
        call(&pools, &replica, post(Body::full("hi"))).await.unwrap();
        assert_eq!(pools.idle(), 1);
        let stale = pools.connection(&replica, &DEADLINES).await.unwrap();
        let Transport::H1(mut lease) = stale.transport else {
            panic!("an HTTP/1.1 connection");
        };
        taken.notify_one();
        while lease.is_quiet() {
            tokio::task::yield_now().await;
        }
        let failure = lease.send(post(Body::full("hi")), &DEADLINES, &()).await.unwrap_err();
        assert_eq!(failure.error.kind, Kind::UpstreamReset);
        let again = *failure.unsent.unwrap();
        assert_eq!(again.uri(), "/score?x=1");
        let response = call(&pools, &replica, again).await.unwrap();
        assert_eq!(text(response).await.unwrap(), "ok");
        taken.notify_one();
    };
    tokio::join!(script, calls);
}

#[tokio::test(flavor = "local")]
async fn bodies_of_unknown_length_go_in_chunks_with_their_trailers() {
    let (listener, replica) = listen(H1).await;
    let pools = Pools::new();
    let script = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        let request = read_until(&mut socket, "x-sum: 1\r\n\r\n").await;
        assert!(
            request
                .ends_with("transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nx-sum: 1\r\n\r\n")
        );
        let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx-sum: 2\r\n\r\n";
        socket.write_all(answer).await.unwrap();
        socket
    };
    let trailers =
        HeaderMap::from_iter([(http::HeaderName::from_static("x-sum"), http::HeaderValue::from_static("1"))]);
    let body = pieces([data("abc"), data(""), data("de"), Ok(Frame::trailers(trailers))]);
    let calls = async {
        let response = call(&pools, &replica, post(body)).await.unwrap();
        let (body, trailers) = read(response).await.unwrap();
        assert_eq!(body, "a");
        assert_eq!(trailers.unwrap()["x-sum"], "2");
        assert_eq!(pools.idle(), 1);
    };
    tokio::join!(script, calls);
}

#[tokio::test(flavor = "local")]
async fn an_answer_before_the_request_is_sent_is_passed_on() {
    let (listener, replica) = listen(H1).await;
    let pools = Pools::new();
    let (feed, body) = fed();
    let script = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        read_until(&mut socket, "abc\r\n").await;
        let answer = b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig";
        socket.write_all(answer).await.unwrap();
        closes(&mut socket).await;
    };
    let calls = async {
        feed.send(data("abc")).unwrap();
        let response = call(&pools, &replica, post(body)).await.unwrap();
        assert_eq!(response.status(), 413);
        assert_eq!(text(response).await.unwrap(), "big");
        assert_eq!(pools.idle(), 0);
        assert!(feed.is_closed());
    };
    tokio::join!(script, calls);
}

#[tokio::test(flavor = "local")]
async fn both_directions_stream_at_once() {
    let (listener, replica) = listen(H1).await;
    let pools = Pools::new();
    let (feed, body) = fed();
    let script = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        read_until(&mut socket, "one\r\n").await;
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nONE\r\n";
        socket.write_all(head).await.unwrap();
        read_until(&mut socket, "two\r\n0\r\n\r\n").await;
        socket.write_all(b"3\r\nTWO\r\n0\r\n\r\n").await.unwrap();
        socket
    };
    let calls = async {
        feed.send(data("one")).unwrap();
        let mut response = call(&pools, &replica, post(body)).await.unwrap();
        let first = response.body_mut().frame().await.unwrap().unwrap();
        assert_eq!(first.into_data().unwrap(), "ONE");
        feed.send(data("two")).unwrap();
        drop(feed);
        assert_eq!(text(response).await.unwrap(), "TWO");
        assert_eq!(pools.idle(), 1);
    };
    tokio::join!(script, calls);
}

#[tokio::test(flavor = "local")]
async fn large_bodies_stream_both_ways_under_back_pressure() {
    const PIECE: usize = 50_000;
    const COUNT: usize = 400;
    let (listener, replica) = listen(H1).await;
    let pools = Pools::new();
    let pulled = std::rc::Rc::new(std::cell::Cell::new(0));
    let counter = std::rc::Rc::clone(&pulled);
    let source = futures_util::stream::iter((0..COUNT).map(move |number| {
        counter.set(counter.get() + 1);
        Ok(Frame::data(Bytes::from(vec![u8::try_from(number % 251).unwrap(); PIECE])))
    }));
    let (go, gone) = tokio::sync::oneshot::channel::<()>();
    let script = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        gone.await.unwrap();
        let (mut reader, mut writer) = socket.split();
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        writer.write_all(head).await.unwrap();
        // The request's own chunks are the answer's.
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(reader.read_u8().await.unwrap());
        }
        tokio::io::copy(&mut reader, &mut writer).await.unwrap();
    };
    let calls = async {
        let sending = call(&pools, &replica, post(Body::stream(StreamBody::new(source))));
        let watch = async {
            // Stalls when the kernel's buffers are full, long before the source is at its end.
            let mut last = (0, 0);
            while last.1 < 1000 {
                tokio::task::yield_now().await;
                last = if pulled.get() == last.0 { (last.0, last.1 + 1) } else { (pulled.get(), 0) };
            }
            assert!(pulled.get() < COUNT, "no back-pressure");
            go.send(()).unwrap();
        };
        let (response, ()) = tokio::join!(sending, watch);
        let mut body = response.unwrap().into_body();
        let mut length = 0;
        while let Some(frame) = body.frame().await {
            for byte in frame.unwrap().into_data().unwrap() {
                assert_eq!(usize::from(byte), (length / PIECE) % 251);
                length += 1;
            }
        }
        assert_eq!(length, PIECE * COUNT);
        assert_eq!(pools.idle(), 1);
        pools.sweep(Instant::now() + Duration::from_secs(100));
    };
    tokio::join!(script, calls);
}

#[tokio::test(flavor = "local")]
async fn a_fault_of_the_clients_body_stays_the_clients() {
    for kind in [Kind::BodyTooLarge, Kind::ClientGone] {
        let (listener, replica) = listen(H1).await;
        let pools = Pools::new();
        let script = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            closes(&mut socket).await;
        };
        let body = pieces([data("abc"), Err(Error::new(kind, "too bad"))]);
        let (result, ()) = tokio::join!(call(&pools, &replica, post(body)), script);
        let error = result.unwrap_err();
        assert_eq!((error.kind, &*error.message), (kind, "too bad"));
    }
}

#[tokio::test(flavor = "local")]
async fn waits_end_at_their_own_deadlines() {
    let (listener, replica) = listen(H1).await;
    let pools = Pools::new();
    let script = async {
        let (mut silent, _) = listener.accept().await.unwrap();
        closes(&mut silent).await;
        let (mut pausing, _) = listener.accept().await.unwrap();
        read_until(&mut pausing, "hi").await;
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc";
        pausing.write_all(answer).await.unwrap();
        closes(&mut pausing).await;
    };
    let calls = async {
        let connection = pools.connection(&replica, &DEADLINES).await.unwrap();
        let first_byte = Deadlines { first_byte: SOON, ..DEADLINES };
        let failure = connection.send(post(Body::full("hi")), &first_byte).await.unwrap_err();
        assert_eq!(failure.error.kind, Kind::UpstreamTimeout);
        assert!(failure.error.message.contains("limits.scoring_timeout (20ms)"));
        assert!(failure.unsent.is_none());
        let connection = pools.connection(&replica, &DEADLINES).await.unwrap();
        let idle = Deadlines { idle: SOON, ..DEADLINES };
        let response = connection.send(post(Body::full("hi")), &idle).await.unwrap();
        let error = text(response).await.unwrap_err();
        assert_eq!(error.kind, Kind::UpstreamTimeout);
        assert!(error.message.contains("limits.idle_timeout (20ms)"));
    };
    tokio::join!(script, calls);
}

#[tokio::test(flavor = "local")]
async fn a_slow_client_is_not_the_replicas_fault() {
    let (listener, replica) = listen(H1).await;
    let pools = Pools::new();
    let (feed, body) = fed();
    let script = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        read_until(&mut socket, "abc\r\n0\r\n\r\n").await;
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        socket.write_all(answer).await.unwrap();
        socket
    };
    let first_byte = Deadlines { first_byte: SOON * 10, ..DEADLINES };
    let calls = async {
        let connection = pools.connection(&replica, &DEADLINES).await.unwrap();
        let mut sending = std::pin::pin!(connection.send(post(body), &first_byte));
        let pause = tokio::time::timeout(SOON * 20, sending.as_mut()).await;
        assert!(pause.is_err(), "the deadline ran while the client had the turn");
        feed.send(data("abc")).unwrap();
        drop(feed);
        assert_eq!(text(sending.await.unwrap()).await.unwrap(), "ok");
    };
    tokio::join!(script, calls);
}

#[tokio::test(flavor = "local")]
async fn dropping_a_call_closes_its_connection() {
    let (listener, replica) = listen(H1).await;
    let pools = Pools::new();
    let script = async {
        for answer in [&b""[..], b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc"] {
            let (mut socket, _) = listener.accept().await.unwrap();
            read_until(&mut socket, "hi").await;
            socket.write_all(answer).await.unwrap();
            closes(&mut socket).await;
        }
    };
    let calls = async {
        let waiting = call(&pools, &replica, post(Body::full("hi")));
        assert!(tokio::time::timeout(SOON, waiting).await.is_err());
        let response = call(&pools, &replica, post(Body::full("hi"))).await.unwrap();
        assert!(!response.body().is_buffered());
        drop(response);
    };
    tokio::join!(script, calls);
    assert_eq!(pools.idle(), 0);
}

#[tokio::test(flavor = "local")]
async fn failures_to_connect_say_so_without_the_address() {
    let (listener, replica) = listen(H1).await;
    drop(listener);
    let error = call(&Pools::new(), &replica, post(Body::empty())).await.unwrap_err();
    assert_eq!(error.kind, Kind::ConnectFailed);
    assert!(!error.message.contains("127.0.0.1"));
    assert!(error.detail.unwrap().contains("127.0.0.1"));
}

#[tokio::test(flavor = "local")]
async fn a_replica_that_does_not_speak_tls_fails_to_connect() {
    let (listener, plain) = listen(H1).await;
    let dir = tempfile::tempdir().unwrap();
    let certificates = development_certificates(dir.path(), &["localhost"]).unwrap();
    let source = ClientTlsSource { ca: Some(certificates.ca), ..ClientTlsSource::default() };
    let client = client_config(&source).unwrap();
    let replica = Replica::new(ReplicaSettings {
        tls: Some(ReplicaTls { client, server_name: "localhost".try_into().unwrap() }),
        ..plain.settings().clone()
    });
    let pools = Pools::new();
    let connect = |deadlines: Deadlines| {
        let (pools, replica) = (&pools, &replica);
        async move { pools.connection(replica, &deadlines).await.err().unwrap() }
    };
    let script = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        socket.write_all(answer).await.unwrap();
        closes(&mut socket).await;
    };
    let (error, ()) = tokio::join!(connect(DEADLINES), script);
    assert_eq!(error.kind, Kind::ConnectFailed);
    assert!(error.message.contains("TLS"), "{error}");
    let soon = Deadlines { connect: SOON, ..DEADLINES };
    let error = connect(soon).await;
    assert_eq!(error.kind, Kind::ConnectFailed);
    assert!(error.message.contains("connect_timeout (20ms)"), "{error}");
}

#[tokio::test(flavor = "local")]
async fn sweeping_closes_old_connections_and_forgets_gone_replicas() {
    let (listener, replica) = listen(H1).await;
    let pools = Pools::new();
    let script = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        read_until(&mut socket, "hi").await;
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        socket.write_all(answer).await.unwrap();
        socket
    };
    let (result, _socket) = tokio::join!(call(&pools, &replica, post(Body::full("hi"))), script);
    result.unwrap();
    let start = Instant::now();
    pools.sweep(start + Duration::from_secs(50));
    assert_eq!((pools.idle(), pools.replicas()), (1, 1));
    pools.sweep(start + Duration::from_secs(56));
    assert_eq!((pools.idle(), pools.replicas()), (0, 1));
    drop(replica);
    pools.sweep(start + Duration::from_secs(57));
    assert_eq!(pools.replicas(), 0);
}
