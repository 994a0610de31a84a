//! What a reload cannot apply, because it was fixed when the process started.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::ExposeSecret as _;

use super::settings::{Config, LogFormat, ManagementSettings};
use crate::listener::ListenerSettings;
use crate::telemetry::otlp::{OtlpSettings, TracesSettings};
use crate::telemetry::{CollectionSettings, Privacy, SpoolSettings, TelemetrySettings, WriteOrder};

/// The changes between the running and a new configuration that need a restart, each as a sentence with the field, the
/// old and the new value. Empty: a reload applies everything.
#[must_use]
pub fn needs_restart(old: &Config, new: &Config) -> Vec<String> {
    let mut changes = Changes::default();
    listeners(&old.listeners, &new.listeners, &mut changes);
    changes.compare("runtime.workers", &old.runtime.workers, &new.runtime.workers);
    let observe = |config: &Config| {
        config.observe.map_or_else(|| "none".to_owned(), |observe| observe.address.to_string())
    };
    changes.compare("observe.address", &observe(old), &observe(new));
    changes.compare("log.format", &word(old.log.format), &word(new.log.format));
    changes.compare("log.level", &old.log.level, &new.log.level);
    let record_file = |config: &Config| {
        let file = config.telemetry.record_file.as_deref();
        file.map_or_else(|| "none".to_owned(), |file: &Path| file.display().to_string())
    };
    changes.compare("telemetry.records.file.path", &record_file(old), &record_file(new));
    changes.compare("telemetry.records.stdout", &old.telemetry.record_stdout, &new.telemetry.record_stdout);
    let write_ahead = |config: &Config| config.telemetry.record_order == WriteOrder::Ahead;
    changes.compare("telemetry.records.write_ahead", &write_ahead(old), &write_ahead(new));
    let privacy = |config: &Config| match config.telemetry.privacy {
        Privacy::Standard => "standard",
        Privacy::High => "high",
    };
    changes.compare("telemetry.privacy", &privacy(old), &privacy(new));
    changes.note("telemetry.activity", &old.telemetry.activity, &new.telemetry.activity);
    insights(&old.telemetry, &new.telemetry, &mut changes);
    otlp(&old.telemetry, &new.telemetry, &mut changes);
    collection(&old.telemetry, &new.telemetry, &mut changes);
    management(old, new, &mut changes);
    changes.0
}

#[derive(Default)]
struct Changes(Vec<String>);

impl Changes {
    fn compare<T: PartialEq + fmt::Display>(&mut self, field: &str, old: &T, new: &T) {
        if old != new {
            self.0.push(format!("{field} changed from {old} to {new}: restart to apply"));
        }
    }

    /// A change whose values are a secret, or too long to be told.
    fn note<T: PartialEq>(&mut self, field: &str, old: &T, new: &T) {
        if old != new {
            self.0.push(format!("{field} changed: restart to apply"));
        }
    }
}

/// The exporter to Application Insights; its connection string is a secret.
fn insights(old: &TelemetrySettings, new: &TelemetrySettings, changes: &mut Changes) {
    let field = "telemetry.application_insights";
    let (Some(before), Some(after)) = (&old.insights, &new.insights) else {
        return changes.note(field, &old.insights.is_some(), &new.insights.is_some());
    };
    changes.note(&format!("{field}.connection_string"), &before.connection, &after.connection);
    let bundle = |ca: &Option<PathBuf>| {
        ca.as_ref().map_or_else(|| "the system's".to_owned(), |ca| ca.display().to_string())
    };
    changes.compare(&format!("{field}.ca"), &bundle(&before.ca), &bundle(&after.ca));
    let interval = |interval: Option<Duration>| {
        interval.map_or_else(|| "none".to_owned(), |interval| format!("{}s", interval.as_secs()))
    };
    let (old_interval, new_interval) = (interval(before.metrics_interval), interval(after.metrics_interval));
    changes.compare(&format!("{field}.metrics.interval"), &old_interval, &new_interval);
    spool(field, &before.spool, &after.spool, changes);
}

/// The export to OpenTelemetry; its header fields are secrets.
fn otlp(old: &TelemetrySettings, new: &TelemetrySettings, changes: &mut Changes) {
    let (Some(before), Some(after)) = (&old.otlp, &new.otlp) else {
        return changes.note("telemetry.otlp", &old.otlp.is_some(), &new.otlp.is_some());
    };
    changes.note("telemetry.otlp.resource", &before.resource, &after.resource);
    changes.note("telemetry.otlp.gen_ai", &before.gen_ai, &after.gen_ai);
    let traces = |settings: &OtlpSettings| {
        settings.traces.clone().map(|TracesSettings { collector, sampling, spool: _ }| (collector, sampling))
    };
    changes.note("telemetry.otlp.traces", &traces(before), &traces(after));
    let logs = |settings: &OtlpSettings| settings.logs.clone().map(|logs| logs.collector);
    changes.note("telemetry.otlp.logs", &logs(before), &logs(after));
    changes.note("telemetry.otlp.metrics", &before.metrics, &after.metrics);
    if let (Some(before), Some(after)) = (before.spool(), after.spool()) {
        spool("telemetry.otlp", before, after, changes);
    }
}

