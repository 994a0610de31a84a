//! Who calls the management plane, and what that caller may do where.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use uuid::Uuid;

use crate::catalog::{Action, ActionSet, Scope};

use super::{Cause, Refusal};

/// An authenticated caller with the facts of its request that the activity log keeps.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Subject of the management token or of the outside issuer's token.
    pub principal: Arc<str>,
    /// What it may do.
    pub grants: Arc<Grants>,
    /// What is known of the request.
    pub request: RequestFacts,
}

/// What the activity log keeps of a request.
#[derive(Clone, Debug)]
pub struct RequestFacts {
    /// Address of the client.
    pub client: IpAddr,
    /// HTTP method.
    pub method: String,
    /// Ties the events of one operation together; names the operation to those who poll it.
    pub operation_id: Uuid,
    /// `x-ms-client-request-id` or `x-request-id`, shortened to 100 printable characters.
    pub client_request_id: Option<String>,
}

/// Actions by scope.
#[derive(Clone, Debug, Default)]
pub struct Grants {
    /// Allowed everywhere.
    pub gateway: ActionSet,
    /// Allowed in one workspace more, by its name in lower case.
    pub workspaces: HashMap<String, ActionSet>,
}

impl Grants {
    /// What is allowed in `workspace` (`None`: on the gateway as a whole).
    #[must_use]
    pub fn within(&self, workspace: Option<&str>) -> ActionSet {
        let more = workspace.and_then(|name| self.workspaces.get(&name.to_ascii_lowercase())).copied();
        self.gateway.and(more.unwrap_or_default())
    }

    /// What is allowed in some place at least.
    #[must_use]
    pub fn anywhere(&self) -> ActionSet {
        self.workspaces.values().fold(self.gateway, |all, more| all.and(*more))
    }

    /// Whether all that `other` allows is allowed here too, place by place.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let within = |(name, actions): (&String, &ActionSet)| self.within(Some(name)).covers(*actions);
        self.gateway.covers(other.gateway) && other.workspaces.iter().all(within)
    }

    /// Allows `actions` at `scope` too.
    pub fn add(&mut self, scope: &Scope, actions: ActionSet) {
        let held = match scope {
            Scope::Gateway => &mut self.gateway,
            Scope::Workspace(name) => self.workspaces.entry(name.to_ascii_lowercase()).or_default(),
        };
        *held = held.and(actions);
    }

    /// Allows what `other` allows too.
    pub fn merge(&mut self, other: &Self) {
        self.gateway = self.gateway.and(other.gateway);
        for (name, actions) in &other.workspaces {
            let held = self.workspaces.entry(name.clone()).or_default();
            *held = held.and(*actions);
        }
    }
}

impl Caller {
    /// Lets `action` in `workspace` (`None`: the gateway as a whole) pass.
    ///
    /// # Errors
    /// [`Cause::Forbidden`]; names the action and where.
    pub fn check(&self, action: Action, workspace: Option<&str>) -> Result<(), Refusal> {
        if self.grants.within(workspace).allows(action) {
            return Ok(());
        }
        let place = workspace.map_or_else(|| "the gateway".to_owned(), |name| format!("workspace {name}"));
        Err(Refusal::new(
            Cause::Forbidden(action),
            format!("'{}' has no role in {place} that allows {action}", self.principal),
        ))
    }
}
