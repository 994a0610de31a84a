//! Who callers are: management tokens, outside issuers, the first owner.

use secrecy::SecretString;

use super::{ManagementTokenView, Operations, Page, PageOf, unbuilt};
use crate::management::{Caller, Refusal, RequestFacts};

#[allow(clippy::missing_errors_doc, unused_variables, clippy::needless_pass_by_value, reason = "seam")]
impl Operations {
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
}
