//! Reload: reads everything again, builds the whole new snapshot, swaps it in, or changes nothing and says why.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;

use crate::telemetry::metrics::{MANAGEMENT_LISTENER, RunningConfig};
use crate::telemetry::{Disclosure, Metrics};
use crate::tls::{self, ServerTls, TlsError};

use super::config::{self, Config, DrainSettings, Loaded, Problems, Source};
use super::publish::{PublishError, Publisher, show_certificates};

/// Keeps the running configuration up to date with its files.
pub struct Reloader {
    source: Source,
    publisher: Arc<Publisher>,
    metrics: Arc<Metrics>,
    running: Mutex<Config>,
    status: ArcSwap<Status>,
    management_tls: Option<Arc<ArcSwap<ServerTls>>>,
    disclosure: Option<Disclosure>,
}

/// What runs and what the files say, as `/config/status` shows it.
#[derive(Clone, Debug)]
pub struct Status {
    /// Generation of the snapshot that this configuration came with; changes of managed services move it on.
    pub generation: u64,
    /// SHA-256 over the configuration that runs and the files it names.
    pub running_hash: String,
    /// The same over what was last read; differs while `error` is set.
    pub file_hash: Option<String>,
    /// When the running one took effect.
    pub applied_at: SystemTime,
    /// When the files were last read.
    pub checked_at: SystemTime,
    /// Why what was last read does not run.
    pub error: Option<String>,
}

/// How a reload ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The new configuration runs, as this generation.
    Applied(u64),
    /// Nothing had changed.
    Unchanged,
    /// The old configuration goes on; this is why.
    Refused(String),
}

impl Reloader {
    /// Takes over a gateway that runs `loaded`.
    #[must_use]
    pub fn new(source: Source, loaded: Loaded, publisher: Arc<Publisher>, metrics: Arc<Metrics>) -> Self {
        let now = SystemTime::now();
        let generation = publisher.generation();
        metrics.config().started(RunningConfig { generation, hash: &loaded.hash });
        let status = Status {
            generation,
            file_hash: Some(loaded.hash.clone()),
            running_hash: loaded.hash,
            applied_at: now,
            checked_at: now,
            error: None,
        };
        let running = Mutex::new(loaded.config);
        let status = ArcSwap::from_pointee(status);
        Self { source, publisher, metrics, running, status, management_tls: None, disclosure: None }
    }

    /// Has reloads swap the certificates of the management plane too.
    #[must_use]
    pub fn with_management(self, tls: Option<Arc<ArcSwap<ServerTls>>>) -> Self {
        Self { management_tls: tls, ..self }
    }

    /// Has reloads change which query parameters are masked in records.
    #[must_use]
    pub fn with_disclosure(self, disclosure: Disclosure) -> Self {
        Self { disclosure: Some(disclosure), ..self }
    }

    /// What runs and what the files say.
    #[must_use]
    pub fn status(&self) -> Arc<Status> {
        self.status.load_full()
    }

    /// The files that decide what runs, as of the last reload that took effect.
    #[must_use]
    pub fn files(&self) -> Vec<std::path::PathBuf> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).files.clone()
    }

    /// How the process is to end, as the running configuration has it.
    #[must_use]
    pub fn drain(&self) -> DrainSettings {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).drain
    }

    /// Reads the files again and puts them into effect if every part is good. Blocks on file reads: not for a data-plane
    /// thread.
    pub fn reload(&self) -> Outcome {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.status.load_full();
        match config::load(&self.source) {
            Err(problems) => {
                let cause = Cause::from(&problems);
                self.refuse(&before, None, (cause, problems.to_string()))
            }
            Ok(loaded) if loaded.hash == before.running_hash => {
                self.metrics.config().unchanged();
                let status = Status {
                    file_hash: Some(loaded.hash),
                    checked_at: SystemTime::now(),
                    error: None,
                    ..(*before).clone()
                };
                self.status.store(Arc::new(status));
                Outcome::Unchanged
            }
            Ok(loaded) => {
                let fixed = config::needs_restart(&running, &loaded.config);
                if !fixed.is_empty() {
                    let why = format!("a restart is needed for: {}", fixed.join("; "));
                    return self.refuse(&before, Some(loaded.hash), (Cause::Configuration, why));
                }
                let certificates = match self.management_certificates(&loaded.config) {
                    Ok(certificates) => certificates,
                    Err(error) => {
                        let why = format!("management.tls: {error}");
                        return self.refuse(&before, Some(loaded.hash), (Cause::Certificate, why));
                    }
                };
                match self.publisher.publish(&loaded.config) {
                    Ok(generation) => {
                        if let (Some(served), Some(certificates)) = (&self.management_tls, certificates) {
                            show_certificates(&self.metrics, MANAGEMENT_LISTENER, Some(&certificates));
                            served.store(Arc::new(certificates));
                        }
                        if let Some(disclosure) = &self.disclosure {
                            disclosure.mask(&loaded.config.telemetry.masked);
                        }
                        *running = loaded.config;
                        self.apply(generation, loaded.hash)
                    }
                    Err(error) => {
                        let cause = Cause::from(&error);
                        self.refuse(&before, Some(loaded.hash), (cause, error.to_string()))
                    }
                }
            }
        }
    }

    fn management_certificates(&self, config: &Config) -> Result<Option<ServerTls>, TlsError> {
        config.management.as_ref().map(|management| tls::server(&management.tls)).transpose()
    }

    fn apply(&self, generation: u64, hash: String) -> Outcome {
        self.metrics.config().applied(RunningConfig { generation, hash: &hash });
        tracing::info!(generation, hash, "configuration reloaded");
        let now = SystemTime::now();
        self.status.store(Arc::new(Status {
            generation,
            file_hash: Some(hash.clone()),
            running_hash: hash,
            applied_at: now,
            checked_at: now,
            error: None,
        }));
        Outcome::Applied(generation)
    }

    /// The same refusal again (a retry) is neither logged nor counted anew.
    fn refuse(&self, before: &Status, file_hash: Option<String>, (cause, why): (Cause, String)) -> Outcome {
        if before.error.as_ref() != Some(&why) {
            self.metrics.config().refused();
            if cause == Cause::Certificate {
                self.metrics.certificates().reload_failed();
            }
            tracing::error!(
                running = before.generation,
                why,
                "configuration refused, the running one goes on"
            );
        }
        self.status.store(Arc::new(Status {
            file_hash,
            checked_at: SystemTime::now(),
            error: Some(why.clone()),
            ..before.clone()
        }));
        Outcome::Refused(why)
    }
}

/// What a refused reload failed for, as far as it is counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Certificate,
    Configuration,
}

impl From<&Problems> for Cause {
    fn from(problems: &Problems) -> Self {
        if problems.concern_certificates() { Self::Certificate } else { Self::Configuration }
    }
}

impl From<&PublishError> for Cause {
    fn from(error: &PublishError) -> Self {
        if error.is_certificate() { Self::Certificate } else { Self::Configuration }
    }
}
