//! What operations give: resources with their versions, parts of lists, keys, tokens and events as callers see them.

use std::net::IpAddr;

use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::catalog::KeySlot;

/// Something with the version that it was read in; the version is its ETag.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Versioned<T> {
    /// What was read.
    pub value: T,
    /// Grows with every change; 0 for what is declared.
    pub version: u64,
}

/// Whether a write made something new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It was not there.
    Created,
    /// It was changed.
    Replaced,
}

/// Part of a list.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PageOf<T> {
    /// The items of this page.
    pub items: Vec<T>,
    /// Where the next page begins; `None` on the last one.
    pub next: Option<String>,
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ManagementTokenView {
    /// Names it.
    pub id: String,
    /// Whom it stands for.
    pub principal: String,
    /// For people.
    pub description: String,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub created_at: OffsetDateTime,
    /// By whom.
    pub created_by: String,
    /// When it ends.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub expires_at: OffsetDateTime,
}

/// One event of the activity log (Azure's administrative activity log, its field names in snake case).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ActivityEvent {
    /// Position in the log, from 1, without gaps.
    pub sequence: u64,
    /// When it happened.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String", extend("format" = "date-time"))]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ActivityStatus {
    /// The start event.
    Started,
    /// The end event of what was done.
    Succeeded,
    /// The end event of what was refused or failed.
    Failed,
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
