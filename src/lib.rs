//! scoregate: a gateway in front of model containers.
//!
//! Modules in the order a request meets them.

pub mod error;

pub mod catalog;

pub mod listener;
pub mod tls;
pub mod wire;

pub mod auth;
pub mod limit;
pub mod upstream;

pub mod telemetry;

pub mod control;

pub mod cli;
