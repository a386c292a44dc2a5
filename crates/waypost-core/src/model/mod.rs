//! The model: service names, instances, weights, health and addresses.
//!
//! A value of these types is valid: names, hosts and weights are checked once, where they enter the
//! program, so that no code further in has to check again.

mod address;
mod health;
mod host;
mod instance;
mod name;
mod weight;

pub use address::ServiceAddress;
pub use health::Health;
pub use host::Host;
pub use instance::{Instance, InstanceBuilder, InstanceId};
pub use name::ServiceName;
pub use weight::Weight;

/// Why a value was refused: what it was, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value:?} is not valid: {why}")]
pub struct Invalid {
    what: &'static str,
    value: String,
    why: String,
}

impl Invalid {
    /// A refused value: what kind of value it is (such as `"service name"`), the value itself
    /// (`"(hidden)"` for a secret), and what is wrong with it or would be right.
    pub fn new(what: &'static str, value: impl Into<String>, why: impl Into<String>) -> Self {
        Self {
            what,
            value: value.into(),
            why: why.into(),
        }
    }

    /// What kind of value it was, such as `"service name"`.
    pub fn what(&self) -> &str {
        self.what
    }

    /// The value that was refused.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// What is wrong with it and what would be right.
    pub fn why(&self) -> &str {
        &self.why
    }
}
