//! Data collection: where it goes, what services leave, and who forbids it.

use super::*;
use crate::proxy::CollectSettings;

const GOES: &str = "telemetry: { data_collection: { path: /c } }\n";

fn service(section: &str) -> String {
    format!(
        "services:\n- {{name: iris, compute_type: ACI, deployments: [{{name: blue, replicas: ['http://h']}}], data_collection: {section}}}\n"
    )
}

fn told(text: &str) -> Vec<String> {
    let told = lines(&format!("{HEAD}{text}"), &[]);
    told.into_iter().map(|line| line.split_once(": ").unwrap().1.to_owned()).collect()
}

fn loaded(text: &str) -> crate::control::config::Config {
    let source = Source::text("c.yaml", Path::new("/nowhere"), format!("{HEAD}{text}"));
    load(&source).unwrap_or_else(|problems| panic!("{problems}")).config
}

#[test]
fn nothing_is_collected_unless_both_sides_say_so() {
    let silent = loaded(SERVICE);
    assert_eq!((silent.telemetry.collection, silent.services[0].collect), (None, None));
    let config = loaded(&(service("{}") + GOES));
    assert_eq!(config.services[0].collect, Some(CollectSettings::default()));
    let collection = config.telemetry.collection.unwrap();
    assert_eq!((collection.path, collection.size), ("/c".into(), 1 << 30));
    assert_eq!(collection.keep, Duration::from_secs(7 * 24 * 3600));
    let own = "{sample: 0.25, body_bytes: 1KiB, inputs: false}";
    let expected = CollectSettings { sample: 0.25, body_bytes: 1024, inputs: false, outputs: true };
    assert_eq!(loaded(&(service(own) + GOES)).services[0].collect, Some(expected));
    assert_eq!(
        told(&service("{}")),
        [
            "services[0].data_collection: needs telemetry.data_collection, which says where it goes; add that section"
        ]
    );
}

#[test]
fn high_privacy_forbids_it() {
    let private = GOES.replace("{ data", "{ privacy: high, data");
    let problem =
        "keeps what callers send and get, which telemetry.privacy: high forbids; remove one of them";
    assert_eq!(
        told(&(service("{}") + &private)),
        [format!("services[0].data_collection: {problem}"), format!("telemetry.data_collection: {problem}")]
    );
    let only = service("{}") + "telemetry: { privacy: high }\n";
    assert_eq!(told(&only), [format!("services[0].data_collection: {problem}")]);
}

#[test]
fn what_is_out_of_bounds_is_told_with_its_place() {
    let goes = "telemetry: { data_collection: { path: '', size: 1MiB, keep: 1m } }\n";
    let own = "{sample: 1.5, body_bytes: 2MiB, inputs: false, outputs: false}";
    assert_eq!(
        told(&(service(own) + goes)),
        [
            "services[0].data_collection: inputs and outputs are both false, so that nothing would be kept; set one, or remove the section",
            "services[0].data_collection.sample: 1.5 is out of range; allowed are 0 to 1",
            "services[0].data_collection.body_bytes: 2MiB is out of range; allowed are 1 to 1MiB",
            "telemetry.data_collection.path: is empty; write a value",
            "telemetry.data_collection.size: 1MiB is out of range; allowed are 16MiB to 1024GiB",
            "telemetry.data_collection.keep: 1m is out of range; allowed are 1h to 8760h",
        ]
    );
}
