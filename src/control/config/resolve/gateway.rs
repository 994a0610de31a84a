//! Sections about the gateway as a whole.

use std::num::NonZero;
use std::sync::Arc;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use url::Url;

use super::super::decode::At;
use super::super::raw::{
    RawDrain, RawLog, RawLogFormat, RawObserve, RawRuntime, RawTokens, RawWorkers, RawWorkspace,
};
use super::super::secret::Purpose;
use super::super::settings::{
    DrainSettings, LogFormat, LogSettings, ObserveSettings, RuntimeSettings, Workspace,
};
use super::super::units::RawDuration;
use super::Resolver;
use crate::auth::{IssuerSettings, SigningKey};

const MAX_WORKERS: u64 = 1024;
/// Longest part of the workspace's identity, in characters (Azure's limit for resource groups).
const MAX_IDENTITY: usize = 90;

impl Resolver<'_> {
    pub(super) fn workspace(&mut self, raw: &RawWorkspace) -> Workspace {
        Workspace {
            subscription: self.identity(&raw.subscription),
            resource_group: self.identity(&raw.resource_group),
            name: self.identity(&raw.name),
            location: self.identity(&raw.location),
        }
    }

    /// A part of the workspace's identity; it will stand in paths of the management APIs.
    fn identity(&mut self, field: &At<String>) -> String {
        let good = (1..=MAX_IDENTITY).contains(&field.len())
            && field.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._()".contains(&b));
        if !good {
            self.report.error(
                field.at,
                format!("must be 1 to {MAX_IDENTITY} letters, digits or any of -._(); choose such a name"),
            );
        }
        field.value.clone()
    }

    pub(super) fn public_url(&mut self, field: &At<String>) -> Option<Url> {
        self.url(field)
    }

    pub(super) fn runtime(&mut self, raw: &RawRuntime) -> RuntimeSettings {
        let workers = match raw.workers.value {
            RawWorkers::Auto => std::thread::available_parallelism().map_or(1, NonZero::get),
            RawWorkers::Count(count) => {
                self.within(raw.workers.at, &count, &(1..=MAX_WORKERS));
                usize::try_from(count).unwrap_or(usize::MAX)
            }
        };
        RuntimeSettings { workers }
    }

    pub(super) fn observe(&mut self, raw: &RawObserve) -> Option<ObserveSettings> {
        let address = self.address(&raw.address)?;
        if !address.ip().is_loopback() {
            self.report.warning(
                raw.address.at,
                "metrics and health are served without encryption or credentials; make sure that only monitoring reaches this address",
            );
        }
        Some(ObserveSettings { address })
    }

    pub(super) fn tokens(&mut self, raw: &At<RawTokens>) -> Option<Arc<IssuerSettings>> {
        let issuer = self.required(raw.at, "issuer", &raw.issuer);
        let issuer = issuer.map(|issuer| self.text(issuer));
        let reference = self.required(raw.at, "signing_key", &raw.signing_key);
        let signing_key = reference.and_then(|reference| {
            let key = self.secret(reference, Purpose::Pem)?;
            let key = SigningKey::from_pem(&key).ok().map(Arc::new);
            if key.is_none() {
                self.report.error(
                    reference.at,
                    "is no P-256 private key in PEM; make one with: openssl ecparam -name prime256v1 -genkey -noout",
                );
            }
            key
        });
        let (shortest, longest) = IssuerSettings::LIFETIMES.into_inner();
        let lifetime = self.duration(&raw.lifetime, RawDuration(shortest)..=RawDuration(longest));
        let leeway = self.leeway(&raw.leeway);
        Some(Arc::new(IssuerSettings { issuer: issuer?, signing_key: signing_key?, lifetime, leeway }))
    }

    pub(super) fn drain(&mut self, raw: &RawDrain) -> DrainSettings {
        let zero = RawDuration::secs(0);
        DrainSettings {
            delay: self.duration(&raw.delay, zero..=RawDuration::secs(600)),
            timeout: self.duration(&raw.timeout, zero..=RawDuration::secs(3600)),
        }
    }

    pub(super) fn log(&mut self, raw: &RawLog) -> LogSettings {
        // A lone word that is no level would be taken for the name of a module.
        let is_word = !raw.level.contains(['=', ',', ':']);
        let good = if is_word {
            raw.level.parse::<LevelFilter>().is_ok()
        } else {
            EnvFilter::try_new(raw.level.as_str()).is_ok()
        };
        if !good {
            self.report.error(
                raw.level.at,
                format!(
                    "'{}' is no level; write error, warn, info, debug, trace or off, or a filter such as info,scoregate::tls=debug",
                    raw.level.value
                ),
            );
        }
        LogSettings {
            format: match raw.format.value {
                RawLogFormat::Auto => LogFormat::Auto,
                RawLogFormat::Json => LogFormat::Json,
                RawLogFormat::Text => LogFormat::Text,
            },
            level: raw.level.value.clone(),
        }
    }
}
