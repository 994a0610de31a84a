//! A gateway that is killed while keys are regenerated: what was answered is there, and nothing is half there.

use std::process::Command;
use std::time::Duration;

use serde_json::json;

use super::process::{self, Process, folder};

/// How often it is killed.
const KILLS: usize = 200;
const IRIS: &str = "/v1/workspaces/default/services/iris";
const SLOTS: [&str; 2] = ["primary", "secondary"];

async fn keys(process: &Process) -> [String; 2] {
    let answer = process::call(&mut process.api().await, "GET", &format!("{IRIS}/keys"), &json!({})).await;
    let keys = process::json(&answer.unwrap());
    SLOTS.map(|slot| keys[slot]["value"].as_str().unwrap().to_owned())
}

/// Regenerates the keys in turn until the process is killed; `pair` follows what was answered. Returns the slot whose
/// answer did not come.
async fn regenerate_until_killed(process: &mut Process, pair: &mut [String; 2]) -> usize {
    let mut connection = process.api().await;
    let pid = process.child.id();
    let delay = Duration::from_micros(fastrand::u64(0..25_000));
    let killer = tokio::task::spawn_blocking(move || {
        std::thread::sleep(delay);
        let killed = Command::new("sh").args(["-c", "kill -9 \"$0\"", &pid.to_string()]).status();
        assert!(killed.unwrap().success());
    });
    let mut slot = 0;
    loop {
        let path = format!("{IRIS}/keys/{}/regenerate", SLOTS[slot]);
        let Some(answer) = process::call(&mut connection, "POST", &path, &json!({})).await else { break };
        pair[slot] = process::json(&answer)["value"].as_str().unwrap().to_owned();
        slot = 1 - slot;
    }
    killer.await.unwrap();
    process.child.wait().unwrap();
    slot
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_keys_are_regenerated_the_store_opens_with_the_old_pair_or_the_new() {
    let (dir, ca) = folder();
    let start = || Process::start(dir.path(), &ca);
    let mut process = start();
    // Its replica is not there: 502 says that the key opened.
    let spec = json!({
        "compute_type": "AKS",
        "deployments": { "blue": { "traffic": 100, "replicas": ["http://127.0.0.2:1"] } },
    });
    let made = process::call(&mut process.api().await, "PUT", IRIS, &spec).await;
    process::json(&made.unwrap());
    let mut pair = keys(&process).await;
    let mut moved_on = 0;
    for kill in 0..KILLS {
        let before = pair.clone();
        let slot = regenerate_until_killed(&mut process, &mut pair).await;
        process = start();
        let found = keys(&process).await;
        let other = 1 - slot;
        assert_eq!(found[other], pair[other], "kill {kill}: a key that nobody touched, or that was answered");
        // The slot whose answer did not come has the key before it or a new one; that one opens, and no other.
        if found[slot] != pair[slot] {
            assert_eq!(process.score(&pair[slot]).await.status, 401, "kill {kill}: the replaced key is dead");
        }
        assert_eq!(process.score(&found[slot]).await.status, 502, "kill {kill}: the key that is there opens");
        moved_on += usize::from(pair != before);
        pair = found;
    }
    assert!(moved_on > 0, "no kill came after an answer: the delays are too short to test anything");
}
