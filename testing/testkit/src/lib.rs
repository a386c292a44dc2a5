//! Test fixtures: Consul agents and clusters, certificates, free ports, and a proxy that injects
//! faults.
//!
//! Dropping a fixture stops the processes and tasks that it started.

#[cfg(feature = "browser")]
pub mod browser;
mod ca;
mod cluster;
mod consul;
mod fault_proxy;
mod ports;

pub use ca::Ca;
pub use cluster::Cluster;
pub use consul::{Consul, ROOT_TOKEN, http_client};
pub use fault_proxy::{Fault, FaultProxy};
pub use ports::free_ports;
