#![doc = include_str!("../README.md")]

mod active_check;
mod balance;
pub mod blocking;
mod client;
mod directory;
mod endpoint;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzz;
mod global;
pub mod integration;
mod outlier;
pub mod provider;
mod registrar;
pub mod settings;
mod shard;
mod snapshot;

pub use active_check::ActiveCheck;
pub use balance::{
    Balancer, BalancerOptions, Candidates, Chooser, ConsistentHash, ExplainedCheck,
    ExplainedEjection, ExplainedInstance, Explanation, Key, Lease, LeastConnections, P2cPeakEwma,
    Pick, Random, RoundRobin, Selection, SmoothWeightedRoundRobin, Strategy, WeightStep,
    WeightedRandom, strategy_named,
};
pub use client::{ClientBuilder, ServiceDiscoveryClient};
pub use directory::{Directory, DirectoryOptions, Subscription};
pub use endpoint::Endpoint;
pub use global::{
    deregister_service, get_discovery_provider, get_service, get_service_url, get_services,
    register_service, set_discovery_provider,
};
pub use outlier::{
    BalanceCounters, BalanceEvent, BalanceEvents, EjectionCause, Outcome, OutlierDetection,
};
pub use registrar::{Registrar, RegistrationState};
pub use settings::{ProviderKind, Settings};
pub use snapshot::{Catalog, Failure, Freshness, Snapshot};

pub use provider::{
    EnvProvider, FallbackProvider, LayeredProvider, MemoryProvider, Policy, Provider, Registry,
    StaticProvider,
};
#[cfg(feature = "conformance")]
pub use waypost_core::conformance;
pub use waypost_core::health::{self, HealthChecks};
pub use waypost_core::supervision::ProviderStatus;
pub use waypost_core::{
    Check, CheckKind, ConfigError, Environment, Error, Health, Host, HttpCheck, Instance,
    InstanceBuilder, InstanceId, Invalid, ProviderError, ProviderErrorKind, Registration,
    ServiceAddress, ServiceName, ServiceRegistration, Weight,
};

#[cfg(feature = "consul")]
pub use waypost_consul::{self as consul, ConsulProvider};
#[cfg(feature = "kubernetes")]
pub use waypost_kubernetes::{self as kubernetes, KubernetesProvider};
