//! The two flags `authEnabled` and `aadAuthEnabled` as the one auth mode.

use serde_json::Value;

use crate::catalog::AuthMode;
use crate::management::Refusal;
use crate::management::azure_v1::fields::Fields;
use crate::management::azure_v1::kind::Kind;

const KEY: &str = "authEnabled";
const TOKEN: &str = "aadAuthEnabled";

/// The flags of a mode.
pub fn members(mode: AuthMode) -> [(String, Value); 2] {
    [(KEY.into(), (mode == AuthMode::Key).into()), (TOKEN.into(), (mode == AuthMode::Token).into())]
}

/// The mode of the flags. A flag that is not there leaves the choice to the other one, and both to the compute type.
///
/// # Errors
/// Both are on, or the compute type has no such mode.
pub fn mode(kind: Kind, fields: &mut Fields) -> Result<AuthMode, Refusal> {
    let mode = match (fields.flag(KEY)?, fields.flag(TOKEN)?) {
        (Some(true), Some(true)) => {
            let message = format!(
                "key and token authentication cannot both be on; to change over, set {KEY} to false in the same request"
            );
            return Err(Refusal::invalid(TOKEN, message));
        }
        (_, Some(true)) => AuthMode::Token,
        (Some(true), _) => AuthMode::Key,
        (Some(false), _) => AuthMode::None,
        (None, _) => kind.compute_type().default_auth(),
    };
    match kind.compute_type().refuses(mode) {
        Some(reason) => Err(Refusal::invalid(TOKEN, reason)),
        None => Ok(mode),
    }
}
