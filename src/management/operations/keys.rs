//! Keys of services: listed, regenerated, set.

use super::{KeyChange, KeyPairView, KeyView, Operations, unbuilt};
use crate::catalog::KeySlot;
use crate::management::{Caller, Refusal};

#[allow(clippy::missing_errors_doc, unused_variables, clippy::needless_pass_by_value, reason = "seam")]
impl Operations {
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
}
