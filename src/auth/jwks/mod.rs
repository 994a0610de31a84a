//! Key sets of outside issuers: held for all snapshots, asked by the data plane, fetched by the control plane.
//!
//! The two planes meet in [`Jwks`] only. The data plane reads the current [`KeySet`] and may ask for a fetch and wait
//! a moment for its end; the loop in [`run`] does the fetching. A failed fetch never takes a set away.

mod fetch;
#[cfg(test)]
pub(super) mod issuer;
mod refresh;
mod set;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};

use super::settings::JwksSource;
use super::{BuildError, sha256};

pub use refresh::run;
pub(super) use set::{KeySet, Lookup, NotAKeySet};

/// How long a request may wait for a fetch when its token names a key that the set lacks.
const REFETCH_WAIT: Duration = Duration::from_secs(2);

/// Requests can bring about at most one fetch per source in this time, however many unknown keys they name.
const REFETCH_INTERVAL: Duration = Duration::from_secs(10);

/// The key sets of the process, one for each source. Clones share them.
#[derive(Clone, Default)]
pub struct JwksRegistry(Arc<Registered>);

#[derive(Default)]
struct Registered {
    /// Owned by the verifiers that use them: a set that no snapshot needs any more goes.
    sets: Mutex<Vec<Weak<Jwks>>>,
    /// Wakes `run` for sets that it has not seen.
    added: Notify,
}

/// One source's keys: the current set, and how the fetching goes.
pub struct Jwks {
    source: JwksSource,
    /// `None`: nothing has been fetched yet.
    current: ArcSwapOption<KeySet>,
    progress: Mutex<Progress>,
    /// Counts the attempts that have ended, well or not.
    attempts: watch::Sender<u64>,
    /// Wakes the loop that fetches.
    wanted: Arc<Notify>,
}

#[derive(Default)]
struct Progress {
    stage: Stage,
    /// When a request last brought about a fetch.
    last_asked: Option<Instant>,
    last_error: Option<String>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Idle,
    /// A request wants a fetch that has not begun.
    Asked,
    Underway,
}

/// How one source stands, for metrics and status pages.
#[derive(Clone, Debug)]
pub struct JwksStatus {
    /// The path, or the URL without its query.
    pub source: String,
    /// Keys that can verify tokens; `None`: nothing fetched yet.
    pub keys: Option<usize>,
    /// Time since the last good fetch; `None`: nothing fetched yet.
    pub age: Option<Duration>,
    /// Why the latest attempt failed; `None`: it did not.
    pub last_error: Option<String>,
}

/// Why no newer key set came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoNewer {
    /// The set at hand was fetched well and lately enough: it counts.
    Current,
    /// The issuer did not answer in time or not well: whether the key exists cannot be said.
    Unavailable,
}

impl JwksRegistry {
    /// The key set of `source`, the same one for as long as anybody uses it.
    pub(super) fn get(&self, source: &JwksSource) -> Result<Arc<Jwks>, BuildError> {
        fetch::check(source).map_err(|problem| BuildError::new("oidc.jwks", problem))?;
        let mut sets = lock(&self.0.sets);
        sets.retain(|set| set.strong_count() > 0);
        let known = sets.iter().filter_map(Weak::upgrade);
        if let Some(jwks) = known.into_iter().find(|jwks| jwks.source == *source) {
            return Ok(jwks);
        }
        let jwks = Arc::new(Jwks::new(source.clone()));
        sets.push(Arc::downgrade(&jwks));
        self.0.added.notify_one();
        Ok(jwks)
    }

    /// Has every set fetched again soon: after a reload, or when a key set file has changed.
    pub fn refresh(&self) {
        for jwks in self.in_use() {
            jwks.wanted.notify_one();
        }
    }

    /// How each source in use stands.
    #[must_use]
    pub fn status(&self) -> Vec<JwksStatus> {
        self.in_use().iter().map(|jwks| jwks.status()).collect()
    }

    fn in_use(&self) -> Vec<Arc<Jwks>> {
        let sets = lock(&self.0.sets);
        sets.iter().filter_map(Weak::upgrade).collect()
    }
}

impl Jwks {
    fn new(source: JwksSource) -> Self {
        Self {
            source,
            current: ArcSwapOption::empty(),
            progress: Mutex::default(),
            attempts: watch::Sender::new(0),
            wanted: Arc::new(Notify::new()),
        }
    }

    /// The set at hand; `None` until the first fetch has gone well.
    pub(super) fn current(&self) -> arc_swap::Guard<Option<Arc<KeySet>>> {
        self.current.load()
    }

