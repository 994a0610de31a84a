//! What the management plane can do: the one mechanism behind all faces. Every method blocks on the store.
//!
//! Each write authorises, logs its start, checks its input, changes the store in one batch together with the event of its
//! end, and hands the change to the data plane, in this order; a refused attempt is in the log too. Reads authorise and
//! leave no event.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::catalog::{
    CustomRole, DeploymentSpec, Grantee, KeySlot, RoleAssignment, Scope, ServiceEntry, ServiceName,
    ServiceSpec, WorkspaceEntry, WorkspaceSpec,
};
use crate::store::{CheckReport, Store, seal::Sealer};

use super::{Caller, Refusal, RequestFacts};

/// Something with the version that it was read in; the version is its ETag.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Versioned<T> {
    /// What was read.
    pub value: T,
    /// Grows with every change; 0 for what is declared.
    pub version: u64,
}

/// What must be true of a resource for a write to happen (`If-Match`, `If-None-Match`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precondition {
    /// Whatever is there.
    #[default]
    None,
    /// Nothing is there (`If-None-Match: *`).
    Absent,
    /// Something is there (`If-Match: *`).
    Present,
    /// It is as it was read.
    Version(u64),
}

/// Whether a write made something new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It was not there.
    Created,
    /// It was changed.
    Replaced,
}

/// Which part of a list.
#[derive(Clone, Debug)]
pub struct Page {
    /// At most so many, 1 to 1,000.
    pub limit: usize,
    /// Goes on after the place that a page before gave as `next`; opaque to callers.
    pub cursor: Option<String>,
}

impl Default for Page {
    fn default() -> Self {
        Self { limit: 100, cursor: None }
    }
}

/// Part of a list.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PageOf<T> {
    /// The items of this page.
    pub items: Vec<T>,
    /// Where the next page begins; `None` on the last one.
    pub next: Option<String>,
}

/// Which services of a workspace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceFilter {
    /// Of this compute type.
    pub compute_type: Option<crate::catalog::ComputeType>,
    /// With these tags: a name, or a name and its value.
    pub tags: Vec<(String, Option<String>)>,
    /// With these properties, in the same way.
    pub properties: Vec<(String, Option<String>)>,
}

/// The URIs given out for a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServiceUris {
    /// Where the model is called.
    pub scoring: String,
    /// Where its description is.
    pub swagger: String,
}

/// A key as those may see it who may list keys.
#[derive(Clone, Debug)]
pub struct KeyView {
    /// Which one.
    pub slot: KeySlot,
    /// Names the key without being it; new with every regeneration.
    pub id: String,
    /// The key.
    pub value: SecretString,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When the data plane last let a call in by it; to the second, kept over restarts within a minute.
    pub last_used_at: Option<OffsetDateTime>,
    /// From when on it is refused; `None`: never.
    pub expires_at: Option<OffsetDateTime>,
}

/// The two keys of a service.
#[derive(Clone, Debug)]
pub struct KeyPairView {
    /// `primaryKey`
    pub primary: KeyView,
    /// `secondaryKey`
    pub secondary: KeyView,
}

/// How a key is to be replaced.
#[derive(Clone, Debug, Default)]
pub struct KeyChange {
    /// The new key; `None`: one is generated. The key in place counts as `None`: SDK v2 sends it to say "regenerate".
    pub value: Option<SecretString>,
    /// From when on it is refused.
    pub expires_at: Option<OffsetDateTime>,
    /// Repeating a change with the same id (1 to 100 printable characters) within 24 hours gives the same answer and
    /// changes nothing.
    pub request_id: Option<String>,
}

/// Keys that come with a new service; `None`: generated.
#[derive(Clone, Debug, Default)]
pub struct SuppliedKeys {
    /// `primaryKey`
    pub primary: Option<SecretString>,
    /// `secondaryKey`
    pub secondary: Option<SecretString>,
}

/// Which rule decides who may get a scoring token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenRule {
    /// SDK v1 and the native API for ACI and AKS: whoever may see the workspace.
    V1,
    /// SDK v2 and Managed services: `onlineEndpoints/token/action`.
    V2,
}

