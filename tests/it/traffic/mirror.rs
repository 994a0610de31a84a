//! Copies of calls to another deployment that the caller never notices.
