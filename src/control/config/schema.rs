//! The JSON Schema of the configuration.

use schemars::Schema;

use super::raw::Raw;

/// JSON Schema (draft 2020-12) of `scoregate/v1`, with descriptions and defaults. It checks the shape; what depends on
/// several fields or on files is checked by [`super::load`] alone.
#[must_use]
pub fn json_schema() -> Schema {
    schemars::schema_for!(Raw)
}
