//! Tests of the library through its public API.

#![allow(clippy::unwrap_used)] // a panic fails the test

mod axum;
mod balance;
mod blocking;
mod calls;
mod consul;
mod dependencies;
mod directory;
mod global;
mod grpc_server;
mod kubernetes;
mod names;
mod outages;
mod registrars;
mod scripted;
