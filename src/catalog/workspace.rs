//! Workspaces and who holds which role in them, as the management plane keeps them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// A workspace as its maker describes it. Its name is unique on one gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WorkspaceSpec {
    /// Azure subscription id that SDK clients name it by.
    pub subscription: String,
    /// Azure resource group that SDK clients name it by.
    pub resource_group: String,
    /// Azure location.
    pub location: String,
    /// For people.
    pub description: String,
    /// Free labels.
    pub tags: BTreeMap<String, String>,
}

/// Who made and changed something, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Provenance {
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub created_at: OffsetDateTime,
    /// By which principal.
    pub created_by: String,
    /// When it was last changed.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub updated_at: OffsetDateTime,
    /// By which principal.
    pub updated_by: String,
}

/// Where something comes from, which decides who may change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The configuration file: read-only in the API.
    Declared,
    /// The management plane.
    Managed,
}

/// A workspace of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WorkspaceEntry {
    /// 3 to 33 letters, digits, `-` and `_`; compared without regard to case.
    pub name: String,
    /// As its maker describes it.
    pub spec: WorkspaceSpec,
    /// The workspace of the configuration is declared.
    pub origin: Origin,
    /// Who and when.
    pub provenance: Provenance,
}

/// Where a role is held.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// The whole gateway, every workspace included.
    Gateway,
    /// One workspace, by its name in lower case.
    Workspace(String),
}

/// Whom a role is given to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Grantee {
    /// One principal: the subject of a management token or of an outside issuer's token.
    Principal(String),
    /// Everybody whose outside token names this group.
    Group(String),
}

/// A role held by somebody somewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RoleAssignment {
    /// Name of the assignment: a UUID, chosen by the maker or the gateway.
    pub id: String,
    /// Where.
    pub scope: Scope,
    /// Who.
    pub grantee: Grantee,
    /// Name of a built-in or custom role.
    pub role: String,
    /// Who and when.
    pub provenance: Provenance,
}

/// A role made by an owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CustomRole {
    /// 3 to 64 letters, digits, blanks, `-` and `_`; no built-in role has it.
    pub name: String,
    /// For people.
    pub description: String,
    /// Patterns of Azure's action strings that it allows.
    pub actions: Vec<String>,
    /// Patterns taken out of them again.
    pub not_actions: Vec<String>,
    /// Who and when.
    pub provenance: Provenance,
}
