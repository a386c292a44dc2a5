//! Test fixtures: Consul agents and clusters, certificates, free ports, captured log lines, a proxy that
//! injects faults, and a mutational fuzzer for parsers.
//!
//! Dropping a fixture stops the processes and tasks that it started.

#![allow(clippy::missing_panics_doc)] // a panic fails the test

#[cfg(feature = "browser")]
pub mod browser;
mod ca;
mod cluster;
mod consul;
mod fault_proxy;
mod logs;
pub mod mutation;
mod ports;

pub use ca::Ca;
pub use cluster::Cluster;
pub use consul::{Consul, ROOT_TOKEN, http_client};
pub use fault_proxy::{Fault, FaultProxy};
pub use logs::Logs;
pub use ports::free_ports;
