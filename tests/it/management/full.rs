//! A store that cannot grow any more: writes are refused and change nothing, and scoring goes on.

use serde_json::json;

use super::process::{self, Process, folder};
use crate::harness::{Upstream, eventually, ok};

const IRIS: &str = "/v1/workspaces/default/services/iris";

#[tokio::test(flavor = "multi_thread")]
async fn when_the_store_cannot_grow_writes_are_refused_and_scoring_goes_on() {
    let upstream = Upstream::answering(|_| ok(b"[1]")).await;
    let (dir, ca) = folder();
    let process = Process::start_with_small_files(300, dir.path(), &ca);
    let mut api = process.api().await;
    let spec = json!({
        "compute_type": "AKS",
        "deployments": { "blue": { "traffic": 100, "replicas": [format!("http://{}", upstream.address)] } },
    });
    process::json(&process::call(&mut api, "PUT", IRIS, &spec).await.unwrap());
    let keys = process::call(&mut api, "GET", &format!("{IRIS}/keys"), &json!({})).await.unwrap();
    let key = process::json(&keys)["primary"]["value"].as_str().unwrap().to_owned();

    let mut made = Vec::new();
    let refused = loop {
        let name = format!("svc-{}", made.len());
        let mut big = spec.clone();
        big["properties"] = json!({ "filler": "x".repeat(8000) });
        let path = format!("/v1/workspaces/default/services/{name}");
        let answer = process::call(&mut process.api().await, "PUT", &path, &big).await.unwrap();
        match answer.status {
            201 => made.push(name),
            _ => break answer,
        }
        assert!(made.len() < 1000, "the limit on the size of files does nothing here");
    };
    assert!([503, 507].contains(&refused.status), "{}", refused.text());
    assert!(refused.text().contains("nothing was changed"), "{}", refused.text());

    assert_eq!(process.score(&key).await.status, 200);
    assert_eq!(process.score("wrong").await.status, 401, "nothing is ever open");
    let regenerate = format!("{IRIS}/keys/primary/regenerate");
    let again = process::call(&mut process.api().await, "POST", &regenerate, &json!({})).await.unwrap();
    if again.status >= 300 {
        assert_eq!(process.score(&key).await.status, 200, "the key that was not replaced still opens");
    }
    let ready = process.observe("/readyz?verbose").await;
    assert!(ready.contains("store"), "{ready}");
    drop(process);

    // With room again everything that was answered is there, and nothing else.
    let process = Process::start(dir.path(), &ca);
    let path = "/v1/workspaces/default/services?limit=1000";
    let list = process::call(&mut process.api().await, "GET", path, &json!({})).await.unwrap();
    let names: Vec<_> = process::json(&list)["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["name"].as_str().unwrap().to_owned())
        .collect();
    made.push("iris".to_owned());
    made.sort();
    assert_eq!(names, made);
    eventually("a write once there is room", async || {
        let regenerated = process::call(&mut process.api().await, "POST", &regenerate, &json!({})).await?;
        (regenerated.status == 200).then_some(())
    })
    .await;
}
