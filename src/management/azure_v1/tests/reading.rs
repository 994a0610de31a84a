//! What the SDK reads: services, lists, operations, errors, addresses.

use super::*;
use crate::catalog::{Action, ComputeType};
use crate::management::azure_v1::{answer, listing, lookups, view};
use crate::management::operations::{ActivityStatus, OperationStatus, ServiceUris};
use crate::management::{Cause, Refusal};

fn view_of(spec: ServiceSpec) -> Value {
    let uris = ServiceUris {
        scoring: "https://gw:8443/api/v1/service/svc/score".into(),
        swagger: "https://gw:8443/api/v1/service/svc/swagger.json".into(),
    };
    let kind = Kind::of(&spec).unwrap();
    view::service(kind, &entry(spec), &view::Facts { uris: &uris, location: "westeurope" })
}

#[track_caller]
fn has_all(view: &Value, names: &[&str]) {
    for name in names {
        assert!(view.pointer(&format!("/{name}")).is_some(), "{name} is missing in {view:#}");
    }
}

const ALL: &[&str] = &["computeType", "createdTime", "description", "kvTags", "name", "properties"];
const AKS: &[&str] = &[
    "appInsightsEnabled",
    "authEnabled",
    "aadAuthEnabled",
    "autoScaler/autoscaleEnabled",
    "autoScaler/maxReplicas",
    "autoScaler/minReplicas",
    "autoScaler/refreshPeriodInSeconds",
    "autoScaler/targetUtilization",
    "computeName",
    "containerResourceRequirements/cpu",
    "containerResourceRequirements/cpuLimit",
    "containerResourceRequirements/gpu",
    "containerResourceRequirements/memoryInGB",
    "containerResourceRequirements/memoryInGBLimit",
    "dataCollection/eventHubEnabled",
    "dataCollection/storageEnabled",
    "maxConcurrentRequestsPerContainer",
    "maxQueueWaitMs",
    "numReplicas",
    "scoringTimeoutMs",
    "scoringUri",
    "livenessProbeRequirements",
];

#[test]
fn whatever_the_sdk_insists_on_is_there() {
    for spec in [created(smallest_aks()).unwrap(), ServiceSpec::new(ComputeType::Aks)] {
        let view = view_of(spec);
        has_all(&view, ALL);
        has_all(&view, AKS);
        assert_eq!(view["computeType"], "AKS");
    }
    for spec in [created(smallest_aci()).unwrap(), ServiceSpec::new(ComputeType::Aci)] {
        let view = view_of(spec);
        has_all(&view, ALL);
        let names = [
            "appInsightsEnabled",
            "authEnabled",
            "cname",
            "containerResourceRequirements/cpu",
            "containerResourceRequirements/memoryInGB",
            "location",
            "publicIp",
            "scoringUri",
            "sslCertificate",
            "sslEnabled",
            "sslKey",
        ];
        has_all(&view, &names);
        assert_eq!(
            (view["computeType"].as_str(), view["location"].as_str()),
            (Some("ACI"), Some("westeurope"))
        );
    }
    let view = view_of(created(endpoint()).unwrap());
    has_all(&view, ALL);
    has_all(&view, &["appInsightsEnabled", "authEnabled", "computeName", "scoringUri", "aadAuthEnabled"]);
    assert_eq!(view["computeType"], "AKSENDPOINT");
    let version = &view["versions"]["first"];
    has_all(version, ALL);
    has_all(version, AKS);
    assert_eq!((version["computeType"].as_str(), version["computeName"].as_str()), (Some("AKS"), Some("k")));
    assert_eq!((&version["trafficPercentile"], &version["isDefault"]), (&json!(100.0), &json!(true)));
}

#[test]
fn what_was_sent_comes_back_and_nothing_of_it_hides_what_the_gateway_says() {
    let sent = json!({
        "numReplicas": 2, "own": { "a": [1] }, "state": "Failed", "scoringUri": "http://elsewhere", "id": "x",
        "operationId": "forged", "autoScaler": null,
    });
    let mut spec = created(with(smallest_aks(), sent)).unwrap();
    // Whoever writes the catalogue natively may have put anything there.
    spec.azure.insert("createdTime".into(), "nonsense".into());
    let view = view_of(spec);
    assert_eq!(view["own"], json!({ "a": [1] }));
    assert_eq!(view["containerResourceRequirements"]["cpu"], json!(0.1));
    assert_eq!((&view["numReplicas"], &view["autoScaler"]["autoscaleEnabled"]), (&json!(2), &json!(false)));
    assert_eq!(view["state"], "Healthy");
    assert_eq!(view["scoringUri"], "https://gw:8443/api/v1/service/svc/score");
    assert_eq!(view["id"], "svc");
    assert_eq!(view["operationId"], Value::Null);
    assert_eq!(view["createdTime"], "2026-01-02T03:04:05Z");
}