/// A scoring token.
#[derive(Clone, Debug)]
pub struct ScoringToken {
    /// The token itself.
    pub token: SecretString,
    /// Its `jti`, which revokes it.
    pub id: String,
    /// When it was made.
    pub issued_at: OffsetDateTime,
    /// From when on a client should get the next one.
    pub refresh_after: OffsetDateTime,
    /// When it ends.
    pub expires_at: OffsetDateTime,
}

/// A management token, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManagementTokenView {
    /// Names it.
    pub id: String,
    /// Whom it stands for.
    pub principal: String,
    /// For people.
    pub description: String,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// By whom.
    pub created_by: String,
    /// When it ends.
    #[serde(with = "time::serde::rfc3339")]
    pub expires_at: OffsetDateTime,
}

/// One event of the activity log (Azure's administrative activity log, its field names in snake case).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ActivityEvent {
    /// Position in the log, from 1, without gaps.
    pub sequence: u64,
    /// When it happened.
    #[serde(with = "time::serde::rfc3339")]
    pub event_timestamp: OffsetDateTime,
    /// The same for both events of one operation.
    pub operation_id: String,
    /// The caller's own id for its request.
    pub correlation_id: String,
    /// Azure's action string.
    pub operation_name: String,
    /// The principal; empty if the caller could not be told.
    pub caller: String,
    /// Where the call came from.
    pub client_ip_address: IpAddr,
    /// HTTP method.
    pub method: String,
    /// What it was about, as an Azure resource id.
    pub resource_id: String,
    /// How far it is.
    pub status: ActivityStatus,
    /// HTTP status of the end; `None` at the start.
    pub status_code: Option<u16>,
    /// Code and message of a refusal.
    pub error: Option<String>,
    /// Hex SHA-256 of the event before this one, over its stored bytes.
    pub previous_hash: String,
}

/// How far an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ActivityStatus {
    /// The start event.
    Started,
    /// The end event of what was done.
    Succeeded,
    /// The end event of what was refused or failed.
    Failed,
}

/// Which events.
#[derive(Clone, Debug, Default)]
pub struct ActivityFilter {
    /// Not before.
    pub from: Option<OffsetDateTime>,
    /// Before.
    pub to: Option<OffsetDateTime>,
    /// By this principal.
    pub caller: Option<String>,
    /// Of this operation name, without regard to case.
    pub operation_name: Option<String>,
    /// About resources whose id begins so, without regard to case.
    pub resource_id: Option<String>,
    /// In this workspace; `None`: the whole log, for which the right is needed on the gateway.
    pub workspace: Option<String>,
}

/// What the activity log looks like after reading all of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActivityVerdict {
    /// How many events there are.
    pub events: u64,
    /// The first event whose chain is broken, and how.
    pub broken: Option<(u64, String)>,
}

/// What an operation looks like to those who poll it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperationStatus {
    /// How far it is.
    pub status: ActivityStatus,
    /// Azure's action string.
    pub operation_name: String,
    /// What it is about.
    pub resource_id: String,
    /// When it began.
    pub started_at: OffsetDateTime,
    /// When it ended.
    pub ended_at: Option<OffsetDateTime>,
    /// Why it failed.
    pub error: Option<String>,
}

/// What the management plane is told by the configuration.
#[derive(Clone, Debug)]
pub struct OperationsSettings {
    /// The workspace of the configuration; declared services are in it.
    pub workspace: (String, WorkspaceSpec),
    /// Base of scoring URIs.
    pub public_url: url::Url,
    /// Scoring URIs by compute type, with `{service}`; `None`: the path form under `public_url`.
    pub uri_templates: UriTemplates,
    /// Replica URL of a service that names none, with `{service}` and `{namespace}`.
    pub replica_template: Option<String>,
    /// Lifetime of scoring tokens of services that set none.
    pub token_lifetime: std::time::Duration,
    /// Clock difference allowed when tokens are judged.
    pub token_leeway: std::time::Duration,
    /// How long events stay in the activity log.
    pub activity_retention: std::time::Duration,
}

