//! Requests per second, per service and per principal.
