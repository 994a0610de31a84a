//! The first way in: a secret that is exchanged, once, for an Owner's management token.

use std::time::Duration;

use secrecy::SecretString;
use uuid::Uuid;

use super::super::activity::Entry;
use super::super::roles::{insert as assign, made_by};
use super::super::{ManagementTokenView, Operations};
use super::token::{self, Digest};
use super::{FIRST_OWNER, insert, unknown, view_of};
use crate::catalog::{BuiltInRole, Grantee, RoleAssignment, Scope};
use crate::management::{Refusal, RequestFacts};
use crate::proxy::ServiceChanges;
use crate::store::{Batch, Expect, Row, StoreError, Table};

/// Row of [`Table::Meta`] with the hex digest of the secret, while it is not used.
const PENDING: &[u8] = b"bootstrap";

/// Name of the operation in the activity log.
const OPERATION: &str = "Scoregate/bootstrap/action";

/// What it is about there.
const RESOURCE: &str = "/providers/Scoregate/bootstrap";

/// Lifetime of the first token.
const LIFETIME: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// Lets `batch` make the pending secret worthless.
pub(in crate::management::operations) fn end_bootstrap(batch: &mut Batch) {
    batch.remove(Table::Meta, PENDING);
}

impl Operations {
    /// Makes the secret that the first owner logs in with, if the gateway has no Owner yet, no such secret waits to be
    /// used, and the configuration has no token that would do. Whoever gets it must keep it safe: it is not kept here.
    ///
    /// # Errors
    /// The store cannot be used.
    pub fn begin_bootstrap(&self) -> Result<Option<SecretString>, Refusal> {
        if self.configured.is_set() || self.current_roles()?.has_owner(None) || self.pending()?.is_some() {
            return Ok(None);
        }
        let minted = token::bootstrap()?;
        let mut batch = Batch::default();
        batch.expect(Table::Meta, PENDING, Expect::Absent);
        batch.put(Table::Meta, PENDING, minted.digest.to_hex());
        match self.store.commit(batch) {
            Ok(_) => Ok(Some(minted.text)),
            // Another process of the same store was faster: its secret counts.
            Err(StoreError::Conflict(..)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Exchanges the bootstrap secret, once, for an Owner's management token of 90 days.
    ///
    /// # Errors
    /// `AuthInvalid`, the same for a wrong secret, one that was used, and when there is none.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a request is used up by its operation, as by all others"
    )]
    pub fn bootstrap(
        &self,
        secret: &SecretString,
        request: RequestFacts,
    ) -> Result<(ManagementTokenView, SecretString), Refusal> {
        if let Err(refusal) = self.matching(secret) {
            self.log_stranger(OPERATION, RESOURCE, &request, &refusal);
            return Err(refusal);
        }
        let entry = Entry::of_request(&request, FIRST_OWNER, OPERATION, RESOURCE);
        self.begin(&entry)?;
        let minted = token::token()?;
        let done = self.perform(&entry, |batch| {
            let pending = self.matching(secret)?;
            batch.expect(Table::Meta, PENDING, Expect::Version(pending.version));
            assign(&*self.current_roles()?, &first_owner(), batch)?;
            let view = ManagementTokenView {
                description: "made by the bootstrap".to_owned(),
                ..view_of(&minted, FIRST_OWNER, FIRST_OWNER, LIFETIME)
            };
            insert(batch, &view, &minted)?;
            Ok((view, ServiceChanges::default()))
        })?;
        Ok((done.value, minted.text))
    }

    /// The row of the pending secret, if it is `secret`.
    fn matching(&self, secret: &SecretString) -> Result<Row, Refusal> {
        let pending = self.pending()?;
        let kept = pending.as_ref().and_then(|row| Digest::parse(std::str::from_utf8(&row.value).ok()?));
        if !Digest::of(secret).is(kept) {
            return Err(unknown());
        }
        pending.ok_or_else(unknown)
    }

    fn pending(&self) -> Result<Option<Row>, StoreError> {
        self.store.get(Table::Meta, PENDING)
    }
}

fn first_owner() -> RoleAssignment {
    RoleAssignment {
        id: Uuid::new_v4().to_string(),
        scope: Scope::Gateway,
        grantee: Grantee::Principal(FIRST_OWNER.to_owned()),
        role: BuiltInRole::Owner.as_str().to_owned(),
        provenance: made_by(FIRST_OWNER),
    }
}