/// Scoring URIs by compute type; `{service}` stands for the name.
#[derive(Clone, Debug, Default)]
pub struct UriTemplates {
    /// Of ACI services.
    pub aci: Option<String>,
    /// Of AKS services.
    pub aks: Option<String>,
    /// Of Managed services.
    pub managed: Option<String>,
}

/// The data plane as the management plane sees it.
pub trait DataPlane: Send + Sync {
    /// Puts changed services into effect; returns when every new request sees them.
    ///
    /// # Errors
    /// What cannot be built, in words for the log.
    fn apply(&self, changes: crate::proxy::ServiceChanges) -> Result<(), String>;

    /// When the primary and the secondary key of `service` last let a call in.
    fn key_use(&self, service: &ServiceName) -> [Option<SystemTime>; 2];

    /// The services of the configuration that runs.
    fn declared(&self) -> Arc<Vec<Arc<crate::proxy::ServiceSettings>>>;
}

/// All operations of the management plane.
pub struct Operations {
    #[expect(dead_code, reason = "seam")]
    store: Arc<dyn Store>,
    #[expect(dead_code, reason = "seam")]
    sealer: Arc<dyn Sealer>,
    #[expect(dead_code, reason = "seam")]
    data_plane: Arc<dyn DataPlane>,
    #[expect(dead_code, reason = "seam")]
    settings: OperationsSettings,
}

fn unbuilt<T>() -> Result<T, Refusal> {
    Err(Refusal::new(super::Cause::Internal, "not built yet"))
}

#[expect(clippy::missing_errors_doc, unused_variables, clippy::needless_pass_by_value, reason = "seam")]
impl Operations {
    /// Takes over a store: reads what is in it and hands all its services to the data plane.
    pub fn start(
        store: Arc<dyn Store>,
        sealer: Arc<dyn Sealer>,
        data_plane: Arc<dyn DataPlane>,
        settings: OperationsSettings,
    ) -> Result<Self, Refusal> {
        Ok(Self { store, sealer, data_plane, settings })
    }

    // --- credentials of callers

    /// The caller that a management token (`Bearer`) stands for. Outside issuers' tokens are turned into a principal
    /// and groups before, by `management::credentials`, and come in by [`Self::outside_caller`].
    pub fn authenticate(&self, token: &SecretString, request: RequestFacts) -> Result<Caller, Refusal> {
        unbuilt()
    }
    /// The caller that an outside issuer vouches for.
    pub fn outside_caller(
        &self,
        principal: &str,
        groups: &[String],
        request: RequestFacts,
    ) -> Result<Caller, Refusal> {
        unbuilt()
    }
    /// Logs an attempt that was refused before there was a caller (no or a bad credential on a write).
    pub fn log_stranger(
        &self,
        operation_name: &str,
        resource_id: &str,
        request: &RequestFacts,
        why: &Refusal,
    ) {
    }

    // --- workspaces

    pub fn put_workspace(
        &self,
        caller: &Caller,
        name: &str,
        spec: WorkspaceSpec,
        precondition: Precondition,
    ) -> Result<(Versioned<WorkspaceEntry>, Written), Refusal> {
        unbuilt()
    }
    pub fn workspace(&self, caller: &Caller, name: &str) -> Result<Versioned<WorkspaceEntry>, Refusal> {
        unbuilt()
    }
    /// The workspace that SDK clients name by subscription, resource group and name, all without regard to case.
    pub fn azure_workspace(
        &self,
        caller: &Caller,
        subscription: &str,
        resource_group: &str,
        name: &str,
    ) -> Result<Versioned<WorkspaceEntry>, Refusal> {
        unbuilt()
    }
    /// Those that the caller may see.
    pub fn workspaces(
        &self,
        caller: &Caller,
        page: &Page,
    ) -> Result<PageOf<Versioned<WorkspaceEntry>>, Refusal> {
        unbuilt()
    }
    /// Refused while it holds services.
    pub fn delete_workspace(
        &self,
        caller: &Caller,
        name: &str,
        precondition: Precondition,
    ) -> Result<(), Refusal> {
        unbuilt()
    }

