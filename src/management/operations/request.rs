//! What operations take: preconditions, pages, filters, and how keys and tokens are to be made.

use std::fmt;

use secrecy::SecretString;
use time::OffsetDateTime;

use crate::management::{Cause, Refusal};
use crate::store::Expect;

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

impl Precondition {
    /// Judges what was found, and gives the condition that keeps it true until the commit. `what` names the resource.
    ///
    /// # Errors
    /// [`Cause::AlreadyExists`] if it must be absent, [`Cause::PreconditionFailed`] if it is not there or not as it was
    /// read.
    pub(super) fn judge(self, found: Option<u64>, what: impl fmt::Display) -> Result<Expect, Refusal> {
        let refused = |message: String| Err(Refusal::new(Cause::PreconditionFailed, message));
        match (self, found) {
            (Self::None | Self::Absent, None) => Ok(Expect::Absent),
            (Self::None | Self::Present, Some(version)) => Ok(Expect::Version(version)),
            (Self::Version(wanted), Some(version)) if wanted == version => Ok(Expect::Version(version)),
            (Self::Absent, Some(_)) => {
                Err(Refusal::new(Cause::AlreadyExists, format!("there is a {what} already")))
            }
            (Self::Version(_), Some(_)) => {
                refused(format!("the {what} was changed since it was read; read it again"))
            }
            (Self::Present | Self::Version(_), None) => refused(format!("there is no {what} to be changed")),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_precondition_is_judged_by_what_is_there() {
        let judge = |precondition: Precondition, found| {
            precondition.judge(found, "thing").map_err(|refusal| refusal.cause)
        };
        assert_eq!(judge(Precondition::None, None), Ok(Expect::Absent));
        assert_eq!(judge(Precondition::None, Some(3)), Ok(Expect::Version(3)));
        assert_eq!(judge(Precondition::Absent, None), Ok(Expect::Absent));
        assert_eq!(judge(Precondition::Absent, Some(3)), Err(Cause::AlreadyExists));
        assert_eq!(judge(Precondition::Present, None), Err(Cause::PreconditionFailed));
        assert_eq!(judge(Precondition::Present, Some(3)), Ok(Expect::Version(3)));
        assert_eq!(judge(Precondition::Version(3), Some(3)), Ok(Expect::Version(3)));
        assert_eq!(judge(Precondition::Version(2), Some(3)), Err(Cause::PreconditionFailed));
        assert_eq!(judge(Precondition::Version(2), None), Err(Cause::PreconditionFailed));
    }
}
