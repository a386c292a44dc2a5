#![doc = include_str!("../README.md")]

mod active_check;
mod backoff;
mod balance;
pub mod blocking;
mod client;
mod conduct;
#[cfg(feature = "conformance")]
pub mod conformance;
mod directory;
mod environment;
mod error;
#[cfg(any(test, feature = "fuzz"))]
#[doc(hidden)]
pub mod fuzz;
mod global;
pub mod health;
pub mod integration;
mod link;
mod model;
pub mod provider;
mod registrar;
mod registration;
pub mod settings;
mod shard;
mod snapshot;

pub use active_check::ActiveCheck;
pub use balance::{
    Balancer, BalancerOptions, Candidates, Chooser, ConsistentHash, ExplainedCheck,
    ExplainedEjection, ExplainedInstance, Explanation, Fate, Key, Lease, LeastConnections,
    P2cPeakEwma, Pick, Random, RoundRobin, SmoothWeightedRoundRobin, Strategy, WeightStep,
    WeightedRandom, strategy_named,
};
pub use client::{ClientBuilder, ServiceDiscoveryClient};
pub use conduct::{
    BalanceCounters, BalanceEvent, BalanceEvents, EjectionCause, Outcome, OutlierDetection,
};
pub use directory::{Directory, DirectoryOptions, Subscription};
pub use environment::Environment;
pub use error::{ConfigError, Error, ProviderError, ProviderErrorKind};
pub use global::{
    deregister_service, get_discovery_provider, get_service, get_service_url, get_services,
    register_service, set_discovery_provider,
};
pub use health::HealthChecks;
pub use link::ProviderStatus;
pub use model::{
    Health, Host, Instance, InstanceBuilder, InstanceId, Invalid, ServiceAddress, ServiceName,
    Weight,
};
#[cfg(feature = "consul")]
pub use provider::consul::{self, ConsulProvider};
#[cfg(feature = "kubernetes")]
pub use provider::kubernetes::{self, KubernetesProvider};
pub use provider::{
    EnvProvider, FallbackProvider, LayeredProvider, MemoryProvider, Policy, Provider, Registry,
    StaticProvider,
};
pub use registrar::{Registrar, RegistrationState};
pub use registration::{Check, CheckKind, HttpCheck, Registration, ServiceRegistration};
pub use settings::{ProviderKind, Settings};
pub use snapshot::{Catalog, Endpoint, Failure, Freshness, Snapshot};