#[test]
fn lists_are_filtered_by_what_the_sdk_asks_for() {
    let read = |text: &str| {
        let pairs: Vec<_> = url::form_urlencoded::parse(text.as_bytes()).into_owned().collect();
        listing::Query::read(&pairs)
    };
    let query =
        read("expand=true&computeType=AKS&tags=a%3Db,c&properties=p&%24skipToken=t&count=5000").unwrap();
    assert_eq!(query.kind, Some(Kind::Aks));
    assert_eq!(query.tags, [("a".to_owned(), Some("b".to_owned())), ("c".to_owned(), None)]);
    assert_eq!(query.properties, [("p".to_owned(), None)]);
    assert_eq!((query.count, query.cursor.as_deref()), (1_000, Some("t")));
    let next = query.next_link("https://gw/services", "t 2");
    assert!(next.starts_with("https://gw/services?expand=true&computeType=AKS&tags=a%3Db%2Cc"), "{next}");
    assert!(next.ends_with("&%24skipToken=t+2") && next.matches("skipToken").count() == 1, "{next}");
    assert!(read("computeType=IOT").unwrap().is_empty);
    assert!(read("count=0").is_err() && read("count=x").is_err());

    let aks = entry(created(smallest_aks()).unwrap());
    for (text, accepted) in [
        ("computeType=aks", true),
        ("computeType=AKSENDPOINT", false),
        ("modelId=m:1", true),
        ("modelId=m", false),
        ("modelName=m", true),
        ("modelName=x", false),
        ("imageId=i", false),
        ("name=svc", true),
        ("name=other", false),
    ] {
        assert_eq!(read(text).unwrap().accepts(Kind::Aks, &aks), accepted, "{text}");
    }
    let pairs =
        listing::pairs(json!({ "computeType": "ACI", "continuationToken": "t", "tags": null })).unwrap();
    let query = listing::Query::read(&pairs).unwrap();
    assert_eq!((query.kind, query.cursor.as_deref()), (Some(Kind::Aci), Some("t")));
    assert!(listing::pairs(json!({ "tags": [] })).is_err() && listing::pairs(json!([])).is_err());
}

#[test]
fn an_operation_has_a_state_that_ends_the_polling() {
    let status = |status, error: Option<&str>| OperationStatus {
        status,
        operation_name: "write".into(),
        resource_id: "/r".into(),
        started_at: datetime!(2026-01-02 03:04:05 UTC),
        ended_at: None,
        error: error.map(Into::into),
    };
    let of = |status| lookups::operation("id", &status);
    assert_eq!(of(status(ActivityStatus::Started, None))["state"], "Running");
    assert_eq!(of(status(ActivityStatus::Succeeded, None))["state"], "Succeeded");
    let failed = of(status(ActivityStatus::Failed, Some("BadRequest: no")));
    assert_eq!(
        (failed["state"].as_str(), failed["error"]["code"].as_str()),
        (Some("Failed"), Some("BadRequest"))
    );
}

#[test]
fn errors_can_be_read_by_both_sdks() {
    let refusal = Refusal::invalid("/x", "cannot be changed");
    let body = answer::body(&refusal);
    assert_eq!(body["message"], "/x: cannot be changed");
    assert_eq!(body["error"], json!({ "code": "BadRequest", "message": "/x: cannot be changed" }));
    assert_eq!((&body["statusCode"], &body["details"][0]["target"]), (&json!(400), &json!("/x")));
    assert!(body["correlation"].is_object());
    for cause in [Cause::Unavailable, Cause::Forbidden(Action::AksWrite), Cause::Internal] {
        let response = answer::refusal(&Refusal::new(cause, "x"));
        assert_eq!(response.status(), cause.status());
        // Azure's clients repeat whatever has it; the envelope of all faces puts it on 503.
        assert!(!response.headers().contains_key("retry-after"));
        assert_eq!(response.headers()["content-type"], "application/json");
    }
}

#[test]
fn discovery_sends_the_sdk_back_to_where_it_came() {
    let found = lookups::discovery("https://gw:9443");
    for name in ["api", "experimentation", "history", "hyperdrive", "modelmanagement", "studio"] {
        assert_eq!(found[name], "https://gw:9443");
    }
}
