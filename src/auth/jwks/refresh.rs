//! The control plane's side of key sets: when each source is fetched.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::super::settings::JwksSource;
use super::fetch::Fetcher;
use super::{Jwks, JwksRegistry, Stage, lock, source_name};

/// Age at which a set from a URL is fetched again.
const URL_REFRESH: Duration = Duration::from_secs(300);

/// Age at which a file is read again; a changed file should count soon, and reading one is cheap.
const FILE_REFRESH: Duration = Duration::from_secs(10);

/// Pause after a failed attempt.
const RETRY: Duration = Duration::from_secs(10);

/// Fetches the key sets of `registry`, those that snapshots to come add included, until `shutdown` is done.
///
/// Belongs on the control plane's runtime; all sources share the calling task and none waits for another.
pub async fn run(registry: JwksRegistry, shutdown: impl Future<Output = ()>) {
    let mut shutdown = pin!(shutdown);
    let mut loops = FuturesUnordered::new();
    let mut served: Vec<Weak<Jwks>> = Vec::new();
    loop {
        served.retain(|jwks| jwks.strong_count() > 0);
        for jwks in registry.in_use() {
            let jwks = Arc::downgrade(&jwks);
            if !served.iter().any(|known| known.ptr_eq(&jwks)) {
                served.push(Weak::clone(&jwks));
                loops.push(keep_fresh(jwks));
            }
        }
        tokio::select! {
            () = &mut shutdown => return,
            () = registry.0.added.notified() => {}
            Some(()) = loops.next() => {}
        }
    }
}

/// Fetches one set at once and then again and again, for as long as anybody uses it.
async fn keep_fresh(jwks: Weak<Jwks>) {
    let Some((source, wanted)) = jwks.upgrade().map(|jwks| (jwks.source.clone(), Arc::clone(&jwks.wanted)))
    else {
        return;
    };
    let refresh = match source {
        JwksSource::File(_) => FILE_REFRESH,
        JwksSource::Url { .. } => URL_REFRESH,
    };
    let mut fetcher = Fetcher::new(source);
    while let Some(jwks) = jwks.upgrade() {
        let pause = match jwks.fetch_once(&mut fetcher).await {
            Outcome::Fetched => refresh,
            Outcome::Failed => RETRY,
        };
        drop(jwks);
        tokio::select! {
            () = wanted.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

enum Outcome {
    Fetched,
    Failed,
}

impl Jwks {
    async fn fetch_once(&self, fetcher: &mut Fetcher) -> Outcome {
        let _attempt = AttemptGuard::begin(self);
        let result = match fetcher.fetch().await {
            Ok(document) => self.accept(&document).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        self.note(result)
    }

    /// Keeps the outcome of an attempt, and tells the log when it is another one than last time.
    fn note(&self, result: Result<(), String>) -> Outcome {
        let source = source_name(&self.source);
        let mut progress = lock(&self.progress);
        match result {
            Ok(()) => {
                if progress.last_error.take().is_some() {
                    tracing::info!(source, "key set fetched again");
                }
                Outcome::Fetched
            }
            Err(error) => {
                if progress.last_error.as_ref() != Some(&error) {
                    let stale = self.current().is_some();
                    tracing::warn!(source, error, stale, "key set not fetched");
                }
                progress.last_error = Some(error);
                Outcome::Failed
            }
        }
    }
}

/// An attempt under way: however it ends, cancelled included, those who wait for it are told.
struct AttemptGuard<'a>(&'a Jwks);

impl<'a> AttemptGuard<'a> {
    fn begin(jwks: &'a Jwks) -> Self {
        lock(&jwks.progress).stage = Stage::Underway;
        Self(jwks)
    }
}

impl Drop for AttemptGuard<'_> {
    fn drop(&mut self) {
        lock(&self.0.progress).stage = Stage::Idle;
        self.0.attempts.send_modify(|ended| *ended += 1);
    }
}