    /// Time since the last good fetch; `None`: there was none.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        self.current.load().as_ref().map(|set| set.age())
    }

    /// Why the latest attempt failed; `None`: it did not.
    #[must_use]
    pub fn last_error(&self) -> Option<String> {
        lock(&self.progress).last_error.clone()
    }

    /// A set newer than generation `seen`, for a token whose key that one lacks. Joins a fetch under way or asks for
    /// one, at most once in [`REFETCH_INTERVAL`], and waits for its end, at most [`REFETCH_WAIT`].
    pub(super) async fn newer_than(&self, seen: u64) -> Result<Arc<KeySet>, NoNewer> {
        // Before anything is looked at, so that an attempt that ends meanwhile is not missed.
        let mut attempts = self.attempts.subscribe();
        if let Some(newer) = self.if_newer_than(seen) {
            return Ok(newer);
        }
        if self.ask(Instant::now()) == Answer::Wait {
            match timeout(REFETCH_WAIT, attempts.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Err(NoNewer::Unavailable),
            }
        }
        match self.if_newer_than(seen) {
            Some(newer) => Ok(newer),
            None if self.last_error().is_some() => Err(NoNewer::Unavailable),
            None => Err(NoNewer::Current),
        }
    }

    fn if_newer_than(&self, seen: u64) -> Option<Arc<KeySet>> {
        let current = self.current.load_full();
        current.filter(|set| set.generation() != seen)
    }

    /// Whether it is worth waiting for a fetch; brings one about if it is time.
    fn ask(&self, now: Instant) -> Answer {
        let mut progress = lock(&self.progress);
        let rested = progress.last_asked.is_none_or(|asked| now.duration_since(asked) >= REFETCH_INTERVAL);
        match progress.stage {
            Stage::Asked | Stage::Underway => Answer::Wait,
            Stage::Idle if !rested => Answer::Damped,
            Stage::Idle => {
                progress.stage = Stage::Asked;
                progress.last_asked = Some(now);
                self.wanted.notify_one();
                Answer::Wait
            }
        }
    }

    /// Takes in what was fetched. The generation moves only if the bytes changed, so that verified tokens stay warm.
    pub(super) fn accept(&self, document: &[u8]) -> Result<(), NotAKeySet> {
        let digest = sha256(document);
        let old = self.current.load_full();
        let new = match old {
            Some(old) if old.is_of(&digest) => old.confirmed(),
            old => {
                let generation = old.map_or(1, |old| old.generation() + 1);
                let new = KeySet::parse(document, generation)?;
                let (source, keys) = (source_name(&self.source), new.len());
                tracing::info!(source, generation, keys, "key set changed");
                new
            }
        };
        self.current.store(Some(Arc::new(new)));
        Ok(())
    }

    fn status(&self) -> JwksStatus {
        JwksStatus {
            source: source_name(&self.source),
            keys: self.current.load().as_ref().map(|set| set.len()),
            age: self.age(),
            last_error: self.last_error(),
        }
    }
}

/// The loop that fetches ends when it finds its set gone: at once, not at its next turn.
impl Drop for Jwks {
    fn drop(&mut self) {
        self.wanted.notify_one();
    }
}

impl fmt::Debug for Jwks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Jwks({})", source_name(&self.source))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Wait,
    Damped,
}

/// A source as logs name it; the query of a URL may hold a secret.
fn source_name(source: &JwksSource) -> String {
    match source {
        JwksSource::File(path) => path.display().to_string(),
        JwksSource::Url { url, .. } => url[..url::Position::AfterPath].to_owned(),
    }
}

/// Nothing that runs under these locks leaves half a change behind, so a panic elsewhere does not spoil them.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{Signer, key_set};
    use super::*;

    fn jwks() -> Jwks {
        Jwks::new(JwksSource::File("/does/not/matter".into()))
    }

    #[test]
    fn requests_bring_about_one_fetch_per_interval() {
        let (jwks, start) = (jwks(), Instant::now());
        let ended = |jwks: &Jwks| lock(&jwks.progress).stage = Stage::Idle;
        assert_eq!(jwks.ask(start), Answer::Wait);
        assert_eq!(jwks.ask(start), Answer::Wait, "joins the one asked for");
        lock(&jwks.progress).stage = Stage::Underway;
        assert_eq!(jwks.ask(start), Answer::Wait, "joins the one under way");
        ended(&jwks);
        assert_eq!(jwks.ask(start), Answer::Damped);
        let almost = start + REFETCH_INTERVAL - Duration::from_millis(1);
        assert_eq!(jwks.ask(almost), Answer::Damped);
        assert_eq!(jwks.ask(start + REFETCH_INTERVAL), Answer::Wait);
    }

    #[test]
    fn a_generation_lasts_until_the_document_changes() {
        let jwks = jwks();
        let generation = || jwks.current().as_ref().map(|set| set.generation());
        assert!(jwks.accept(b"no keys").is_err());
        assert_eq!((generation(), jwks.age()), (None, None));
        let first = key_set(&[Signer::es256().jwk]);
        for (document, expected) in [(&first[..], 1), (&first, 1), (br#"{"keys":[]}"#, 2), (&first, 3)] {
            jwks.accept(document).unwrap();
            assert_eq!(generation(), Some(expected));
        }
        for broken in [&b""[..], b"<html>", b"{}", b"[]", br#"{"keys":{}}"#, br#"{"keys":[],"keys":[]}"#] {
            assert!(jwks.accept(broken).is_err());
            assert_eq!(generation(), Some(3), "the last good set stays");
        }
    }

    #[test]
    fn one_source_has_one_set_while_it_is_in_use() {
        let registry = JwksRegistry::default();
        let get = |path: &str| registry.get(&JwksSource::File(path.into())).unwrap();
        let (first, other) = (get("/a"), get("/b"));
        assert!(Arc::ptr_eq(&first, &get("/a")));
        assert!(!Arc::ptr_eq(&first, &other));
        drop(first);
        let in_use: Vec<_> = registry.status().into_iter().map(|s| s.source).collect();
        assert_eq!(in_use, ["/b"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_waits_two_seconds_for_a_fetch_that_never_ends() {
        let jwks = jwks();
        jwks.accept(&key_set(&[])).unwrap();
        let start = Instant::now();
        assert_eq!(jwks.newer_than(1).await.err(), Some(NoNewer::Unavailable));
        assert_eq!(start.elapsed(), REFETCH_WAIT);
        assert!(jwks.newer_than(0).await.is_ok(), "the newer one is there already");
    }
}
