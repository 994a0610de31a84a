//! Callers of the API who come with a token of an outside issuer.

/// The outside issuers whose tokens are taken for callers of the API.
#[derive(Debug, Default)]
pub struct Credentials {}