    // --- services and deployments

    /// Makes or replaces a service, whole. A change of the auth mode is one atomic switch. Keys are made for every new
    /// service whatever its mode, so that a switch to `key` has some.
    pub fn put_service(
        &self,
        caller: &Caller,
        workspace: &str,
        name: &str,
        spec: ServiceSpec,
        keys: SuppliedKeys,
        precondition: Precondition,
    ) -> Result<(Versioned<ServiceEntry>, Written), Refusal> {
        unbuilt()
    }
    pub fn service(
        &self,
        caller: &Caller,
        workspace: &str,
        name: &str,
    ) -> Result<Versioned<ServiceEntry>, Refusal> {
        unbuilt()
    }
    /// In the order of their names.
    pub fn services(
        &self,
        caller: &Caller,
        workspace: &str,
        filter: &ServiceFilter,
        page: &Page,
    ) -> Result<PageOf<Versioned<ServiceEntry>>, Refusal> {
        unbuilt()
    }
    /// Reads, lets `change` make a new spec of what was read, and writes it, atomically.
    pub fn change_service(
        &self,
        caller: &Caller,
        workspace: &str,
        name: &str,
        precondition: Precondition,
        change: &dyn Fn(&ServiceEntry) -> Result<ServiceSpec, Refusal>,
    ) -> Result<Versioned<ServiceEntry>, Refusal> {
        unbuilt()
    }
    pub fn delete_service(
        &self,
        caller: &Caller,
        workspace: &str,
        name: &str,
        precondition: Precondition,
    ) -> Result<(), Refusal> {
        unbuilt()
    }
    pub fn put_deployment(
        &self,
        caller: &Caller,
        workspace: &str,
        service: &str,
        name: &str,
        spec: DeploymentSpec,
        precondition: Precondition,
    ) -> Result<(Versioned<ServiceEntry>, Written), Refusal> {
        unbuilt()
    }
    pub fn delete_deployment(
        &self,
        caller: &Caller,
        workspace: &str,
        service: &str,
        name: &str,
        precondition: Precondition,
    ) -> Result<(), Refusal> {
        unbuilt()
    }
    /// The URIs that are given out for `service`.
    #[must_use]
    pub fn uris(&self, service: &ServiceEntry) -> ServiceUris {
        ServiceUris { scoring: String::new(), swagger: String::new() }
    }

    // --- keys

    pub fn keys(&self, caller: &Caller, workspace: &str, service: &str) -> Result<KeyPairView, Refusal> {
        unbuilt()
    }
    pub fn regenerate_key(
        &self,
        caller: &Caller,
        workspace: &str,
        service: &str,
        slot: KeySlot,
        change: KeyChange,
    ) -> Result<KeyView, Refusal> {
        unbuilt()
    }

    // --- scoring tokens

    pub fn issue_token(
        &self,
        caller: &Caller,
        workspace: &str,
        service: &str,
        rule: TokenRule,
    ) -> Result<ScoringToken, Refusal> {
        unbuilt()
    }
    /// Revokes one token by its `jti`, for all services of the workspace.
    pub fn revoke_token(&self, caller: &Caller, workspace: &str, id: &str) -> Result<(), Refusal> {
        unbuilt()
    }
    /// Revokes every token of `principal` that has been issued up to now.
    pub fn revoke_principal(&self, caller: &Caller, workspace: &str, principal: &str) -> Result<(), Refusal> {
        unbuilt()
    }
    /// Makes a new signing key; the old one verifies until its last token is over. Returns the new key's id.
    pub fn rotate_signing_key(&self, caller: &Caller, workspace: &str) -> Result<String, Refusal> {
        unbuilt()
    }
    /// The workspace's public keys as a JSON Web Key Set (RFC 7517).
    pub fn jwks(&self, caller: &Caller, workspace: &str) -> Result<serde_json::Value, Refusal> {
        unbuilt()
    }

