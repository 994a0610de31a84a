//! What operations take: preconditions, pages, filters, and how keys and tokens are to be made.

use secrecy::SecretString;
use time::OffsetDateTime;

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
