//! Who is calling: credentials in, a principal or a refusal out.

mod settings;

pub use settings::{AuthSettings, JwksSource, KeySettings, OidcSettings, TokenSettings};
