//! HTTP/2: one connection for all calls, trailers, faults of either side.

use std::cell::Cell;
use std::rc::Rc;

use http::StatusCode;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use super::*;

const H2: ReplicaProtocol = ReplicaProtocol::H2;

#[derive(Clone)]
struct LocalExecutor;

impl<F: Future + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}

/// A replica that answers each path in its own way, and how many connections it has seen.
async fn serve() -> (Arc<Replica>, Rc<Cell<u32>>) {
    let (listener, replica) = listen(H2).await;
    let accepted = Rc::new(Cell::new(0));
    let count = Rc::clone(&accepted);
    tokio::task::spawn_local(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            count.set(count.get() + 1);
            let connection = hyper::server::conn::http2::Builder::new(LocalExecutor)
                .serve_connection(TokioIo::new(socket), service_fn(answer));
            tokio::task::spawn_local(connection);
        }
    });
    (replica, accepted)
}

async fn answer(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    assert_eq!(request.uri().scheme_str(), Some("http"));
    assert_eq!(request.uri().authority().unwrap(), "iris.example");
    assert!(!request.headers().contains_key("host"));
    let path = request.uri().path().to_owned();
    let body = match &*path {
        "/echo" => {
            let collected = request.into_body().collect().await;
            match collected {
                Ok(body) => Body::full(body.to_bytes()),
                Err(_) => Body::empty(),
            }
        }
        "/stream" => {
            let body = request.into_body();
            Body::stream(body.map_err(|_| Error::new(Kind::ClientGone, "gone")))
        }
        "/trailers" => {
            let trailers =
                HeaderMap::from_iter([("grpc-status", "0"), ("authorization", "x")].map(|(name, value)| {
                    (http::HeaderName::from_static(name), http::HeaderValue::from_static(value))
                }));
            pieces([data("abc"), Ok(Frame::trailers(trailers))])
        }
        "/pause" => {
            let (feed, body) = fed();
            feed.send(data("abc")).unwrap();
            tokio::task::spawn_local(async move { feed.closed().await });
            body
        }
        "/break" => pieces([data("abc"), Err(Error::new(Kind::Internal, "broken"))]),
        "/early" => {
            let mut response = Response::new(Body::full("big"));
            *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
            return Ok(response);
        }
        _ => std::future::pending().await,
    };
    Ok(Response::new(body))
}

fn to(path: &str, body: Body) -> Request<Body> {
    Request::post(path).header("host", "iris.example").header("content-length", "999").body(body).unwrap()
}

#[tokio::test(flavor = "local")]
async fn calls_share_one_connection() {
    let (replica, accepted) = serve().await;
    let pools = Pools::new();
    let calls = (0..20).map(|_| call(&pools, &replica, to("/echo", Body::full("hi"))));
    for response in futures_util::future::join_all(calls).await {
        let response = response.unwrap();
        assert!(!response.headers().contains_key("content-length"));
        assert!(response.body().is_buffered());
        assert_eq!(text(response).await.unwrap(), "hi");
    }
    assert_eq!(accepted.get(), 1);
    let connection = pools.connection(&replica, &DEADLINES).await.unwrap();
    assert_eq!(connection.connect_time(), None);
    pools.sweep(Instant::now() + Duration::from_secs(56));
    let connection = pools.connection(&replica, &DEADLINES).await.unwrap();
    assert!(connection.connect_time().is_some());
}

#[tokio::test(flavor = "local")]
async fn trailers_are_kept_and_sifted() {
    let (replica, _) = serve().await;
    let response = call(&Pools::new(), &replica, to("/trailers", Body::empty())).await;
    let (body, trailers) = read(response.unwrap()).await.unwrap();
    assert_eq!(body, "abc");
    let trailers = trailers.unwrap();
    assert_eq!(trailers["grpc-status"], "0");
    assert_eq!(trailers.len(), 1);
}

#[tokio::test(flavor = "local")]
async fn both_directions_stream_at_once() {
    let (replica, _) = serve().await;
    let (feed, body) = fed();
    feed.send(data("one")).unwrap();
    let mut response = call(&Pools::new(), &replica, to("/stream", body)).await.unwrap();
    let first = response.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(first.into_data().unwrap(), "one");
    feed.send(data("two")).unwrap();
    drop(feed);
    assert_eq!(text(response).await.unwrap(), "two");
}

#[tokio::test(flavor = "local")]
async fn large_bodies_exceed_the_windows() {
    const LENGTH: usize = 5_000_000;
    let (replica, _) = serve().await;
    let body = Body::full(vec![7; LENGTH]);
    let response = call(&Pools::new(), &replica, to("/stream", body)).await.unwrap();
    let (body, _) = read(response).await.unwrap();
    assert_eq!(body.len(), LENGTH);
}

