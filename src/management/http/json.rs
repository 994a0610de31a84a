//! JSON bodies, read strictly: bounded size and depth, no member twice, no NUL.

use axum::body::Body;
use serde::de::DeserializeOwned;

use crate::management::{Cause, Refusal};

/// Largest request body, in bytes.
pub const MAX_BODY: usize = 1024 * 1024;

/// Reads a whole JSON body. An empty body is `null`.
///
/// # Errors
/// [`Cause::TooLarge`] over [`MAX_BODY`]; [`Cause::Invalid`] names the place of what is wrong.
pub async fn body<T: DeserializeOwned>(body: Body) -> Result<T, Refusal> {
    let bytes = axum::body::to_bytes(body, MAX_BODY)
        .await
        .map_err(|_| Refusal::new(Cause::TooLarge, format!("the body is over {MAX_BODY} bytes")))?;
    let bytes = if bytes.is_empty() { &b"null"[..] } else { &bytes[..] };
    serde_json::from_slice(bytes).map_err(|error| Refusal::new(Cause::Invalid, error.to_string()))
}
