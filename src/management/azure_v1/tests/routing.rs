//! Which call a method and a path are.

use http::Method;

use crate::management::azure_v1::route::{Call, Place, ProviderCall, model_management, provider};

const WORKSPACE: &str =
    "subscriptions/Sub/resourceGroups/rg/providers/Microsoft.MachineLearningServices/workspaces/ws";

fn call(method: &Method, rest: &str) -> Option<Call> {
    model_management(method, &format!("v1.0/{WORKSPACE}{rest}")).map(|(_, call)| call)
}

#[test]
fn every_call_of_the_table_is_found() {
    let name = || "svc".to_owned();
    for (method, rest, expected) in [
        (Method::GET, "/services", Call::List),
        (Method::POST, "/services", Call::Create),
        (Method::PUT, "/services", Call::Replace),
        (Method::POST, "/services/list", Call::ListByFilter),
        (Method::GET, "/services/list", Call::Get("list".into())),
        (Method::POST, "/services/migrate", Call::Migrate),
        (Method::POST, "/services/validate", Call::Validate),
        (Method::POST, "/services/validate/resource", Call::ValidateResource),
        (Method::POST, "/services/validate/name/Svc", Call::ValidateName("Svc".into())),
        (Method::GET, "/services/svc", Call::Get(name())),
        (Method::PATCH, "/services/svc", Call::Patch(name())),
        (Method::DELETE, "/services/svc", Call::Delete(name())),
        (Method::POST, "/services/svc/listkeys", Call::ListKeys(name())),
        (Method::POST, "/services/svc/listKeys", Call::ListKeys(name())),
        (Method::POST, "/services/svc/regenerateKeys", Call::RegenerateKey(name())),
        (Method::POST, "/services/svc/token", Call::Token(name())),
        (Method::GET, "/services/svc/logs", Call::Logs(name())),
        (Method::GET, "/services/svc/logs/", Call::Logs(name())),
        (Method::GET, "/operations/ID", Call::Operation("ID".into())),
    ] {
        assert_eq!(call(&method, rest), Some(expected), "{method} {rest}");
    }
}

#[test]
fn fixed_parts_are_found_in_any_letter_case_and_names_stay_as_they_are() {
    let path = "v1.0/SUBSCRIPTIONS/Sub/resourcegroups/RG/Providers/microsoft.machinelearningservices/Workspaces/Ws/SERVICES";
    let (place, call) = model_management(&Method::GET, path).unwrap();
    let expected = Place { subscription: "Sub".into(), resource_group: "RG".into(), workspace: "Ws".into() };
    assert_eq!((place, call), (expected, Call::List));
    let (_, call) = provider(&Method::GET, &format!("{WORKSPACE}/Computes/K")).unwrap();
    assert_eq!(call, ProviderCall::Compute("K".into()));
    assert_eq!(provider(&Method::GET, WORKSPACE).unwrap().1, ProviderCall::Workspace);
}

#[test]
fn nothing_else_is_a_call() {
    for (method, rest) in [
        (Method::GET, ""),
        (Method::DELETE, "/services"),
        (Method::GET, "/services/svc/token"),
        (Method::POST, "/services/svc"),
        (Method::POST, "/services//listkeys"),
        (Method::GET, "/services/svc/logs/more"),
        (Method::GET, "/models"),
    ] {
        assert_eq!(call(&method, rest), None, "{method} {rest}");
    }
    assert!(model_management(&Method::GET, "v1.0/services").is_none());
    assert!(model_management(&Method::GET, "").is_none());
    assert!(provider(&Method::PUT, WORKSPACE).is_none());
    assert!(provider(&Method::GET, "subscriptions/s/resourceGroups/rg").is_none());
}
