//! Calls about services: list, read, create, change, delete, and the checks that the SDK makes before.

use serde_json::{Map, Value, json};

use crate::catalog::{ServiceEntry, ServiceName, ServiceSpec, WorkspaceEntry};
use crate::management::operations::{Page, Precondition, ServiceFilter, SuppliedKeys, Versioned};
use crate::management::{Caller, Cause, Operations, Refusal};

use super::answer::{self, Answer};
use super::fields::Fields;
use super::kind::Kind;
use super::view::{self, Facts};
use super::{document, listing, patch};

/// The services of one workspace, for one caller.
pub struct Services<'a> {
    /// The mechanism.
    pub operations: &'a Operations,
    /// Who calls.
    pub caller: &'a Caller,
    /// Where.
    pub workspace: &'a WorkspaceEntry,
}

/// What a request to create a service says.
struct Creation {
    name: String,
    spec: ServiceSpec,
    keys: SuppliedKeys,
    precondition: Precondition,
}

impl Services<'_> {
    /// One page of those that pass `query`; `url` is that of the list, for the link to the next page.
    pub fn list(&self, query: &[(String, String)], url: &str) -> Result<Answer, Refusal> {
        let query = listing::Query::read(query)?;
        let (value, next) = self.page(&query)?;
        let mut list = json!({ "value": value });
        // The SDK follows a link that is there, whatever is in it: none on the last page.
        if let Some(next) = next {
            list["nextLink"] = query.next_link(url, &next).into();
        }
        Ok(Answer::Found(list))
    }

    /// The same, for clients that send the filter as a body.
    pub fn list_by_filter(&self, body: Value) -> Result<Answer, Refusal> {
        let query = listing::Query::read(&listing::pairs(body)?)?;
        let (value, next) = self.page(&query)?;
        Ok(Answer::Found(json!({ "value": value, "continuationToken": next })))
    }

    fn page(&self, query: &listing::Query) -> Result<(Vec<Value>, Option<String>), Refusal> {
        if query.is_empty {
            return Ok((Vec::new(), None));
        }
        let filter = ServiceFilter {
            compute_type: query.kind.map(Kind::compute_type),
            tags: query.tags.clone(),
            properties: query.properties.clone(),
        };
        let page = Page { limit: query.count, cursor: query.cursor.clone() };
        let found = self.operations.services(self.caller, &self.workspace.name, &filter, &page)?;
        let views = found.items.iter().filter_map(|found| {
            let kind = Kind::of(&found.value.spec)?;
            query.accepts(kind, &found.value).then(|| self.view(kind, &found.value))
        });
        Ok((views.collect(), found.next))
    }

    /// One service.
    pub fn get(&self, name: &str) -> Result<Answer, Refusal> {
        let (kind, found) = self.find(name)?;
        Ok(Answer::Found(self.view(kind, &found.value)))
    }

    /// Makes a service, or replaces one if the request says `overwrite` or `precondition` asks for nothing.
    pub fn create(&self, body: Value, precondition: Precondition) -> Result<Answer, Refusal> {
        let mut creation = Creation::read(body, precondition)?;
        self.stamp(&mut creation.spec);
        let Creation { name, spec, keys, precondition } = creation;
        let workspace = &self.workspace.name;
        let written = self.operations.put_service(self.caller, workspace, &name, spec, keys, precondition);
        let (written, _) = written.map_err(|refusal| match refusal.cause {
            Cause::PreconditionFailed if precondition == Precondition::Absent => taken(&name),
            _ => refusal,
        })?;
        self.accepted(&written)
    }

    /// Changes a service by JSON Patch.
    pub fn patch(&self, name: &str, body: &Value) -> Result<Answer, Refusal> {
        let change = |entry: &ServiceEntry| {
            let mut spec = patch::apply(entry, body)?;
            self.stamp(&mut spec);
            Ok(spec)
        };
        let workspace = &self.workspace.name;
        let changed =
            self.operations.change_service(self.caller, workspace, name, Precondition::None, &change)?;
        self.accepted(&changed)
    }

    /// Deletes a service; one that is not there is nothing to do.
    pub fn delete(&self, name: &str) -> Result<Answer, Refusal> {
        self.hide_managed(name)?;
        match self.operations.delete_service(self.caller, &self.workspace.name, name, Precondition::None) {
            Ok(()) => Ok(Answer::Done),
            Err(refusal) if refusal.cause == Cause::NotFound => Ok(Answer::Nothing),
            Err(refusal) => Err(refusal),
        }
    }

    /// Whether a new service may be called `name`. What speaks against it is told with status 200: that is where the SDK
    /// looks for it.
    pub fn validate_name(&self, name: &str) -> Result<Answer, Refusal> {
        let verdict = ServiceName::parse(name)
            .map_err(|error| Refusal::invalid("name", error.to_string()))
            .and_then(|_| self.must_be_free(name));
        verdict_of(verdict)
    }

    /// Whether a request to create, change or delete would be taken, by all that can be told without doing it.
    pub fn validate(&self, body: Value) -> Result<Answer, Refusal> {
        let mut fields = Fields::of("", body)?;
        let name = fields.text("serviceName")?.unwrap_or_default();
        let (create, update) = (fields.take("createRequest"), fields.take("updateRequest"));
        let verdict = match (fields.text("type")?.as_deref(), create, update) {
            (Some("Create"), Some(request), _) => {
                Creation::read(request, Precondition::Absent).and_then(|creation| {
                    match creation.precondition {
                        Precondition::Absent => self.must_be_free(&creation.name),
                        _ => Ok(()),
                    }
                })
            }
            (Some("Update"), _, Some(request)) => {
                self.find(&name).and_then(|(_, found)| patch::apply(&found.value, &request).map(drop))
            }
            _ => Ok(()),
        };
        verdict_of(verdict)
    }

    /// The service `name`, if this SDK can know of it.
    pub fn find(&self, name: &str) -> Result<(Kind, Versioned<ServiceEntry>), Refusal> {
        let found = self.operations.service(self.caller, &self.workspace.name, name)?;
        let kind = Kind::of(&found.value.spec).ok_or_else(|| unknown(name))?;
        Ok((kind, found))
    }

    /// Refuses calls about a Managed service, whose rules are SDK v2's. A caller that may not even see the service is let
    /// on: the operation itself refuses it, and logs that.
    pub fn hide_managed(&self, name: &str) -> Result<(), Refusal> {
        match self.operations.service(self.caller, &self.workspace.name, name) {
            Ok(found) if Kind::of(&found.value.spec).is_none() => Err(unknown(name)),
            _ => Ok(()),
        }
    }

    fn must_be_free(&self, name: &str) -> Result<(), Refusal> {
        match self.operations.service(self.caller, &self.workspace.name, name) {
            Ok(_) => Err(taken(name)),
            Err(refusal) if refusal.cause == Cause::NotFound => Ok(()),
            Err(refusal) => Err(refusal),
        }
    }

    fn accepted(&self, written: &Versioned<ServiceEntry>) -> Result<Answer, Refusal> {
        let entry = &written.value;
        let kind = Kind::of(&entry.spec).ok_or_else(|| unknown(entry.name.as_str()))?;
        Ok(Answer::Accepted(self.view(kind, entry)))
    }

    fn view(&self, kind: Kind, entry: &ServiceEntry) -> Value {
        let uris = self.operations.uris(entry);
        view::service(kind, entry, &Facts { uris: &uris, location: &self.workspace.spec.location })
    }

    fn stamp(&self, spec: &mut ServiceSpec) {
        let id = self.caller.request.operation_id.to_string();
        spec.azure.insert(view::OPERATION_ID.into(), id.into());
    }
}

