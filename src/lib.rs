#![doc = include_str!("ARCHITECTURE.md")]

pub mod app;
pub mod error;
pub mod lifecycle;

pub mod catalog;

pub mod listener;
pub mod proxy;
pub mod tls;
pub mod wire;

pub mod auth;
pub mod limit;
pub mod route;
pub mod upstream;

pub mod telemetry;

pub mod store;

pub mod control;
pub mod management;

pub mod cli;
