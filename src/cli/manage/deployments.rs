//! `scoregate deployments`.

use std::process::ExitCode;

use anyhow::bail;
use clap::Subcommand;
use http::Method;
use serde_json::{Map, Value, json};

use super::Session;
use super::api::Call;
use super::output::Column;

/// Deployments of a service.
#[derive(Debug, Subcommand)]
pub(in super::super) enum DeploymentsCommand {
    /// In the order of their names
    List { service: String },
    /// Make one, or give one other replicas; a new one gets no traffic
    Set {
        service: String,
        name: String,
        /// URL of a replica; several: several replicas
        #[arg(long, value_name = "URL", required = true)]
        replica: Vec<String>,
    },
    /// Divide the traffic, all at once: `traffic iris blue=90 green=10`
    Traffic {
        service: String,
        /// NAME=PERCENT; those not named get 0; together 100 (or 0)
        #[arg(required = true, value_parser = share)]
        shares: Vec<(String, u8)>,
    },
    /// Delete one that has no traffic
    Delete { service: String, name: String },
}

const COLUMNS: &[Column] = &[
    ("NAME", "/name"),
    ("TRAFFIC", "/traffic"),
    ("REPLICAS", "/replicas"),
    ("LIMITS", "/limits"),
    ("DESCRIPTION", "/description"),
];

impl DeploymentsCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// The API's refusal.
    pub(in super::super) fn run(self, mut on: Session<'_>) -> anyhow::Result<ExitCode> {
        match &self {
            DeploymentsCommand::List { service } => {
                let items = named(&deployments(&on, service)?);
                on.out.list(&items, COLUMNS)?;
            }
            DeploymentsCommand::Set { service, name, replica } => {
                let made =
                    on.change(service, &json!({ "deployments": { name: { "replicas": replica } } }))?;
                on.out.done(&format!("deployment {name} of {service} is set"), &made)?;
            }
            DeploymentsCommand::Traffic { service, shares } => {
                let before = deployments(&on, service)?;
                if let Some((unknown, _)) = shares.iter().find(|(name, _)| !before.contains_key(name)) {
                    let known: Vec<_> = before.keys().map(String::as_str).collect();
                    bail!("{service} has no deployment {unknown}; it has {}", known.join(", "));
                }
                let share =
                    |name: &str| shares.iter().find(|(named, _)| named == name).map_or(0, |(_, it)| *it);
                let divided: Map<String, Value> =
                    before.keys().map(|name| (name.clone(), json!({ "traffic": share(name) }))).collect();
                let made = on.change(service, &json!({ "deployments": divided }))?;
                on.out.done(&format!("traffic of {service} is divided"), &made)?;
            }
            DeploymentsCommand::Delete { service, name } => {
                on.confirm(&format!("delete deployment {name} of {service}"))?;
                let path = on.in_workspace(&["services", service, "deployments", name])?;
                let answer = on.api.call(&Call::new(Method::DELETE, &path))?;
                on.out.done(&format!("deployment {name} of {service} is deleted"), &answer.value)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn deployments(on: &Session<'_>, service: &str) -> anyhow::Result<Map<String, Value>> {
    let mut service = on.api.get(&on.in_workspace(&["services", service])?)?;
    Ok(match service.get_mut("deployments").map(Value::take) {
        Some(Value::Object(deployments)) => deployments,
        _ => Map::new(),
    })
}

/// The map as a list of things that bear their names.
fn named(deployments: &Map<String, Value>) -> Vec<Value> {
    let with_name = |(name, deployment): (&String, &Value)| {
        let mut item = deployment.clone();
        if let Some(fields) = item.as_object_mut() {
            fields.insert("name".into(), json!(name));
        }
        item
    };
    deployments.iter().map(with_name).collect()
}

fn share(text: &str) -> Result<(String, u8), String> {
    let (name, percent) = super::services::pair(text)?;
    let percent = percent.parse().ok().filter(|percent| *percent <= 100);
    Ok((name, percent.ok_or("the percent must be a whole number from 0 to 100")?))
}
