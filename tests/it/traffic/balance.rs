//! Which replica gets a call, and counts that come back to zero.
