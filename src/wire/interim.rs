//! The way of interim answers past the final one.

use http::{HeaderMap, StatusCode};

/// Takes interim answers (1xx but 100 and 101) on their way to the client while the final answer is still awaited. A gateway
/// must pass them on (RFC 9110 15.2); whoever waits for the final answer is told nothing of them.
pub trait Interim {
    /// Passes one on, without waiting. A client that cannot have it (HTTP/1.0), or does not read what it has got already,
    /// goes without.
    fn pass(&self, status: StatusCode, headers: HeaderMap);
}

/// For calls that nobody waits for.
impl Interim for () {
    fn pass(&self, _: StatusCode, _: HeaderMap) {}
}
