//! An encrypted spool through the door: nothing of a call can be read from it, and it opens with its own store only.

use super::*;
use crate::management::{OWNER, managed};

/// All segments, by name.
fn segments(gateway: &Path) -> BTreeMap<std::ffi::OsString, Vec<u8>> {
    let folder = gateway.join("spool/application_insights/v1");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let segments = files.filter(|file| file.path().extension().is_some_and(|end| end == "seg"));
    segments.map(|file| (file.file_name(), std::fs::read(file.path()).unwrap())).collect()
}

fn holds(segments: &BTreeMap<std::ffi::OsString, Vec<u8>>, text: &str) -> bool {
    segments.values().any(|bytes| bytes.windows(text.len()).any(|part| part == text.as_bytes()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_encrypted_spool_shows_nothing_and_waits_for_its_own_store() {
    let upstream = Upstream::echo().await;
    let (collector, server) = Collector::start(&[]).await;
    collector.dies();
    let exporter = "telemetry: { activity: false, spool: { path: spool, encryption: store }, \
                    application_insights: { connection_string: { file: insights } }, records:";
    let config = managed(&service("iris", upstream.address, "")).replace("telemetry: { records:", exporter);
    let files = [("bootstrap.key", OWNER), ("insights", &connection_string(&server))];
    let mut gateway = Gateway::start_with(&config, &files).await;
    score(&gateway, 20).await;
    gateway.until_metric(&format!("scoregate_exporter_spooled{EXPORTER}"), 20.0).await;
    soon("the drain", gateway.drain()).await;
    let folder = gateway.dir.path();
    let before = segments(folder);
    assert!(!before.is_empty() && !holds(&before, "RequestId") && !holds(&before, "iris"));

    // Another store has another key.
    std::fs::rename(folder.join("store"), folder.join("away")).unwrap();
    let source = scoregate::control::config::Source::path(&folder.join("scoregate.yaml"));
    let loaded = scoregate::control::config::load(&source).unwrap();
    let refused = scoregate::app::Gateway::start(source, loaded).await.err().unwrap().to_string();
    assert!(
        refused.contains("spool.path") && refused.contains("encrypted under a key that is not at hand"),
        "{refused}"
    );
    assert_eq!(segments(folder), before, "left alone");

    std::fs::remove_dir_all(folder.join("store")).unwrap();
    std::fs::rename(folder.join("away"), folder.join("store")).unwrap();
    collector.is_back();
    let gateway = Gateway::start_in(gateway.dir, gateway.certificates).await;
    assert_eq!(until_settled(&gateway, 20).await, [20.0, 20.0, 0.0, 0.0]);
    assert_each_once(&collector.taken(), &recorded(gateway.dir.path()));
}
