//! `scoregate services`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Map, Value, json};

use super::Session;
use super::api::Call;
use super::metrics::Question;
use super::output::Column;

/// Services of a workspace.
#[derive(Debug, Subcommand)]
pub(in super::super) enum ServicesCommand {
    /// In the order of their names
    List {
        /// ACI, AKS or Managed
        #[arg(long, value_name = "TYPE")]
        compute_type: Option<String>,
        /// NAME or NAME=VALUE; several: all of them
        #[arg(long, value_name = "TAG")]
        tag: Vec<String>,
        /// At most so many
        #[arg(long, default_value_t = 1000)]
        limit: usize,
    },
    /// One of them
    Show { name: String },
    /// Make one with a single deployment
    Create(Create),
    /// Make or replace one as a file describes it
    Apply {
        name: String,
        /// YAML or JSON of the whole service as the API takes it (`-` for standard input)
        #[arg(long, short = 'f', value_name = "FILE")]
        file: PathBuf,
        /// Only if it is still as it was read: the etag of that answer
        #[arg(long, value_name = "ETAG")]
        if_match: Option<String>,
    },
    /// Change some of its fields
    Set {
        name: String,
        #[command(flatten)]
        fields: Fields,
    },
    /// How one went in the last 24 hours
    Metrics(Question),
    /// Delete one with its keys and deployments
    Delete { name: String },
}

/// A new service.
#[derive(Debug, Args)]
pub(in super::super) struct Create {
    name: String,
    /// ACI, AKS or Managed: decides defaults, the URI and the status mapping
    #[arg(long, value_name = "TYPE", default_value = "AKS")]
    compute_type: String,
    /// URL of a replica, such as http://10.0.0.7:5001; several: several replicas
    #[arg(long, value_name = "URL")]
    replica: Vec<String>,
    /// Name of its deployment
    #[arg(long, default_value = "default")]
    deployment: String,
    #[command(flatten)]
    fields: Fields,
}

/// Fields of a service.
#[derive(Debug, Args)]
pub(in super::super) struct Fields {
    /// none, key or token
    #[arg(long, value_name = "MODE")]
    auth: Option<String>,
    /// Host that means this service; several: all of them
    #[arg(long, value_name = "HOST")]
    host: Vec<String>,
    /// Calls at once per replica
    #[arg(long, value_name = "N")]
    concurrency: Option<u32>,
    /// Longest wait for the model's answer, in milliseconds
    #[arg(long, value_name = "MS")]
    scoring_timeout_ms: Option<u64>,
    /// Longest wait for a place, in milliseconds
    #[arg(long, value_name = "MS")]
    queue_wait_ms: Option<u64>,
    /// For people
    #[arg(long)]
    description: Option<String>,
    /// NAME=VALUE; NAME= takes a tag away
    #[arg(long, value_name = "TAG", value_parser = pair)]
    tag: Vec<(String, String)>,
}

const LIST: &[Column] = &[
    ("NAME", "/name"),
    ("TYPE", "/compute_type"),
    ("AUTH", "/auth"),
    ("ORIGIN", "/origin"),
    ("SCORING URI", "/scoring_uri"),
];

const ITEM: &[Column] = &[
    ("name", "/name"),
    ("workspace", "/workspace"),
    ("compute type", "/compute_type"),
    ("auth", "/auth"),
    ("origin", "/origin"),
    ("scoring URI", "/scoring_uri"),
    ("swagger URI", "/swagger_uri"),
    ("hosts", "/hosts"),
    ("limits", "/limits"),
    ("deployments", "/deployments"),
    ("tags", "/tags"),
    ("description", "/description"),
    ("updated", "/provenance/updated_at"),
    ("updated by", "/provenance/updated_by"),
];

