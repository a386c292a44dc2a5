//! Real parts for the tests: a Consul of their own, and ports that are free.
//!
//! Only tests use this. Whatever it starts ends with the value that started it.

mod consul;
mod ports;

pub use consul::Consul;
pub use ports::free_ports;
