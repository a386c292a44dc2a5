//! Tests of the library through its public API.

#![allow(clippy::unwrap_used)] // a panic fails the test

mod axum;
mod balance;
mod blocking;
mod calls;
mod conformance;
mod consul;
mod consul_access;
mod consul_cluster;
mod consul_faults;
mod consul_outage;
mod consul_registration;
mod directory;
mod global;
mod kubernetes;
mod logs;
mod outages;
mod scripted;