impl ServicesCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// The API's refusal, or a file that cannot be read.
    pub(in super::super) fn run(self, mut on: Session<'_>) -> anyhow::Result<ExitCode> {
        match &self {
            ServicesCommand::List { compute_type, tag, limit } => {
                let mut query: Vec<(&str, String)> = tag.iter().map(|tag| ("tag", tag.clone())).collect();
                query.extend(compute_type.iter().map(|kind| ("compute_type", kind.clone())));
                let items = on.api.list(&on.in_workspace(&["services"])?, &query, *limit)?;
                on.out.list(&items, LIST)?;
            }
            ServicesCommand::Show { name } => {
                on.out.item(&on.api.get(&on.in_workspace(&["services", name])?)?, ITEM)?;
            }
            ServicesCommand::Create(create) => {
                let path = on.in_workspace(&["services", &create.name])?;
                let spec = create.spec();
                // What is there already must not be replaced by a create.
                let call = Call { if_none_match: true, ..Call::new(Method::PUT, &path).with_body(&spec) };
                let made = on.api.call(&call)?.value;
                on.out.done(&told(&create.name, "made", &made), &made)?;
            }
            ServicesCommand::Apply { name, file, if_match } => {
                let path = on.in_workspace(&["services", name])?;
                let spec = document(file)?;
                let call =
                    Call { if_match: if_match.as_deref(), ..Call::new(Method::PUT, &path).with_body(&spec) };
                let made = on.api.call(&call)?.value;
                on.out.done(&told(name, "set", &made), &made)?;
            }
            ServicesCommand::Set { name, fields } => {
                let made = on.change(name, &Value::Object(fields.patch()))?;
                on.out.done(&told(name, "changed", &made), &made)?;
            }
            ServicesCommand::Metrics(question) => on.metrics(question)?,
            ServicesCommand::Delete { name } => {
                on.confirm(&format!("delete service {name} with its keys and deployments"))?;
                let answer =
                    on.api.call(&Call::new(Method::DELETE, &on.in_workspace(&["services", name])?))?;
                on.out.done(&format!("service {name} is deleted"), &answer.value)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn told(name: &str, done: &str, service: &Value) -> String {
    let uri = service.get("scoring_uri").and_then(Value::as_str).unwrap_or_default();
    format!("service {name} is {done}; it is called at {uri}")
}

impl Create {
    fn spec(&self) -> Value {
        let mut spec = self.fields.patch();
        spec.insert("compute_type".into(), json!(self.compute_type));
        let deployment = json!({ "traffic": 100, "replicas": self.replica });
        spec.insert("deployments".into(), json!({ &self.deployment: deployment }));
        Value::Object(spec)
    }
}

impl Fields {
    /// What is given, as a JSON merge patch (RFC 7396).
    fn patch(&self) -> Map<String, Value> {
        let mut patch = Map::new();
        let mut limits = Map::new();
        let mut set = |name: &str, value: Option<Value>| {
            patch.extend(value.map(|value| (name.to_owned(), value)));
        };
        set("auth", self.auth.as_ref().map(|mode| json!(mode)));
        set("hosts", (!self.host.is_empty()).then(|| json!(self.host)));
        set("description", self.description.as_ref().map(|text| json!(text)));
        let tags: Map<String, Value> = self
            .tag
            .iter()
            .map(|(name, value)| (name.clone(), if value.is_empty() { Value::Null } else { json!(value) }))
            .collect();
        set("tags", (!tags.is_empty()).then_some(Value::Object(tags)));
        limits.extend(self.concurrency.map(|n| ("concurrent_requests_per_replica".to_owned(), json!(n))));
        limits.extend(self.scoring_timeout_ms.map(|ms| ("scoring_timeout_ms".to_owned(), json!(ms))));
        limits.extend(self.queue_wait_ms.map(|ms| ("queue_wait_ms".to_owned(), json!(ms))));
        set("limits", (!limits.is_empty()).then_some(Value::Object(limits)));
        patch
    }
}

/// `NAME=VALUE`.
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("must be NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn document(path: &Path) -> anyhow::Result<Value> {
    let text = if path == Path::new("-") {
        std::io::read_to_string(std::io::stdin()).context("standard input cannot be read")?
    } else {
        super::read(path)?
    };
    // JSON is YAML.
    serde_saphyr::from_str(&text).with_context(|| format!("{} is neither YAML nor JSON", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_given_is_changed() {
        let fields = Fields {
            auth: Some("token".into()),
            host: vec![],
            concurrency: Some(4),
            scoring_timeout_ms: None,
            queue_wait_ms: None,
            description: None,
            tag: vec![("team".into(), "a".into()), ("old".into(), String::new())],
        };
        let expected = json!({
            "auth": "token",
            "tags": {"team": "a", "old": null},
            "limits": {"concurrent_requests_per_replica": 4},
        });
        assert_eq!(Value::Object(fields.patch()), expected);
    }
}
