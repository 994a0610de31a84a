//! Owns the demo's model container: an HTTP/1.1 server on loopback that closes each connection after one
//! answer, as the stock Azure ML inference server does. What it answers is `contract`'s part.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::contract;
use super::model::Model;

/// Connections served at once; more wait in the listen queue.
const CONNECTION_LIMIT: usize = 256;
/// From accept to the last header byte.
const HEADER_DEADLINE: Duration = Duration::from_secs(10);
/// From accept to the close: one connection carries one call, so this bounds slow bodies and slow readers
/// alike.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(60);
/// From the shutdown to the end of the calls in flight.
const DRAIN_DEADLINE: Duration = Duration::from_secs(5);
/// Before the next accept after one has failed (out of file descriptors, most likely).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// A bound model container that is not serving yet.
#[derive(Debug)]
pub struct Container {
    listener: TcpListener,
    address: SocketAddr,
    model: Arc<Model>,
}

/// Binds a container to a free port of 127.0.0.1.
///
/// # Errors
/// No port can be had.
pub async fn bind() -> io::Result<Container> {
    let model = Arc::new(Model::load()?);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    Ok(Container { listener, address, model })
}

impl Container {
    /// Where it listens; connections are queued from [`bind`] on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` is ready, then refuses connections and ends within 5 s. It spawns no task: the
    /// connections live in this future, and dropping it cuts them.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) {
        let (serving, stopped) = watch::channel(());
        let mut connections = FuturesUnordered::new();
        let mut shutdown = pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                Some(()) = connections.next() => {}
                accepted = self.listener.accept(), if connections.len() < CONNECTION_LIMIT => match accepted {
                    Ok((stream, _)) => {
                        connections.push(connection(stream, Arc::clone(&self.model), stopped.clone()));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the demo's container cannot accept a connection");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        drop(self.listener);
        drop(serving);
        let drained = async { while connections.next().await.is_some() {} };
        if timeout(DRAIN_DEADLINE, drained).await.is_err() {
            tracing::warn!(cut = connections.len(), "the demo's container cuts its last calls");
        }
    }
}

/// One connection from accept to close. `stopped` reports an error, and so wakes, when the sender is gone.
async fn connection(stream: TcpStream, model: Arc<Model>, mut stopped: watch::Receiver<()>) {
    let service = service_fn(|request| {
        let model = Arc::clone(&model);
        async move { Ok::<_, Infallible>(contract::answer(&model, request).await) }
    });
    let serving = http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_DEADLINE)
        .serve_connection(TokioIo::new(stream), service);
    let mut serving = pin!(serving);
    let call = async {
        tokio::select! {
            ended = serving.as_mut() => ended,
            _ = stopped.changed() => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        }
    };
    match timeout(CONNECTION_DEADLINE, call).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection to the demo's container ended early"),
        Err(_) => tracing::debug!("a connection to the demo's container took too long"),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::oneshot;
    use tokio::task::JoinHandle;

    use super::*;

    const GOOD: &str = r#"{"data": [[5.1, 3.5, 1.4, 0.2], [7.0, 3.2, 4.7, 1.4], [6.3, 3.3, 6.0, 2.5]]}"#;

    /// A container that serves, and what ends it.
    struct Running {
        address: SocketAddr,
        shutdown: oneshot::Sender<()>,
        ended: JoinHandle<()>,
    }

    async fn start() -> Running {
        let container = bind().await.unwrap();
        let (shutdown, stopped) = oneshot::channel();
        let address = container.address();
        let ended = tokio::spawn(container.serve(async { stopped.await.unwrap_or_default() }));
        Running { address, shutdown, ended }
    }

    /// An answer taken apart: status line, header lines in lower case, body.
    #[derive(Debug)]
    struct Received {
        status: u16,
        headers: Vec<(String, String)>,
        body: String,
    }

    impl Received {
        fn header(&self, name: &str) -> Option<&str> {
            self.headers.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
        }

        fn message(&self) -> String {
            let body: serde_json::Value = serde_json::from_str(&self.body).unwrap();
            body["message"].as_str().unwrap().to_owned()
        }
    }