fn spool(exporter: &str, old: &SpoolSettings, new: &SpoolSettings, changes: &mut Changes) {
    let field = |name: &str| format!("{exporter}.spool.{name}");
    changes.compare(&field("path"), &old.path.display().to_string(), &new.path.display().to_string());
    changes.compare(&field("mode"), &old.mode.as_str(), &new.mode.as_str());
    changes.compare(&field("size"), &old.size, &new.size);
    changes.compare(&field("encryption"), &old.encryption.as_str(), &new.encryption.as_str());
    changes.compare(&field("age"), &format!("{}s", old.age.as_secs()), &format!("{}s", new.age.as_secs()));
}

fn collection(old: &TelemetrySettings, new: &TelemetrySettings, changes: &mut Changes) {
    let field = "telemetry.data_collection";
    let (Some(before), Some(after)) = (&old.collection, &new.collection) else {
        return changes.note(field, &old.collection.is_some(), &new.collection.is_some());
    };
    let field = |name: &str| format!("{field}.{name}");
    let path = |settings: &CollectionSettings| settings.path.display().to_string();
    changes.compare(&field("path"), &path(before), &path(after));
    changes.compare(&field("size"), &before.size, &after.size);
    let keep = |settings: &CollectionSettings| format!("{}s", settings.keep.as_secs());
    changes.compare(&field("keep"), &keep(before), &keep(after));
}

/// The management plane was told all this when it started; what may hold a secret is named without its values.
fn management(old: &Config, new: &Config, changes: &mut Changes) {
    let address = |config: &Config| {
        config.management.as_ref().map_or_else(|| "none".to_owned(), |it| it.address.to_string())
    };
    changes.compare("management.address", &address(old), &address(new));
    let (Some(before), Some(after)) = (&old.management, &new.management) else { return };
    let token = |settings: &ManagementSettings| {
        settings.bootstrap_token.as_ref().map(|token| token.expose_secret().to_owned())
    };
    changes.note("management.bootstrap_token", &token(before), &token(after));
    changes.note("management.issuers", &before.issuers, &after.issuers);
    changes.note("management.address_policy", &before.address_policy, &after.address_policy);
    let seconds = |duration: Duration| format!("{}s", duration.as_secs());
    let (old_time, new_time) = (seconds(before.activity_retention), seconds(after.activity_retention));
    changes.compare("management.activity_retention", &old_time, &new_time);
    let (old_time, new_time) = (seconds(before.token_lifetime), seconds(after.token_lifetime));
    changes.compare("management.token_lifetime", &old_time, &new_time);
    changes.compare(
        "store.path",
        &before.store.path.display().to_string(),
        &after.store.path.display().to_string(),
    );
    let key = |settings: &ManagementSettings| {
        settings.store.key.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string)
    };
    changes.compare("store.key", &key(before), &key(after));
    changes.note("workspace", &old.workspace, &new.workspace);
    changes.note("public_url", &old.public_url, &new.public_url);
    changes.note("uri_templates", &old.uri_templates, &new.uri_templates);
    changes.note("replica_template", &old.replica_template, &new.replica_template);
}

/// Listeners are told apart by name; their order means nothing but for the first, whose address is the default of
/// `public_url`.
fn listeners(old: &[ListenerSettings], new: &[ListenerSettings], changes: &mut Changes) {
    for listener in old {
        match new.iter().find(|other| other.name == listener.name) {
            Some(other) => one_listener(listener, other, changes),
            None => changes.0.push(format!(
                "listeners: '{}' on {} is gone: restart to apply",
                listener.name, listener.address
            )),
        }
    }
    for listener in new {
        if !old.iter().any(|other| other.name == listener.name) {
            changes.0.push(format!(
                "listeners: '{}' on {} is new: restart to apply",
                listener.name, listener.address
            ));
        }
    }
}

fn one_listener(old: &ListenerSettings, new: &ListenerSettings, changes: &mut Changes) {
    let field = |name: &str| format!("listeners.{}.{name}", old.name);
    let encryption = |listener: &ListenerSettings| {
        if listener.tls.is_some() { "tls" } else { "plaintext" }
    };
    changes.compare(&field("address"), &old.address, &new.address);
    changes.compare(&field("tls"), &encryption(old), &encryption(new));
    changes.compare(&field("max_connections"), &old.max_connections, &new.max_connections);
}

