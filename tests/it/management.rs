//! The management plane through its door: real TLS, the embedded store, and the services that it makes scored through.

mod bodies;
mod catalogue;
mod client;
mod commands;
mod credentials;
mod delivery;
mod door;
mod full;
mod kill;
mod life;
mod matrix;
mod metrics;
mod process;

pub use client::{Api, OWNER, managed};
use client::{gateway, problem};
pub use process::call;
