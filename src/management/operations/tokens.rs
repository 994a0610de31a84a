//! Scoring tokens: issued, revoked, and the keys that sign them.

use super::{Operations, ScoringToken, TokenRule, unbuilt};
use crate::management::{Caller, Refusal};

#[allow(clippy::missing_errors_doc, unused_variables, clippy::needless_pass_by_value, reason = "seam")]
impl Operations {
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
}