    // --- roles

    pub fn role_assignments(
        &self,
        caller: &Caller,
        scope: &Scope,
        page: &Page,
    ) -> Result<PageOf<RoleAssignment>, Refusal> {
        unbuilt()
    }
    /// Gives a role; `id` must be a UUID. The caller must hold all that the role allows.
    pub fn put_role_assignment(
        &self,
        caller: &Caller,
        id: &str,
        scope: Scope,
        grantee: Grantee,
        role: &str,
    ) -> Result<(RoleAssignment, Written), Refusal> {
        unbuilt()
    }
    pub fn delete_role_assignment(&self, caller: &Caller, scope: &Scope, id: &str) -> Result<(), Refusal> {
        unbuilt()
    }
    /// Custom roles; the built-in ones are `catalog::BuiltInRole`.
    pub fn custom_roles(
        &self,
        caller: &Caller,
        page: &Page,
    ) -> Result<PageOf<Versioned<CustomRole>>, Refusal> {
        unbuilt()
    }
    /// Makes or changes a custom role. The caller must hold all that it allows.
    pub fn put_custom_role(
        &self,
        caller: &Caller,
        name: &str,
        description: String,
        actions: Vec<String>,
        not_actions: Vec<String>,
        precondition: Precondition,
    ) -> Result<(Versioned<CustomRole>, Written), Refusal> {
        unbuilt()
    }
    /// Refused while it is assigned.
    pub fn delete_custom_role(&self, caller: &Caller, name: &str) -> Result<(), Refusal> {
        unbuilt()
    }

    // --- management tokens

    /// Makes a management token for `principal`; returns it with its secret, which is never shown again. The caller must
    /// hold all that the principal is allowed.
    pub fn create_management_token(
        &self,
        caller: &Caller,
        principal: &str,
        description: String,
        lifetime: std::time::Duration,
    ) -> Result<(ManagementTokenView, SecretString), Refusal> {
        unbuilt()
    }
    pub fn management_tokens(
        &self,
        caller: &Caller,
        page: &Page,
    ) -> Result<PageOf<ManagementTokenView>, Refusal> {
        unbuilt()
    }
    pub fn revoke_management_token(&self, caller: &Caller, id: &str) -> Result<(), Refusal> {
        unbuilt()
    }
    /// Makes the secret that the first owner logs in with, if nobody has a role on the gateway yet.
    pub fn begin_bootstrap(&self) -> Result<Option<SecretString>, Refusal> {
        unbuilt()
    }
    /// Exchanges the bootstrap secret, once, for an Owner's management token.
    pub fn bootstrap(
        &self,
        secret: &SecretString,
        request: RequestFacts,
    ) -> Result<(ManagementTokenView, SecretString), Refusal> {
        unbuilt()
    }

    // --- activity log

    /// Newest first.
    pub fn activity(
        &self,
        caller: &Caller,
        filter: &ActivityFilter,
        page: &Page,
    ) -> Result<PageOf<ActivityEvent>, Refusal> {
        unbuilt()
    }
    /// Reads the whole chain.
    pub fn verify_activity(&self, caller: &Caller) -> Result<ActivityVerdict, Refusal> {
        unbuilt()
    }
    /// The operation of that id, if it was the caller's or the caller may read the log.
    pub fn operation(&self, caller: &Caller, id: &str) -> Result<OperationStatus, Refusal> {
        unbuilt()
    }

    // --- store

    /// Writes a copy of the store into its own folder; returns its path.
    pub fn backup(&self, caller: &Caller) -> Result<std::path::PathBuf, Refusal> {
        unbuilt()
    }
    pub fn check_store(&self, caller: &Caller) -> Result<CheckReport, Refusal> {
        unbuilt()
    }
    /// Whether the store answers, for `/readyz`.
    pub fn is_ready(&self) -> Result<(), Refusal> {
        unbuilt()
    }
}