impl Creation {
    fn read(body: Value, precondition: Precondition) -> Result<Self, Refusal> {
        let mut fields = Fields::of("", body)?;
        let name = fields.text("name")?.ok_or_else(|| Refusal::invalid("name", "is missing"))?;
        ServiceName::parse(&name).map_err(|error| Refusal::invalid("name", error.to_string()))?;
        let word =
            fields.text("computeType")?.ok_or_else(|| Refusal::invalid("computeType", "is missing"))?;
        let kind = Kind::named(&word)?;
        let keys = supplied_keys(&mut fields)?;
        let precondition =
            if fields.flag("overwrite")?.unwrap_or(false) { Precondition::None } else { precondition };
        let spec = document::create(kind, fields.rest())?;
        Ok(Self { name, spec, keys, precondition })
    }
}

fn supplied_keys(fields: &mut Fields) -> Result<SuppliedKeys, Refusal> {
    let Some(keys) = fields.take("keys") else { return Ok(SuppliedKeys::default()) };
    let mut keys = Fields::of("keys", keys)?;
    let mut key = |name| Ok::<_, Refusal>(keys.text(name)?.map(Into::into));
    Ok(SuppliedKeys { primary: key("primaryKey")?, secondary: key("secondaryKey")? })
}

/// `{}`, or the error of what is wrong with the request; what is wrong with the caller or the gateway stays a refusal.
fn verdict_of(verdict: Result<(), Refusal>) -> Result<Answer, Refusal> {
    match verdict {
        Ok(()) => Ok(Answer::Found(Map::new().into())),
        Err(refusal) if matches!(refusal.cause.status(), 400 | 404 | 409) => {
            Ok(Answer::Found(answer::body(&refusal)))
        }
        Err(refusal) => Err(refusal),
    }
}

fn taken(name: &str) -> Refusal {
    let message = format!("web service '{name}' exists already; choose another name, or say overwrite");
    Refusal::new(Cause::AlreadyExists, message)
}

/// There is no such service, as far as this SDK is concerned.
pub fn unknown(name: &str) -> Refusal {
    Refusal::not_found(format_args!("web service '{name}'"))
}
