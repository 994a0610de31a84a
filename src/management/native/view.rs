//! Resources as this API shows them: flat, snake_case, with what the gateway adds to what the owner wrote.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::secret::Secret;
use crate::catalog::{
    CustomRole, DeploymentSpec, KeySlot, Origin, Provenance, ServiceEntry, ServiceName, ServiceSpec,
    WorkspaceEntry, WorkspaceSpec,
};
use crate::management::operations::{
    KeyPairView, KeyView, ManagementTokenView, OperationStatus, PageOf, ScoringToken, ServiceUris,
};

/// Part of a list.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "PageOf{T}")]
pub(super) struct Listed<T> {
    /// The items of this page.
    pub items: Vec<T>,
    /// `cursor` of the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl<T> Listed<T> {
    /// A page, each item shown.
    pub fn of<U>(page: PageOf<U>, show: impl FnMut(U) -> T) -> Self {
        Self { items: page.items.into_iter().map(show).collect(), next: page.next }
    }

    /// A list that is always whole.
    pub const fn whole(items: Vec<T>) -> Self {
        Self { items, next: None }
    }
}

/// A workspace.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Workspace")]
pub(super) struct WorkspaceView {
    /// Its name.
    name: String,
    /// `declared`: by the configuration, and read-only here.
    origin: Origin,
    #[serde(flatten)]
    spec: WorkspaceSpec,
    /// Who and when.
    provenance: Provenance,
}

impl From<WorkspaceEntry> for WorkspaceView {
    fn from(entry: WorkspaceEntry) -> Self {
        Self { name: entry.name, origin: entry.origin, spec: entry.spec, provenance: entry.provenance }
    }
}

/// A service.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Service")]
pub(super) struct ServiceView {
    /// What callers name.
    name: ServiceName,
    /// The workspace that holds it.
    workspace: String,
    /// `declared`: by the configuration, and read-only here.
    origin: Origin,
    /// Where the model is called.
    scoring_uri: String,
    /// Where its description is.
    swagger_uri: String,
    #[serde(flatten)]
    spec: ServiceSpec,
    /// Who and when.
    provenance: Provenance,
}

impl ServiceView {
    pub fn new(entry: ServiceEntry, uris: ServiceUris) -> Self {
        let mode = entry.spec.auth_mode();
        Self {
            name: entry.name,
            workspace: entry.workspace,
            origin: entry.origin,
            scoring_uri: uris.scoring,
            swagger_uri: uris.swagger,
            spec: ServiceSpec { auth: Some(mode), ..entry.spec },
            provenance: entry.provenance,
        }
    }
}

/// What the owner of a service asks for. What [`ServiceView`] has beside it may be sent back and is not looked at.
#[derive(JsonSchema)]
#[schemars(rename = "ServiceRequest")]
#[expect(dead_code, reason = "a shape for the document; the body is taken apart before")]
pub(super) struct ServiceRequest {
    #[schemars(flatten)]
    spec: ServiceSpec,
    /// Keys of a new service; what is not given is generated.
    keys: Option<GivenKeys>,
}

/// Keys that the caller has chosen.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct GivenKeys {
    /// `primaryKey`
    pub primary: Option<Secret>,
    /// `secondaryKey`
    pub secondary: Option<Secret>,
}

/// A deployment.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Deployment")]
pub(super) struct DeploymentView {
    /// Its name.
    name: ServiceName,
    #[serde(flatten)]
    spec: DeploymentSpec,
}

impl DeploymentView {
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    pub fn all(deployments: BTreeMap<ServiceName, DeploymentSpec>) -> Vec<Self> {
        deployments.into_iter().map(|(name, spec)| Self { name, spec }).collect()
    }
}

/// A key.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Key {
    /// Which one.
    slot: KeySlot,
    /// Names the key without being it; new with every regeneration.
    id: String,
    /// The key.
    value: Secret,
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    created_at: OffsetDateTime,
    /// When it last let a call in.
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    last_used_at: Option<OffsetDateTime>,
    /// From when on it is refused; absent: never.
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    expires_at: Option<OffsetDateTime>,
}

/// The two keys of a service.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Keys {
    primary: Key,
    secondary: Key,
}

impl From<KeyView> for Key {
    fn from(key: KeyView) -> Self {
        Self {
            slot: key.slot,
            id: key.id,
            value: Secret(key.value),
            created_at: key.created_at,
            last_used_at: key.last_used_at,
            expires_at: key.expires_at,
        }
    }
}

impl From<KeyPairView> for Keys {
    fn from(pair: KeyPairView) -> Self {
        Self { primary: pair.primary.into(), secondary: pair.secondary.into() }
    }
}

/// A scoring token.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ScoringToken")]
pub(super) struct TokenView {
    /// What callers send as `Authorization: Bearer`.
    token: Secret,
    /// Its `jti`, which revokes it.
    id: String,
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    issued_at: OffsetDateTime,
    /// From when on to get the next one.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    refresh_after: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    expires_at: OffsetDateTime,
}

impl From<ScoringToken> for TokenView {
    fn from(token: ScoringToken) -> Self {
        Self {
            token: Secret(token.token),
            id: token.id,
            issued_at: token.issued_at,
            refresh_after: token.refresh_after,
            expires_at: token.expires_at,
        }
    }
}

/// A management token that has just been made; its secret is shown this once.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct NewManagementToken {
    /// What callers send as `Authorization: Bearer`; never shown again.
    pub token: Secret,
    #[serde(flatten)]
    pub view: ManagementTokenView,
}

/// A role.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Role {
    pub name: String,
    pub kind: RoleKind,
    pub description: String,
    /// Patterns of Azure's action strings that it allows.
    pub actions: Vec<String>,
    /// Patterns taken out of them again.
    pub not_actions: Vec<String>,
    /// Who and when; absent for built-in ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provenance: Option<Provenance>,
}

/// Where a role comes from.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum RoleKind {
    /// Every gateway has it; read-only.
    BuiltIn,
    /// Made by an owner.
    Custom,
}

impl From<CustomRole> for Role {
    fn from(role: CustomRole) -> Self {
        Self {
            name: role.name,
            kind: RoleKind::Custom,
            description: role.description,
            actions: role.actions,
            not_actions: role.not_actions,
            provenance: Some(role.provenance),
        }
    }
}

/// How far an operation is.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct OperationView {
    id: String,
    status: crate::management::operations::ActivityStatus,
    /// Azure's action string.
    operation_name: String,
    /// What it is about, as an Azure resource id.
    resource_id: String,
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    started_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    ended_at: Option<OffsetDateTime>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl OperationView {
    pub fn new(id: String, status: OperationStatus) -> Self {
        Self {
            id,
            status: status.status,
            operation_name: status.operation_name,
            resource_id: status.resource_id,
            started_at: status.started_at,
            ended_at: status.ended_at,
            error: status.error,
        }
    }
}
