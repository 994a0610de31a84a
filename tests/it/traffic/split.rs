//! Shares of traffic, named deployments, and callers that stick to one.
