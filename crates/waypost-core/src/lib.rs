//! The parts of Waypost that a provider is written against.
//!
//! An application depends on `waypost`, which re-exports what it needs from here. A crate that adds
//! a place to find services in depends on this one alone: it implements [`provider::Provider`] (and
//! [`provider::Registry`], if services can be registered there), reports failures as
//! [`ProviderError`], and is tested by the suite in [`conformance`].
//!
//! | module | contents |
//! |---|---|
//! | root | names, instances, weights, health, addresses, registrations: values that are valid once they exist; errors |
//! | [`provider`] | the two traits, and the providers for environment variables, files, memory and layers |
//! | [`supervision`] | restarts watches that fail, with backoff, and logs outages once |
//! | [`health`] | an application's own checks, and their report |
//! | [`conformance`] | tests that every provider must pass (feature `conformance`) |

#[cfg(feature = "conformance")]
pub mod conformance;
mod environment;
mod error;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzz;
pub mod health;
mod model;
pub mod provider;
mod registration;
pub mod supervision;

pub use environment::Environment;
pub use error::{ConfigError, Error, ProviderError, ProviderErrorKind};
pub use model::{
    Health, Host, Instance, InstanceBuilder, InstanceId, Invalid, ServiceAddress, ServiceName,
    Weight,
};
pub use registration::{Check, CheckKind, HttpCheck, Registration, ServiceRegistration};