const fn word(format: LogFormat) -> &'static str {
    match format {
        LogFormat::Auto => "auto",
        LogFormat::Json => "json",
        LogFormat::Text => "text",
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Source, load};
    use super::*;

    fn config(text: &str) -> Config {
        let text = format!("version: scoregate/v1\n{text}");
        let variables = ["APPLICATIONINSIGHTS_CONNECTION_STRING", "INSIGHTS"].map(|name| {
            let key = if name == "INSIGHTS" { '1' } else { '2' };
            (name.to_owned(), format!("InstrumentationKey={key}9999999-8888-4777-8666-555555555555"))
        });
        load(&Source::text("c.yaml", Path::new("/"), text).with_variables(variables.into()))
            .unwrap_or_else(|problems| panic!("{problems}"))
            .config
    }

    #[test]
    fn each_change_is_named_with_both_values() {
        let old = config(
            "runtime: {workers: 1}\nlisteners:\n- {name: one, address: 127.0.0.1:1, plaintext: true}\n- {name: two, address: 127.0.0.1:2, plaintext: true}\n",
        );
        let new = config(
            "runtime: {workers: 2}\nobserve: {address: 127.0.0.1:9}\nlog: {level: debug, format: json}\n\
             telemetry: {privacy: high, activity: false, records: {file: {path: /r}, stdout: true, write_ahead: true}, application_insights: {}}\nlisteners:\n\
             - {name: one, address: 127.0.0.1:3, plaintext: true, max_connections: 5, idle_timeout: 1s}\n\
             - {name: three, address: 127.0.0.1:2, plaintext: true}\n",
        );
        assert_eq!(needs_restart(&old, &old), Vec::<String>::new());
        assert_eq!(
            needs_restart(&old, &new),
            [
                "listeners.one.address changed from 127.0.0.1:1 to 127.0.0.1:3: restart to apply",
                "listeners.one.max_connections changed from 10000 to 5: restart to apply",
                "listeners: 'two' on 127.0.0.1:2 is gone: restart to apply",
                "listeners: 'three' on 127.0.0.1:2 is new: restart to apply",
                "runtime.workers changed from 1 to 2: restart to apply",
                "observe.address changed from 127.0.0.1:9090 to 127.0.0.1:9: restart to apply",
                "log.format changed from auto to json: restart to apply",
                "log.level changed from info to debug: restart to apply",
                "telemetry.records.file.path changed from none to /r: restart to apply",
                "telemetry.records.stdout changed from false to true: restart to apply",
                "telemetry.records.write_ahead changed from false to true: restart to apply",
                "telemetry.privacy changed from standard to high: restart to apply",
                "telemetry.activity changed: restart to apply",
                "telemetry.application_insights changed: restart to apply",
            ]
        );
    }

    #[test]
    fn a_changed_export_to_opentelemetry_is_named_by_its_parts() {
        let listener = "listeners: [{name: one, address: 127.0.0.1:1, plaintext: true}]\n";
        let of = |otlp: &str| config(&format!("{listener}telemetry: {{otlp: {otlp}}}\n"));
        let changes = |old: &str, new: &str| needs_restart(&of(old), &of(new));
        assert_eq!(changes("{}", "{traces: true}"), [""; 0], "what it says is the default");
        assert_eq!(
            changes("{}", "{gen_ai: true, logs: false, resource: {a: b}, sampling: {ratio: 0.5}}"),
            ["resource", "gen_ai", "traces", "logs"]
                .map(|part| format!("telemetry.otlp.{part} changed: restart to apply"))
        );
        assert_eq!(
            changes("{metrics_interval: 5s}", "{spool: {mode: memory, size: 256MiB}}"),
            [
                "telemetry.otlp.metrics changed: restart to apply",
                "telemetry.otlp.spool.mode changed from write_behind to memory: restart to apply",
            ]
        );
        let none = config(listener);
        assert_eq!(needs_restart(&none, &of("{}")), ["telemetry.otlp changed: restart to apply"]);
    }

    #[test]
    fn a_changed_exporter_is_named_without_its_secret() {
        let listener = "listeners: [{name: one, address: 127.0.0.1:1, plaintext: true}]\n";
        let old = config(&format!("{listener}telemetry: {{application_insights: {{}}}}\n"));
        let new = config(&format!(
            "{listener}telemetry: {{spool: {{path: /s, age: 1h}}, application_insights: {{connection_string: {{env: INSIGHTS}}, metrics: {{}}, spool: {{mode: memory}}}}}}\n"
        ));
        assert_eq!(
            needs_restart(&old, &new),
            [
                "telemetry.application_insights.connection_string changed: restart to apply",
                "telemetry.application_insights.metrics.interval changed from none to 60s: restart to apply",
                "telemetry.application_insights.spool.path changed from /spool to /s: restart to apply",
                "telemetry.application_insights.spool.mode changed from write_behind to memory: restart to apply",
                "telemetry.application_insights.spool.size changed from 268435456 to 33554432: restart to apply",
                "telemetry.application_insights.spool.age changed from 172800s to 3600s: restart to apply",
            ]
        );
    }
}
