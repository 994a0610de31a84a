//! Replicas under real traffic: who gets a call, who waits, who is left out, what is tried again, and streams.

mod admission;
mod balance;
mod collect;
mod drain;
mod grpc;
mod health;
mod mirror;
mod names;
mod profiles;
mod rates;
mod retry;
mod split;
mod streams;
mod tracing;
mod websocket;
