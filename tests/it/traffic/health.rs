//! Probes, readiness by a scoring call, ejection, and nobody ready.
