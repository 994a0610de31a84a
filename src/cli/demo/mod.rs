//! The demo: a small real model served with the Azure ML container contract, and a gateway in front of it.
//!
//! `command` is the command itself: it sets the `stage`, starts model and gateway, and makes its calls by `client`.
//! `iris` is the data, `model` the model fitted on it, `payload` its JSON, `contract` the HTTP face of both and
//! `container` the server that speaks it.

mod client;
mod command;
mod container;
mod contract;
#[cfg(test)]
mod fit;
mod iris;
mod model;
mod payload;
mod stage;
mod swagger;

pub(super) use command::{Stay, run};
