//! Replicas given by name, looked up again.