#[tokio::test(flavor = "local")]
async fn a_fault_of_the_clients_body_stays_the_clients() {
    let (replica, _) = serve().await;
    for path in ["/echo", "/stream"] {
        let (feed, body) = fed();
        feed.send(data("abc")).unwrap();
        let feeder = async {
            tokio::time::sleep(SOON).await;
            feed.send(Err(Error::new(Kind::BodyTooLarge, "too bad"))).unwrap();
        };
        let calling = async {
            let response = call(&Pools::new(), &replica, to(path, body)).await?;
            text(response).await
        };
        let (result, ()) = tokio::join!(calling, feeder);
        assert_eq!(result.unwrap_err().kind, Kind::BodyTooLarge, "{path}");
    }
}

#[tokio::test(flavor = "local")]
async fn an_early_answer_ends_the_upload() {
    let (replica, _) = serve().await;
    let (feed, body) = fed();
    feed.send(data("abc")).unwrap();
    let response = call(&Pools::new(), &replica, to("/early", body)).await.unwrap();
    assert_eq!(response.status(), 413);
    assert_eq!(text(response).await.unwrap(), "big");
    tokio::time::timeout(DEADLINES.connect, feed.closed()).await.unwrap();
}

#[tokio::test(flavor = "local")]
async fn waits_end_at_their_own_deadlines_and_breaks_are_resets() {
    let (replica, _) = serve().await;
    let pools = Pools::new();
    let soon = Deadlines { first_byte: SOON, idle: SOON, ..DEADLINES };
    let connection = pools.connection(&replica, &DEADLINES).await.unwrap();
    let failure = connection.send(to("/never", Body::empty()), &soon).await.unwrap_err();
    assert_eq!(failure.error.kind, Kind::UpstreamTimeout);
    assert!(failure.error.message.contains("limits.scoring_timeout"));
    let connection = pools.connection(&replica, &DEADLINES).await.unwrap();
    let idle = Deadlines { idle: SOON, ..DEADLINES };
    let response = connection.send(to("/pause", Body::empty()), &idle).await.unwrap();
    let error = text(response).await.unwrap_err();
    assert!(error.message.contains("limits.idle_timeout"), "{error}");
    let broken = async { text(call(&pools, &replica, to("/break", Body::empty())).await?).await };
    assert_eq!(broken.await.unwrap_err().kind, Kind::UpstreamReset);
}

#[tokio::test(flavor = "local")]
async fn a_connection_that_ended_is_replaced() {
    let (listener, replica) = listen(H2).await;
    let pools = Pools::new();
    let script = async {
        for _ in 0..2 {
            let (socket, _) = listener.accept().await.unwrap();
            let connection = hyper::server::conn::http2::Builder::new(LocalExecutor)
                .serve_connection(TokioIo::new(socket), service_fn(answer));
            let mut connection = std::pin::pin!(connection);
            let mut served = 0;
            // Closes gracefully after the first answer.
            poll_fn(|cx| {
                served += 1;
                if served > 3 {
                    connection.as_mut().graceful_shutdown();
                }
                connection.as_mut().poll(cx)
            })
            .await
            .unwrap();
        }
    };
    let calls = async {
        let mut new = 0;
        while new < 2 {
            let connection = pools.connection(&replica, &DEADLINES).await.unwrap();
            new += u32::from(connection.connect_time().is_some());
            match connection.send(to("/echo", Body::full("hi")), &DEADLINES).await {
                Ok(response) => assert_eq!(text(response).await.unwrap(), "hi"),
                Err(failure) => {
                    assert_eq!(failure.error.kind, Kind::UpstreamReset);
                    let again = failure.unsent.unwrap();
                    assert_eq!(again.uri(), "/echo");
                    assert_eq!(again.headers()["host"], "iris.example");
                }
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINES.connect, async {
        tokio::select! {
            () = script => {}
            () = calls => {}
        }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "local")]
async fn a_replica_that_speaks_no_http2_is_an_upstream_fault() {
    let (listener, replica) = listen(H2).await;
    let pools = Pools::new();
    let script = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        closes(&mut socket).await;
    };
    let (result, ()) = tokio::join!(call(&pools, &replica, to("/echo", Body::empty())), script);
    let kind = result.unwrap_err().kind;
    assert!(matches!(kind, Kind::UpstreamProtocol | Kind::UpstreamReset | Kind::ConnectFailed), "{kind:?}");
}
