//! Records, exporters and their spools.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use secrecy::ExposeSecret;

use super::super::decode::At;
use super::super::raw::{
    Raw, RawApplicationInsights, RawFile, RawOwnSpool, RawPrivacy, RawSpool, RawSpoolEncryption,
    RawSpoolMode, RawStoreKind, RawTelemetry,
};
use super::super::secret::Purpose;
use super::super::units::{RawDuration, RawSize};
use super::Resolver;
use crate::telemetry::trace::Tracing;
use crate::telemetry::{
    Activity, ConnectionString, InsightsSettings, MaskedNames, Privacy, SpoolEncryption, SpoolMode,
    SpoolSettings, TelemetrySettings, WriteOrder,
};
use crate::tls::{self, ClientTlsSource};

/// Bounds of a spool's size: some batches fit, and it is no slip of the pen.
const SPOOL_SIZES: RangeInclusive<RawSize> = RawSize(1 << 20)..=RawSize(1 << 40);
/// Bounds of the time that records wait.
const SPOOL_AGES: RangeInclusive<RawDuration> = RawDuration::secs(60)..=RawDuration::secs(30 * 24 * 3600);
/// Bounds of the time between two sendings of metrics: each series is an item, and ingestion is paid by its volume.
const METRICS_INTERVALS: RangeInclusive<RawDuration> = RawDuration::secs(10)..=RawDuration::secs(3600);
/// Hours of an outage at a few hundred calls per second.
const DEFAULT_DISK: u64 = 256 << 20;
const DEFAULT_MEMORY: u64 = 32 << 20;