    /// Writes the request and reads until the server closes, which it must do after each answer.
    async fn exchange(address: SocketAddr, request: &[u8]) -> Received {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut bytes = Vec::new();
        timeout(Duration::from_secs(30), stream.read_to_end(&mut bytes))
            .await
            .expect("the server closes")
            .unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers =
            lines.map(|line| line.split_once(": ").unwrap()).map(|(n, v)| (n.to_lowercase(), v.to_owned()));
        Received { status, headers: headers.collect(), body: body.to_owned() }
    }

    async fn call(address: SocketAddr, line: &str, headers: &str, body: &str) -> Received {
        let length = body.len();
        let request =
            format!("{line} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {length}\r\n\r\n{body}");
        let received = exchange(address, request.as_bytes()).await;
        assert_eq!(received.header("connection"), Some("close"), "{line}");
        received
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_post_of_three_flowers_names_their_species() {
        let server = start().await;
        let received = call(server.address, "POST /score", "Content-Type: application/json\r\n", GOOD).await;
        assert_eq!(received.status, 200);
        assert_eq!(received.header("content-type"), Some("application/json"));
        assert_eq!(received.header("x-ms-run-function-failed"), Some("False"));
        assert!(received.header("x-ms-run-fn-exec-ms").unwrap().parse::<f64>().unwrap() >= 0.0);
        assert_eq!(
            received.header("x-ms-server-version"),
            Some(concat!("scoregate-demo/", env!("CARGO_PKG_VERSION")))
        );
        let answer: serde_json::Value = serde_json::from_str(&received.body).unwrap();
        assert_eq!(answer["species"], serde_json::json!(["setosa", "versicolor", "virginica"]));
        assert_eq!(answer["probabilities"][2].as_array().unwrap().len(), 3);
    }

    #[tokio::test]
    async fn a_chunked_body_and_an_old_client_are_served() {
        let server = start().await;
        let head = "POST /score HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
        let chunked = format!("{head}{:x}\r\n{GOOD}\r\n0\r\n\r\n", GOOD.len());
        assert_eq!(exchange(server.address, chunked.as_bytes()).await.status, 200);
        let old = format!("POST /score HTTP/1.0\r\nContent-Length: {}\r\n\r\n{GOOD}", GOOD.len());
        assert_eq!(exchange(server.address, old.as_bytes()).await.status, 200);
    }

    #[tokio::test]
    async fn a_get_scores_its_query() {
        let server = start().await;
        let received =
            call(server.address, "GET /score?data=[5.1,3.5,1.4,0.2]&data=[6.3,3.3,6,2.5]", "", "").await;
        assert_eq!(received.status, 200, "{received:?}");
        assert!(received.body.starts_with(r#"{"species":["setosa","virginica"]"#), "{}", received.body);
    }

    #[tokio::test]
    async fn bad_input_is_400_with_the_place_and_no_failure_of_the_model() {
        let server = start().await;
        let received = call(server.address, "POST /score", "", r#"{"data": [[1,2,3,4],[1,2]]}"#).await;
        assert_eq!(
            (received.status, received.message().as_str()),
            (400, "data[1]: expected 4 numbers, found 2")
        );
        assert_eq!(received.header("x-ms-run-function-failed"), Some("False"));
        let request = b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n\xff\xfe";
        let received = exchange(server.address, request).await;
        assert_eq!(received.status, 400);
        assert!(received.message().starts_with("Input cannot be decoded as UTF-8: "), "{received:?}");
    }

    #[tokio::test]
    async fn health_is_html_and_also_answers_head() {
        let server = start().await;
        let received = call(server.address, "GET /", "", "").await;
        assert_eq!((received.status, received.body.as_str()), (200, "Healthy"));
        assert_eq!(received.header("content-type"), Some("text/html; charset=utf-8"));
        assert_eq!(received.header("x-ms-run-function-failed"), None);
        let received = call(server.address, "HEAD /", "", "").await;
        assert_eq!((received.status, received.body.as_str()), (200, ""));
        assert_eq!(received.header("content-length"), Some("7"));
    }

    #[tokio::test]
    async fn the_router_refuses_without_ids_and_the_score_handler_with_them() {
        let server = start().await;
        for (line, status, identified) in [
            ("GET /nope", 404, false),
            ("POST /score/", 404, false),
            ("PUT /score", 405, false),
            ("POST /", 405, false),
            ("HEAD /score", 405, true),
            ("OPTIONS /score", 200, true),
            ("OPTIONS /", 200, true),
            ("GET /swagger.json?version=4", 404, true),
        ] {
            let received = call(server.address, line, "", "").await;
            assert_eq!(received.status, status, "{line}");
            assert_eq!(received.header("x-request-id").is_some(), identified, "{line}");
            assert_eq!(received.header("x-ms-server-version").is_some(), identified, "{line}");
        }
        assert_eq!(
            call(server.address, "PUT /score", "", "").await.header("allow"),
            Some("GET, HEAD, OPTIONS, POST")
        );
    }

    #[tokio::test]
    async fn swagger_comes_in_the_version_asked_for() {
        let server = start().await;
        for (target, start) in
            [("/swagger.json", r#"{"swagger":"2.0""#), ("/swagger.json?version=3", r#"{"openapi":"3.0.3""#)]
        {
            let received = call(server.address, &format!("GET {target}"), "", "").await;
            assert_eq!((received.status, received.header("content-type")), (200, Some("application/json")));
            assert!(received.body.starts_with(start), "{target}: {}", received.body);
        }
        let received = call(server.address, "GET /swagger.json?version=4", "", "").await;
        assert_eq!(received.message(), "Swagger version [4] is not valid. Supported versions: [2, 3, 3.1].");
    }

    #[tokio::test]
    async fn ids_are_echoed_and_made_where_absent() {
        let server = start().await;
        for (given, request, client, legacy) in [
            ("X-Request-Id: r\r\n", "r", None, "r"),
            ("X-Request-Id: r\r\nX-MS-Client-Request-Id: c\r\n", "r", Some("c"), "c"),
            ("X-Request-Id: r\r\nX-MS-Request-Id: l\r\n", "r", Some("l"), "l"),
            ("X-Request-Id: r\r\nX-MS-Request-Id: l\r\nX-MS-Client-Request-Id: c\r\n", "r", Some("c"), "l"),
        ] {
            let received = call(server.address, "POST /score", given, GOOD).await;
            assert_eq!(received.header("x-request-id"), Some(request), "{given}");
            assert_eq!(received.header("x-ms-client-request-id"), client, "{given}");
            assert_eq!(received.header("x-ms-request-id"), Some(legacy), "{given}");
        }
        let received = call(server.address, "GET /", "TraceId: t\r\n", "").await;
        let made = received.header("x-request-id").unwrap();
        assert!(uuid::Uuid::try_parse(made).is_ok(), "{made}");
        assert_eq!(received.header("x-ms-request-id"), Some(made));
        assert_eq!(received.header("traceid"), Some("t"));
    }

    #[tokio::test]
    async fn an_id_over_100_bytes_is_431_and_not_given_back() {
        let server = start().await;
        let long = "a".repeat(101);
        let received = call(server.address, "GET /", &format!("X-Request-Id: {long}\r\n"), "").await;
        assert_eq!(received.status, 431);
        assert_eq!(received.message(), "x-request-id must not exceed 100 characters");
        assert_eq!((received.header("x-request-id"), received.header("x-ms-request-id")), (None, None));
        let given = format!("X-Request-Id: r\r\nX-MS-Client-Request-Id: {long}\r\n");
        let received = call(server.address, "GET /", &given, "").await;
        assert_eq!((received.status, received.header("x-request-id")), (431, Some("r")));
        assert_eq!(
            (received.header("x-ms-request-id"), received.header("x-ms-client-request-id")),
            (None, None)
        );
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_413_even_for_a_client_that_writes_it_all_first() {
        let server = start().await;
        let received = call(server.address, "POST /score", "", &" ".repeat(7 << 20)).await;
        assert_eq!((received.status, received.message().as_str()), (413, "body: more than 1048576 bytes"));
    }

    #[tokio::test]
    async fn keep_alive_and_pipelining_are_not_granted() {
        let server = start().await;
        let request = "GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\n".repeat(2);
        let received = exchange(server.address, request.as_bytes()).await;
        assert_eq!((received.status, received.body.as_str()), (200, "Healthy"));
    }

    #[tokio::test]
    async fn shutdown_finishes_the_call_in_flight_and_refuses_new_ones() {
        let server = start().await;
        let head = format!(
            "POST /score HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
            GOOD.len()
        );
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        // The interim answer shows that the call is with the handler.
        let mut interim = [0; 25];
        stream.read_exact(&mut interim).await.unwrap();
        assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
        server.shutdown.send(()).unwrap();
        while TcpStream::connect(server.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        stream.write_all(GOOD.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        server.ended.await.unwrap();
    }
}
