#![doc = include_str!("../README.md")]
//!
//! # Modules
//! | module | contents |
//! |---|---|
//! | root | names, instances, weights, health, addresses, registrations and errors |
//! | [`provider`] | the two traits, and the providers for environment variables, files, memory and layers |
//! | [`supervision`] | restarts failed watches with backoff, and logs one line per outage |
//! | [`health`] | an application's own health checks, and the report on them |
#![cfg_attr(
    feature = "conformance",
    doc = "| [`conformance`] | tests that every provider must pass (feature `conformance`) |"
)]
#![cfg_attr(docsrs, feature(doc_cfg))]

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
mod secrets;
pub mod supervision;
mod yaml;

pub use environment::Environment;
pub use error::{ConfigError, Error, ProviderError, ProviderErrorKind};
pub use model::{
    Health, Host, Instance, InstanceBuilder, InstanceId, Invalid, ServiceAddress, ServiceName,
    Weight,
};
pub use registration::{Check, CheckKind, HttpCheck, Registration, ServiceRegistration};
pub use secrets::mask_secrets;
pub use yaml::parse_yaml;
