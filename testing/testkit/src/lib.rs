//! Real parts for the tests: Consul agents and clusters of their own, certificates, ports that are
//! free, and a proxy that makes faults.
//!
//! Only tests use this. Whatever it starts ends with the value that started it.

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
