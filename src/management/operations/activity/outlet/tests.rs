//! Every event leaves once and in order, over restarts and kills, and with no more of its caller than privacy allows.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

use super::*;
use crate::catalog::{Action, BuiltInRole};
use crate::management::operations::fixtures::{DECLARED, Gateway, holder, holder_in, settings};
use crate::management::operations::resource::Resource;
use crate::management::{Caller, Cause};
use crate::proxy::ServiceChanges;
use crate::store::Store as _;

/// Keeps what it is handed.
#[derive(Default)]
struct Kept(Mutex<(Option<u64>, Vec<Value>)>);

impl Kept {
    /// Sequences of its events.
    fn sequences(&self) -> Vec<u64> {
        self.0.lock().unwrap().1.iter().map(|event| event["sequence"].as_u64().unwrap()).collect()
    }

    /// One that has the same mark, as after a restart.
    fn reopened(&self) -> Self {
        Self(Mutex::new((self.reached(), Vec::new())))
    }
}

impl EventOutlet for Kept {
    fn reached(&self) -> Option<u64> {
        self.0.lock().unwrap().0
    }

    fn take(&self, lines: &[u8], reached: u64) {
        let mut kept = self.0.lock().unwrap();
        kept.0 = Some(reached);
        let lines = std::str::from_utf8(lines).unwrap().lines();
        kept.1.extend(lines.map(|line| serde_json::from_str::<Value>(line).unwrap()));
    }
}

/// Two events.
fn touch(gateway: &Gateway, caller: &Caller) {
    let resource =
        Resource::workspace(DECLARED, &Default::default()).within("revocations/alice%40example.org");
    let _ = gateway
        .operations
        .write(caller, Action::TokenRevoke, &resource, |_| Ok(((), ServiceChanges::default())));
}

#[test]
fn an_outlet_gets_what_comes_from_its_first_look_on_each_event_once_and_in_order() {
    let gateway = Gateway::new();
    let owner = holder(BuiltInRole::Owner);
    touch(&gateway, &owner);
    let outlet = Kept::default();
    let hand_out = |outlet: &Kept| gateway.operations.hand_out(outlet, Privacy::Standard).unwrap();
    hand_out(&outlet);
    assert_eq!((outlet.reached(), outlet.sequences()), (Some(2), vec![]), "nothing old");
    // More than are read at once.
    (0..ROWS_AT_ONCE).for_each(|_| touch(&gateway, &owner));
    hand_out(&outlet);
    hand_out(&outlet);
    let last = 2 + 2 * ROWS_AT_ONCE as u64;
    assert_eq!(outlet.sequences(), (3..=last).collect::<Vec<_>>());

    // What was committed and not handed out when the process ended.
    touch(&gateway, &owner);
    let again = Gateway::on(Arc::clone(&gateway.store), settings());
    let outlet = outlet.reopened();
    again.operations.hand_out(&outlet, Privacy::Standard).unwrap();
    assert_eq!(outlet.sequences(), [last + 1, last + 2]);
}

#[test]
fn an_older_store_is_followed_from_its_end_and_what_retention_took_is_passed_over() {
    let gateway = Gateway::new();
    let owner = holder(BuiltInRole::Owner);
    let ahead = Kept(Mutex::new((Some(50), Vec::new())));
    gateway.operations.hand_out(&ahead, Privacy::Standard).unwrap();
    touch(&gateway, &owner);
    gateway.operations.hand_out(&ahead, Privacy::Standard).unwrap();
    assert_eq!(ahead.sequences(), [1, 2]);

    let mut short = settings();
    short.activity_retention = Duration::ZERO;
    let gateway = Gateway::with(short);
    let behind = Kept(Mutex::new((Some(0), Vec::new())));
    (0..30).for_each(|_| touch(&gateway, &owner));
    gateway.operations.hand_out(&behind, Privacy::Standard).unwrap();
    assert_eq!((behind.reached(), behind.sequences().last()), (Some(60), Some(&60)));
    assert!(behind.sequences().len() < 60);
}

#[test]
fn a_store_that_cannot_be_read_costs_nothing() {
    let gateway = Gateway::new();
    let outlet = Kept(Mutex::new((Some(0), Vec::new())));
    touch(&gateway, &holder(BuiltInRole::Owner));
    let good = gateway.store.get(Table::Activity, &1_u64.to_be_bytes()).unwrap().unwrap().value;
    let put = |value: &[u8]| {
        let mut batch = crate::store::Batch::default();
        batch.put(Table::Activity, 1_u64.to_be_bytes(), value);
        gateway.store.commit(batch).unwrap();
    };
    put(b"damaged");
    let refused = gateway.operations.hand_out(&outlet, Privacy::Standard).unwrap_err();
    assert_eq!((refused.cause, outlet.reached()), (Cause::Unavailable, Some(0)));
    put(&good);
    gateway.operations.hand_out(&outlet, Privacy::Standard).unwrap();
    assert_eq!(outlet.sequences(), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_logged_event_is_told_of() {
    let gateway = Gateway::new();
    let told =
        async || tokio::time::timeout(Duration::from_millis(1), gateway.operations.event_logged()).await;
    touch(&gateway, &holder(BuiltInRole::Owner));
    assert!(told().await.is_ok());
    assert!(told().await.is_err(), "once");
    // A refused attempt is an event as well.
    touch(&gateway, &holder(BuiltInRole::Reader));
    assert!(told().await.is_ok());
}

#[test]
fn under_high_privacy_an_event_has_nothing_of_its_caller() {
    let gateway = Gateway::new();
    let mut eve = holder_in("other", BuiltInRole::Owner);
    eve.principal = "eve@example.org".into();
    eve.request.client = "192.0.2.7".parse().unwrap();
    eve.request.client_request_id = Some("ticket-of-eve".into());
    let of = |privacy| {
        let outlet = Kept(Mutex::new((Some(0), Vec::new())));
        gateway.operations.hand_out(&outlet, privacy).unwrap();
        outlet.0.into_inner().unwrap().1
    };
    touch(&gateway, &eve);
    let (standard, high) = (of(Privacy::Standard), of(Privacy::High));
    let text = |events: &[Value]| Value::from(events.to_vec()).to_string();
    for marker in ["eve@", "192.0.2.7", "ticket-of-eve", "alice", "previousHash"] {
        assert!(text(&standard).contains(marker), "{marker} in {standard:?}");
        assert!(!text(&high).contains(marker), "{marker} in {high:?}");
    }
    let failed = &high[1];
    assert_eq!((failed["status"].as_str(), failed["statusCode"].as_u64()), (Some("Failed"), Some(403)));
    assert_eq!(failed["error"], "AuthorizationFailed");
    assert_eq!(failed["operationName"], Action::TokenRevoke.as_str());
    assert!(failed["resourceId"].as_str().unwrap().ends_with("/revocations"));
    let expected = [
        "eventTimestamp",
        "sequence",
        "operationId",
        "operationName",
        "method",
        "resourceId",
        "status",
        "statusCode",
        "error",
    ];
    assert!(failed.as_object().unwrap().keys().all(|key| expected.contains(&key.as_str())), "{failed}");
}
