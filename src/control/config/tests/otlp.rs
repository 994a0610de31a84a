//! The export to OpenTelemetry, from the configuration and the environment.

use super::*;
use crate::telemetry::otlp::{
    CollectorSettings, Failed, GenAi, OtlpCompression, OtlpProtocol, OtlpSettings, SamplingSettings,
};
use crate::telemetry::trace::SampleRatio;

fn text(otlp: &str) -> String {
    format!("{HEAD}{SERVICE}telemetry:\n  otlp: {otlp}\n")
}

fn told(otlp: &str, pairs: &[(&str, &str)]) -> Vec<String> {
    lines(&text(otlp), pairs)
}

fn config(otlp: &str, pairs: &[(&str, &str)]) -> crate::control::config::Config {
    let source = Source::text("c.yaml", Path::new("/nowhere"), text(otlp)).with_variables(variables(pairs));
    load(&source).unwrap_or_else(|problems| panic!("{problems}")).config
}

fn settings(otlp: &str, pairs: &[(&str, &str)]) -> OtlpSettings {
    config(otlp, pairs).telemetry.otlp.unwrap()
}

/// Endpoint and protocol of each signal, traces, logs, metrics.
fn ways(settings: &OtlpSettings) -> Vec<String> {
    let traces = settings.traces.as_ref().map(|traces| &traces.collector);
    let logs = settings.logs.as_ref().map(|logs| &logs.collector);
    let metrics = settings.metrics.as_ref().map(|metrics| &metrics.collector);
    let way = |collector: &CollectorSettings| format!("{:?} {}", collector.protocol, collector.endpoint);
    [traces, logs, metrics].map(|collector| collector.map_or_else(|| "off".to_owned(), way)).into()
}

fn header(collector: &CollectorSettings, name: &str) -> Option<String> {
    let found = collector.headers.iter().find(|(found, _)| found == name);
    found.map(|(_, value)| value.to_str().unwrap().to_owned())
}

