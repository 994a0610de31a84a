//! The plain port for operators and probes: metrics, liveness, readiness, and what configuration runs.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::lifecycle::{self, Phase, PhaseReceiver};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::{Format, StoreState};

use super::publish::Publisher;
use super::reload::Reloader;

/// Longest wait for a request head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections at once: scrapers and probes are few, and this port must not eat the data plane's descriptors.
const MAX_CONNECTIONS: usize = 64;

/// What the observe port tells about.
pub struct Observe {
    /// Rendered by `/metrics`.
    pub metrics: Arc<Metrics>,
    /// Shown by `/config/status`.
    pub reloader: Arc<Reloader>,
    /// Whose replicas `/readyz?verbose` counts.
    pub publisher: Arc<Publisher>,
    /// Decides `/readyz`.
    pub phases: PhaseReceiver,
    /// Told by `/readyz?verbose`; `None`: there is no management plane.
    pub store: Option<StoreHealth>,
}

/// Whether the store of the management plane answered when it was last asked.
#[derive(Clone, Debug)]
pub struct StoreHealth(Arc<AtomicBool>);

/// It was opened when the process started.
impl Default for StoreHealth {
    fn default() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }
}

impl StoreHealth {
    /// Notes how it is; returns how it was.
    #[must_use]
    pub fn set(&self, state: StoreState) -> StoreState {
        let was_up = self.0.swap(state == StoreState::Up, Ordering::Relaxed);
        if was_up { StoreState::Up } else { StoreState::Down }
    }

    fn is_up(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Observe {
    /// Serves on `listener`; never returns. Stays until the process ends, so that a drain can be watched.
    pub async fn serve(self, listener: TcpListener) {
        let observe = Arc::new(self);
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let connection = match listener.accept().await {
                Ok((connection, _)) => connection,
                Err(error) => {
                    tracing::warn!(%error, "observe port: accept failed");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let observe = Arc::clone(&observe);
            lifecycle::spawn("observe connection", async move {
                let service = service_fn(|request| {
                    let answer = observe.answer(&request);
                    async move { Ok::<_, Infallible>(answer) }
                });
                let served = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD_TIMEOUT)
                    .max_buf_size(16 * 1024)
                    .serve_connection(TokioIo::new(connection), service);
                // A scraper that went away is no event.
                let _ = served.await;
                drop(place);
            });
        }
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "GET only\n".to_owned());
        }
        match request.uri().path() {
            "/metrics" => {
                let accepted = request.headers().get_all(header::ACCEPT);
                let format = Format::accepted(accepted.iter().filter_map(|value| value.to_str().ok()));
                let mut response = text(StatusCode::OK, self.metrics.render_as(format));
                let content_type = HeaderValue::from_static(format.content_type());
                response.headers_mut().insert(header::CONTENT_TYPE, content_type);
                response
            }
            "/livez" => text(StatusCode::OK, "ok\n".to_owned()),
            "/readyz" | "/healthz" => self.readiness(Detail::asked(request.uri().query())),
            "/config/status" => self.config_status(),
            _ => text(StatusCode::NOT_FOUND, "/metrics, /livez, /readyz, /config/status\n".to_owned()),
        }
    }

    /// In the manner of the Kubernetes API server: `ok`, or one line per check.
    fn readiness(&self, detail: Detail) -> Response<Full<Bytes>> {
        let phase = *self.phases.borrow();
        let ready = phase == Phase::Running;
        let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        if ready && detail == Detail::Verdict {
            return text(status, "ok\n".to_owned());
        }
        let config = self.reloader.status();
        let mut body = String::new();
        let mut check = |passed: bool, name: &str, note: String| {
            let sign = if passed { '+' } else { '-' };
            let _ = writeln!(body, "[{sign}]{name} {note}");
        };
        check(ready, "lifecycle", format!("{phase:?}").to_lowercase());
        check(true, "snapshot", format!("generation {}", config.generation));
        // Told, not judged: a refused reload leaves a gateway that serves well.
        check(
            config.error.is_none(),
            "config",
            config.error.as_ref().map_or("ok", |_| "last reload refused, the old one serves").to_owned(),
        );
        // The same: scoring needs no store.
        if let Some(store) = &self.store {
            let note = if store.is_up() { "ok" } else { "unavailable: changes are refused, scoring goes on" };
            check(store.is_up(), "store", note.to_owned());
        }
        // The same: a model that is not ready is no fault of the gateway, and other services are served.
        if detail == Detail::Checks {
            for (deployment, serving, all) in self.replicas() {
                check(serving > 0, &format!("replicas {deployment}"), format!("{serving} of {all} ready"));
            }
        }
        body.push_str(if ready { "readyz check passed\n" } else { "readyz check failed\n" });
        text(status, body)
    }

    /// Per deployment, as `SERVICE/DEPLOYMENT`: how many of its replicas may take calls, and how many there are.
    fn replicas(&self) -> Vec<(String, usize, usize)> {
        let snapshot = self.publisher.published().load_full();
        let deployments = snapshot.services.iter().flat_map(|service| {
            service.deployments.iter().map(|deployment| {
                let name = format!("{}/{}", service.settings.name, deployment.name);
                (name, deployment.replicas.serving(), deployment.replicas.members().len())
            })
        });
        deployments.collect()
    }

    fn config_status(&self) -> Response<Full<Bytes>> {
        let status = self.reloader.status();
        let body = serde_json::json!({
            "generation": status.generation,
            "runningHash": status.running_hash,
            "fileHash": status.file_hash,
            "appliedAt": rfc3339(status.applied_at),
            "checkedAt": rfc3339(status.checked_at),
            "error": status.error,
        });
        let mut response = text(StatusCode::OK, format!("{body}\n"));
        let content_type = HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        response
    }
}

/// How much `/readyz` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Detail {
    /// `ok`, or the checks if one fails.
    Verdict,
    /// A line per check.
    Checks,
}

impl Detail {
    /// `?verbose`, as the Kubernetes API server takes it.
    fn asked(query: Option<&str>) -> Self {
        let is_verbose = |part: &str| part.split('=').next() == Some("verbose");
        if query.is_some_and(|query| query.split('&').any(is_verbose)) { Self::Checks } else { Self::Verdict }
    }
}

/// Binds the observe port.
///
/// # Errors
/// The address cannot be had.
pub async fn bind(address: SocketAddr) -> std::io::Result<(SocketAddr, TcpListener)> {
    let listener = TcpListener::bind(address).await?;
    Ok((listener.local_addr()?, listener))
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

fn rfc3339(time: SystemTime) -> String {
    OffsetDateTime::from(time).format(&Rfc3339).unwrap_or_default()
}