impl Resolver<'_> {
    pub(super) fn telemetry(&mut self, all: &Raw) -> TelemetrySettings {
        let raw = &all.telemetry;
        self.encryption_has_a_store(all);
        let file = raw.records.file.as_ref();
        let otlp = self.otlp(raw);
        let order = match raw.records.write_ahead.value {
            true => WriteOrder::Ahead,
            false => WriteOrder::Behind,
        };
        if order == WriteOrder::Ahead && file.is_none() && !raw.records.stdout.value {
            self.report.warning(
                raw.records.write_ahead.at,
                "has no effect without telemetry.records.file or telemetry.records.stdout; spools have a mode of their own",
            );
        }
        TelemetrySettings {
            privacy: match raw.privacy.value {
                RawPrivacy::Standard => Privacy::Standard,
                RawPrivacy::High => Privacy::High,
            },
            masked: self.masked(&raw.mask_query),
            record_file: file.and_then(|file| self.record_file(file)),
            record_stdout: raw.records.stdout.value,
            record_order: order,
            insights: self.insights(raw),
            tracing: otlp.as_ref().and_then(|otlp| otlp.traces.as_ref()).map(|traces| {
                let ratio = traces.sampling.ratio;
                Tracing { ratio }
            }),
            otlp,
            activity: if raw.activity.value.0 { Activity::Exported } else { Activity::Kept },
            collection: self.data_collection(raw),
        }
    }

    /// The key of an encrypted spool is in the store, which is open only under a management plane.
    fn encryption_has_a_store(&mut self, raw: &Raw) {
        let store = raw.store.as_ref().is_some_and(|store| store.kind.value != RawStoreKind::None);
        if store && raw.management.is_some() {
            return;
        }
        let telemetry = &raw.telemetry;
        let own = [
            telemetry.application_insights.as_ref().and_then(|section| section.spool.as_ref()),
            telemetry.otlp.as_ref().and_then(|section| section.spool.as_ref()),
        ];
        let own = own.into_iter().flatten().filter_map(|spool| spool.encryption.as_ref());
        for field in std::iter::once(&telemetry.spool.encryption).chain(own) {
            if matches!(field.value, RawSpoolEncryption::Store) {
                self.report.error(
                    field.at,
                    "needs the key that a store keeps, and none is opened; add management and store, or write none",
                );
            }
        }
    }

    fn masked(&mut self, raw: &[At<String>]) -> MaskedNames {
        let mut masked = MaskedNames::default();
        for name in raw {
            if let Err(why) = masked.add(&name.value) {
                self.report.error(name.at, why);
            }
        }
        masked
    }

    fn insights(&mut self, raw: &RawTelemetry) -> Option<InsightsSettings> {
        let section = raw.application_insights.as_ref();
        // What is wrong with the shared part is told, whether somebody uses it or not.
        let spool = self.spool(&raw.spool, section.and_then(|section| section.spool.as_ref()));
        let section = section?;
        let ca = section.ca.as_ref().and_then(|ca| self.collector_ca(ca));
        let metrics = section.metrics.as_ref();
        let metrics_interval = metrics.map(|metrics| self.duration(&metrics.interval, METRICS_INTERVALS));
        let connection = self.connection(section)?;
        if connection.is_plain() {
            self.report.warning(
                section.at,
                "has an IngestionEndpoint of plain http: records cross the network unencrypted; use https",
            );
        }
        Some(InsightsSettings { connection, ca, metrics_interval, spool })
    }

    fn connection(&mut self, raw: &At<RawApplicationInsights>) -> Option<ConnectionString> {
        let reference = raw.connection_string.as_ref();
        let configured = match reference {
            Some(reference) => Some(self.secret(reference, Purpose::ConnectionString)?),
            None => None,
        };
        let configured = configured.as_ref().map(ExposeSecret::expose_secret);
        let variable = |name: &str| self.variables.get(name).map(String::as_str);
        match ConnectionString::of(configured, variable) {
            Ok(connection) => Some(connection),
            Err(error) => {
                match reference {
                    Some(reference) => self.report.error(reference.at, error.to_string()),
                    None => self.report.missing(raw.at, "connection_string", error.to_string()),
                }
                None
            }
        }
    }

    /// The bundle that an exporter trusts. It is not kept: authorities are replaced while the gateway runs.
    pub(super) fn collector_ca(&mut self, raw: &At<String>) -> Option<PathBuf> {
        let ca = Some(self.files.locate(raw));
        match tls::client_config(&ClientTlsSource { ca: ca.clone(), ..ClientTlsSource::default() }) {
            Ok(_) => ca,
            Err(error) => {
                self.report.error(raw.at, error.to_string());
                None
            }
        }
    }

    /// The spool of an exporter: its own fields before the shared ones.
    pub(super) fn spool(&mut self, shared: &RawSpool, own: Option<&At<RawOwnSpool>>) -> SpoolSettings {
        let own = own.map_or_else(RawOwnSpool::default, |own| own.value.clone());
        let path = own.path.as_ref().unwrap_or(&shared.path);
        self.text(path);
        let path = self.files.locate(path);
        let mode = match own.mode.as_ref().unwrap_or(&shared.mode).value {
            RawSpoolMode::Memory => SpoolMode::Memory,
            RawSpoolMode::WriteBehind => SpoolMode::WriteBehind,
            RawSpoolMode::WriteAhead => SpoolMode::WriteAhead,
        };
        let size = match own.size.as_ref().or(shared.size.as_ref()) {
            Some(size) => self.size(size, SPOOL_SIZES),
            None if mode == SpoolMode::Memory => DEFAULT_MEMORY,
            None => DEFAULT_DISK,
        };
        let age = self.duration(own.age.as_ref().unwrap_or(&shared.age), SPOOL_AGES);
        let encryption = match own.encryption.as_ref().unwrap_or(&shared.encryption).value {
            RawSpoolEncryption::None => SpoolEncryption::None,
            RawSpoolEncryption::Store => SpoolEncryption::Store,
        };
        SpoolSettings { path, mode, size, age, encryption }
    }

    fn record_file(&mut self, raw: &At<RawFile>) -> Option<PathBuf> {
        let field = self.required(raw.at, "path", &raw.path)?;
        let path = self.files.locate(field);
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        if path.file_name().is_none() || path.is_dir() {
            self.report.error(field.at, "is a folder; add a file name");
        } else if !folder.is_dir() {
            self.report.error(field.at, format!("folder {} does not exist; create it", folder.display()));
        }
        Some(path)
    }
}
