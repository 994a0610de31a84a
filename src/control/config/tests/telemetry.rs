//! Exporters and their spools.

use super::*;

const KEY: (&str, &str) = ("APPINSIGHTS_INSTRUMENTATIONKEY", "99999999-8888-4777-8666-555555555555");

fn told(telemetry: &str, pairs: &[(&str, &str)]) -> Vec<String> {
    lines(&format!("{HEAD}{SERVICE}telemetry:\n{telemetry}"), pairs)
}

#[test]
fn the_connection_string_comes_from_the_section_or_else_from_azures_variables() {
    let section = "  application_insights: { connection_string: {env: INSIGHTS} }\n";
    assert_eq!(told("  application_insights: {}\n", &[KEY]), [""; 0]);
    assert_eq!(told(section, &[("INSIGHTS", INSIGHTS)]), [""; 0]);
    for (telemetry, pairs, expected) in [
        (
            "  application_insights: {}\n",
            vec![],
            "c.yaml:5:25: telemetry.application_insights.connection_string: has no InstrumentationKey; copy the whole connection string",
        ),
        (
            section,
            vec![KEY],
            "c.yaml:5:52: telemetry.application_insights.connection_string.env: this environment variable is not set; set it or correct the name",
        ),
        (
            section,
            vec![KEY, ("INSIGHTS", "InstrumentationKey=s3cret")],
            "c.yaml:5:46: telemetry.application_insights.connection_string: has an InstrumentationKey that is no UUID",
        ),
        (
            section,
            vec![KEY, ("INSIGHTS", "IngestionEndpoint=http://ingest.example.org")],
            "c.yaml:5:25: warning: telemetry.application_insights: has an IngestionEndpoint of plain http: records cross the network unencrypted; use https",
        ),
    ] {
        assert_eq!(told(telemetry, &pairs), [expected]);
    }
}

#[test]
fn a_bundle_that_cannot_be_read_is_told_at_once() {
    let [told] = &told("  application_insights: { ca: none.pem }\n", &[KEY])[..] else {
        panic!("one problem")
    };
    let expected = "c.yaml:5:31: telemetry.application_insights.ca: /nowhere/none.pem";
    assert!(told.starts_with(expected), "{told}");
}

#[test]
fn metrics_are_sent_at_an_interval_within_bounds_or_not_at_all() {
    assert_eq!(told("  application_insights: { metrics: {} }\n", &[KEY]), [""; 0]);
    assert_eq!(
        told("  application_insights: { metrics: { interval: 1s } }\n", &[KEY]),
        [
            "c.yaml:5:48: telemetry.application_insights.metrics.interval: 1s is out of range; allowed are 10s to 1h"
        ]
    );
}

#[test]
fn a_spool_is_within_its_bounds() {
    let shared = "  spool: { mode: memory, size: 1KiB, age: 5s }\n";
    assert_eq!(
        told(shared, &[]),
        [
            "c.yaml:5:32: telemetry.spool.size: 1KiB is out of range; allowed are 1MiB to 1024GiB",
            "c.yaml:5:43: telemetry.spool.age: 5s is out of range; allowed are 1m to 720h",
        ]
    );
    let own = "  application_insights: { spool: { mode: behind, path: '' } }\n";
    assert_eq!(
        told(own, &[KEY]),
        [
            "c.yaml:5:42: telemetry.application_insights.spool.mode: 'behind' is not one of memory, write_behind, write_ahead",
            "c.yaml:5:56: telemetry.application_insights.spool.path: is empty; write a value",
        ]
    );
}

#[test]
fn writing_ahead_wants_something_to_write_to() {
    let told_of = |records: &str| told(&format!("  records: {{ {records} }}\n"), &[]);
    assert_eq!(told_of("stdout: true, write_ahead: true"), [""; 0]);
    assert_eq!(
        told_of("write_ahead: true"),
        [
            "c.yaml:5:27: warning: telemetry.records.write_ahead: has no effect without telemetry.records.file or telemetry.records.stdout; spools have a mode of their own"
        ]
    );
}

#[test]
fn an_exporters_own_spool_goes_before_the_shared_one_field_by_field() {
    let telemetry = "  spool: { path: /shared, size: 2MiB, age: 1h }\n  application_insights: { spool: { path: /own, mode: memory } }\n";
    let text = format!("{HEAD}{SERVICE}telemetry:\n{telemetry}");
    let source = Source::text("c.yaml", Path::new("/nowhere"), text).with_variables(variables(&[KEY]));
    let config = load(&source).unwrap().config;
    let expected = SpoolSettings {
        path: "/own".into(),
        mode: SpoolMode::Memory,
        size: 2 << 20,
        age: Duration::from_secs(3600),
        encryption: SpoolEncryption::None,
    };
    assert_eq!(config.telemetry.insights.unwrap().spool, expected);
}

#[test]
fn an_encrypted_spool_needs_the_store_of_a_management_plane() {
    let shared = "  spool: { encryption: store }\n";
    let own = "  application_insights: { spool: { encryption: store } }\n";
    let needs =
        "needs the key that a store keeps, and none is opened; add management and store, or write none";
    assert_eq!(told(shared, &[]), [format!("c.yaml:5:24: telemetry.spool.encryption: {needs}")]);
    assert_eq!(
        told(own, &[KEY]),
        [format!("c.yaml:5:48: telemetry.application_insights.spool.encryption: {needs}")]
    );
    assert_eq!(told("  spool: { encryption: none }\n  activity: false\n", &[]), [""; 0]);
}

#[test]
fn masked_parameters_are_names_and_not_too_many() {
    let many: Vec<_> = (0..65).map(|number| format!("n{number:02}")).collect();
    let long = "n".repeat(65);
    for (names, problems) in [
        ("[]".to_owned(), vec![]),
        ("[patient_id, $sig, x-y.z]".to_owned(), vec![]),
        (
            "[a=b, '-', '']".to_owned(),
            vec![
                "c.yaml:5:16: telemetry.mask_query[0]: has a character that is none of a name; write it decoded, in printable ASCII without spaces and & ; = % + # ?",
                "c.yaml:5:21: telemetry.mask_query[1]: has no letter; - and _ do not count when names are compared",
                "c.yaml:5:26: telemetry.mask_query[2]: has no letter; - and _ do not count when names are compared",
            ],
        ),
        (
            format!("[{long}]"),
            vec!["c.yaml:5:16: telemetry.mask_query[0]: has 65 bytes; allowed are 1 to 64"],
        ),
        (
            format!("[{}]", many.join(",")),
            vec!["c.yaml:5:272: telemetry.mask_query[64]: is one too many; allowed are 64 names"],
        ),
    ] {
        assert_eq!(told(&format!("  mask_query: {names}\n"), &[]), problems, "{names}");
    }
}
