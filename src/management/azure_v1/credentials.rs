//! Calls about the credentials of callers: keys and scoring tokens.

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use crate::catalog::KeySlot;
use crate::management::Refusal;
use crate::management::operations::{KeyChange, TokenRule};

use super::answer::Answer;
use super::fields::Fields;
use super::services::Services;

impl Services<'_> {
    /// Both keys.
    pub fn keys(&self, name: &str) -> Result<Answer, Refusal> {
        self.hide_managed(name)?;
        let keys = self.operations.keys(self.caller, &self.workspace.name, name)?;
        Ok(Answer::Found(json!({
            "primaryKey": keys.primary.value.expose_secret(),
            "secondaryKey": keys.secondary.value.expose_secret(),
        })))
    }

    /// Replaces one key.
    pub fn regenerate_key(&self, name: &str, body: Value) -> Result<Answer, Refusal> {
        self.hide_managed(name)?;
        let (slot, value) = key_request(body)?;
        let change = KeyChange { value, ..KeyChange::default() };
        self.operations.regenerate_key(self.caller, &self.workspace.name, name, slot, change)?;
        Ok(Answer::Accepted(json!({})))
    }

    /// A scoring token; times are whole seconds since 1970, as the SDK reads them.
    pub fn token(&self, name: &str) -> Result<Answer, Refusal> {
        self.hide_managed(name)?;
        let token = self.operations.issue_token(self.caller, &self.workspace.name, name, TokenRule::V1)?;
        Ok(Answer::Made(json!({
            "accessToken": token.token.expose_secret(),
            "tokenType": "Bearer",
            "refreshAfter": token.refresh_after.unix_timestamp(),
            "expiryOn": token.expires_at.unix_timestamp(),
        })))
    }
}

/// Which key, and what it is to be; `None`: generated. The SDK says `Primary`, its generated client 0 or 1.
fn key_request(body: Value) -> Result<(KeySlot, Option<SecretString>), Refusal> {
    let mut fields = Fields::of("", body)?;
    let slot = match fields.take("keyType") {
        Some(Value::String(word)) if word.eq_ignore_ascii_case("primary") => KeySlot::Primary,
        Some(Value::String(word)) if word.eq_ignore_ascii_case("secondary") => KeySlot::Secondary,
        Some(Value::Number(number)) if number.as_u64() == Some(0) => KeySlot::Primary,
        Some(Value::Number(number)) if number.as_u64() == Some(1) => KeySlot::Secondary,
        _ => return Err(Refusal::invalid("keyType", "must be Primary or Secondary (or 0 or 1)")),
    };
    let value = fields.text("keyValue")?.filter(|value| !value.is_empty());
    Ok((slot, value.map(Into::into)))
}
