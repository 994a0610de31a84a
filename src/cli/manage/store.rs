//! `scoregate store backup --live`, `scoregate store check --live`: the store of a running gateway.

use std::process::ExitCode;

use http::Method;
use serde_json::json;

use super::Session;
use super::output::Column;

/// Has the gateway write a copy of its store into the store's own folder.
///
/// # Errors
/// The API's refusal.
pub(in super::super) fn live_backup(mut on: Session<'_>) -> anyhow::Result<ExitCode> {
    const COLUMNS: &[Column] = &[("path", "/path"), ("bytes", "/bytes"), ("version", "/version")];
    let made = on.api.send(Method::POST, "/v1/store/backup", &json!({}))?;
    on.out.item(&made, COLUMNS)?;
    Ok(ExitCode::SUCCESS)
}

/// Has the gateway read all of its store.
///
/// # Errors
/// The API's refusal; a damaged store.
pub(in super::super) fn live_check(mut on: Session<'_>) -> anyhow::Result<ExitCode> {
    const COLUMNS: &[Column] = &[("bytes", "/bytes"), ("version", "/version"), ("rows", "/rows")];
    let report = on.api.send(Method::POST, "/v1/store/check", &json!({}))?;
    on.out.item(&report, COLUMNS)?;
    Ok(ExitCode::SUCCESS)
}