#[test]
fn an_empty_section_is_all_from_the_environment_or_else_the_specifications_defaults() {
    let all = settings("{}", &[]);
    assert_eq!(
        ways(&all),
        [
            "Http http://localhost:4318/v1/traces",
            "Http http://localhost:4318/v1/logs",
            "Http http://localhost:4318/v1/metrics"
        ]
    );
    let traces = all.traces.unwrap();
    assert_eq!(
        (traces.collector.timeout, traces.collector.compression),
        (Duration::from_secs(10), OtlpCompression::None)
    );
    let sampling = SamplingSettings { ratio: SampleRatio::ALL, failed: Failed::Kept, slower_than: None };
    assert_eq!((traces.sampling, all.gen_ai), (sampling, GenAi::LeftOut));
    assert_eq!(all.metrics.unwrap().interval, Duration::from_secs(60));
    assert_eq!(all.resource, [("service.name".to_owned(), "scoregate".to_owned())]);
    let elsewhere = settings(
        "{}",
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://all.test/base/"),
            ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "https://logs.test/as/it/is"),
            ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "https://metrics.test:4317"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=1,b=x%20y"),
            ("OTEL_EXPORTER_OTLP_LOGS_HEADERS", "c=3"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "none"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "5000"),
            ("OTEL_SERVICE_NAME", "scores"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=lost,team=red%2Cblue"),
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
        ],
    );
    assert_eq!(
        ways(&elsewhere),
        [
            "Http https://all.test/base/v1/traces",
            "Http https://logs.test/as/it/is",
            "Grpc https://metrics.test:4317/"
        ]
    );
    let (traces, logs) = (elsewhere.traces.unwrap(), elsewhere.logs.unwrap());
    let headers = |collector| ["a", "b", "c"].map(|name| header(collector, name).unwrap_or_default());
    assert_eq!(headers(&traces.collector), ["1", "x y", ""]);
    assert_eq!(headers(&logs.collector), ["", "", "3"]);
    assert_eq!(traces.collector.timeout, Duration::from_millis(2500));
    assert_eq!(traces.collector.compression, OtlpCompression::None);
    assert_eq!(traces.sampling.ratio, SampleRatio::new(0.25).unwrap());
    assert_eq!(elsewhere.metrics.unwrap().interval, Duration::from_secs(5));
    let resource = [("team", "red,blue"), ("service.name", "scores")];
    assert_eq!(elsewhere.resource, resource.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

#[test]
fn the_configuration_goes_before_the_environment_field_by_field() {
    let section = "{ endpoint: 'https://here.test:1', protocol: grpc, timeout: 1s, compression: gzip, \
                   headers: { A: {env: TENANT} }, traces: true, metrics: false, metrics_interval: 2s, gen_ai: true, \
                   sampling: { ratio: 0.5, keep_failed: false, slower_than: 3s }, resource: { team: blue } }";
    let both = settings(
        section,
        &[
            ("TENANT", "of the file"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://there.test"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=lost,b=kept"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "9"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "none"),
            ("OTEL_TRACES_EXPORTER", "none"),
            ("OTEL_LOGS_EXPORTER", "none"),
            ("OTEL_METRICS_EXPORTER", "otlp"),
            ("OTEL_TRACES_SAMPLER", "always_off"),
            ("OTEL_RESOURCE_ATTRIBUTES", "team=red,zone=a"),
        ],
    );
    assert_eq!(ways(&both), ["Grpc https://here.test:1/", "off", "off"]);
    let traces = both.traces.unwrap();
    let collector = &traces.collector;
    assert_eq!((collector.protocol, collector.compression), (OtlpProtocol::Grpc, OtlpCompression::Gzip));
    assert_eq!(collector.timeout, Duration::from_secs(1));
    assert_eq!(
        (header(collector, "a").as_deref(), header(collector, "b").as_deref()),
        (Some("of the file"), Some("kept"))
    );
    assert!(!format!("{collector:?}").contains("of the file"));
    let ratio = SampleRatio::new(0.5).unwrap();
    let slower_than = Some(Duration::from_secs(3));
    assert_eq!(traces.sampling, SamplingSettings { ratio, failed: Failed::Sampled, slower_than });
    assert_eq!(both.gen_ai, GenAi::Shown);
    let resource = [("service.name", "scoregate"), ("zone", "a"), ("team", "blue")];
    assert_eq!(both.resource, resource.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

#[test]
fn the_gateway_takes_part_in_traces_only_if_it_exports_them() {
    let takes_part = |otlp, pairs: &[(&str, &str)]| config(otlp, pairs).telemetry.tracing.is_some();
    assert!(takes_part("{}", &[]));
    assert!(!takes_part("{ traces: false }", &[]));
    assert!(!takes_part("{}", &[("OTEL_TRACES_EXPORTER", "none")]));
    let disabled = config("{}", &[("OTEL_SDK_DISABLED", "true")]);
    assert_eq!((disabled.telemetry.otlp, disabled.telemetry.tracing), (None, None));
}

#[test]
fn what_is_wrong_is_told_once_with_its_place() {
    assert_eq!(
        told(
            "{ endpoint: localhost, timeout: 5m, sampling: { ratio: 1.5 }, headers: { te: {env: X}, a: {env: X} } }",
            &[("X", "y")]
        ),
        [
            "c.yaml:5:21: telemetry.otlp.endpoint: has no scheme; write http:// or https:// before it",
            "c.yaml:5:41: telemetry.otlp.timeout: 5m is out of range; allowed are 100ms to 1m",
            "c.yaml:5:64: telemetry.otlp.sampling.ratio: 1.5 is out of range; allowed are 0 to 1",
            "c.yaml:5:86: telemetry.otlp.headers.te: is no header field that can be set here; take another name",
        ]
    );
    let variables = [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
        ("OTEL_TRACES_SAMPLER", "xray"),
        ("OTEL_LOGS_EXPORTER", "console"),
    ];
    let mut found = told("{}", &variables);
    found.sort();
    assert_eq!(
        found,
        [
            "c.yaml:5:9: warning: telemetry.otlp: $OTEL_EXPORTER_OTLP_PROTOCOL: is not one of grpc, http/protobuf",
            "c.yaml:5:9: warning: telemetry.otlp: $OTEL_EXPORTER_OTLP_TIMEOUT: is no number of milliseconds",
            "c.yaml:5:9: warning: telemetry.otlp: $OTEL_LOGS_EXPORTER: is neither otlp nor none",
            "c.yaml:5:9: warning: telemetry.otlp: $OTEL_TRACES_SAMPLER: is not one of always_on, always_off, traceidratio, with or without parentbased_",
        ]
    );
    assert_eq!(
        told("{}", &[("OTEL_EXPORTER_OTLP_HEADERS", "s3cret")]),
        ["c.yaml:5:9: telemetry.otlp: $OTEL_EXPORTER_OTLP_HEADERS: is no list of name=value,name=value"]
    );
    assert_eq!(
        told("{ endpoint: 'http://collector.test:4318' }", &[]),
        [
            "c.yaml:5:9: warning: telemetry.otlp: sends over plain http: what is exported crosses the network unencrypted; use https"
        ]
    );
}
