//! The model: service names, instances, weights, health and addresses.
//!
//! A value of these types is valid: names, hosts and weights are checked once, where they enter the
//! program, so that later code doesn't have to check again.

mod address;
mod health;
mod host;
mod instance;
mod invalid;
mod name;
mod weight;

pub use address::ServiceAddress;
pub use health::Health;
pub use host::Host;
pub use instance::{Instance, InstanceBuilder, InstanceId};
pub use invalid::Invalid;
pub use name::ServiceName;
pub use weight::Weight;
