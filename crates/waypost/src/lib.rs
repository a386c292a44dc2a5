#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod active_check;
pub mod balance;
pub mod blocking;
mod client;
pub mod directory;
mod endpoint;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzz;
mod global;
pub mod health;
pub mod integration;
mod name_map;
pub mod outlier;
pub mod provider;
mod registrar;
mod selector;
pub mod settings;
mod shard;
pub mod snapshot;
mod telemetry;

#[cfg(feature = "conformance")]
pub use waypost_core::conformance;
pub use waypost_core::health::HealthChecks;
pub use waypost_core::{
    Check, ConfigError, Environment, Error, Health, Host, Instance, InstanceBuilder, InstanceId,
    Invalid, ProviderError, ProviderErrorKind, ServiceAddress, ServiceName, ServiceRegistration,
    Weight, mask_secrets, parse_yaml,
};

pub use crate::active_check::ActiveCheck;
pub use crate::balance::balancer::Balancer;
pub use crate::balance::lease::Lease;
pub use crate::balance::pick::Pick;
pub use crate::client::{ClientBuilder, ServiceDiscoveryClient};
pub use crate::global::{
    deregister_all_services, deregister_service, get_discovery_provider, get_service,
    get_service_url, get_services, register_service, set_discovery_provider,
};
pub use crate::outlier::outcome::Outcome;
pub use crate::registrar::{Registrar, RegistrationState};
pub use crate::selector::Selector;

/// Compiles the examples in the README of the repository.
#[cfg(all(doctest, feature = "axum", feature = "consul"))]
#[doc = include_str!("../../../README.md")]
struct ReadmeOfTheRepository;

/// Compiles the examples in `docs/finding.md`.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/finding.md")]
struct FindingServices;

/// Runs the examples in `docs/testing.md`.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/testing.md")]
struct Testing;

/// Compiles the examples in `docs/registering.md`.
#[cfg(all(doctest, feature = "axum"))]
#[doc = include_str!("../../../docs/registering.md")]
struct BeingFound;
