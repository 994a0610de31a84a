//! Replicas and deployments that go while calls are under way.
