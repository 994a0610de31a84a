//! The management plane through its door: real TLS, the embedded store, and the services that it makes scored through.

mod bodies;
mod client;
mod door;

use client::{Api, OWNER, gateway, managed, problem};
