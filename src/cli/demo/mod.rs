//! The demo: a small real model served with the Azure ML container contract, for a gateway to stand in front
//! of.
//!
//! [`iris`] is the data, [`model`] the model fitted on it, `payload` its JSON, `contract` the HTTP face of
//! both and [`container`] the server that speaks it.

pub mod container;
mod contract;
#[cfg(test)]
mod fit;
pub mod iris;
pub mod model;
mod payload;
mod swagger;
