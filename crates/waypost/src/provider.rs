//! Where instances come from: the provider traits, and a provider for each kind of source.
//!
//! A program that only looks services up doesn't need this module:
//! [`Settings`](crate::settings::Settings) choose a provider from the environment. To add another kind
//! of source, implement [`Provider`] (and [`Registry`], if services can be registered there) and pass it
//! to [`ServiceDiscoveryClient::builder`](crate::ServiceDiscoveryClient::builder) or
//! [`set_discovery_provider`](crate::set_discovery_provider). The traits are defined in the crate
//! `waypost-core`, which is all that a provider crate needs; `examples/own_provider.rs` is a complete
//! provider.

pub use waypost_core::provider::{
    BoxFuture, BoxStream, CheckResult, EnvProvider, FallbackProvider, HeartbeatResponse,
    InstanceReport, LayerPolicy, LayeredProvider, MemoryProvider, NamesWatch, Provider, Registry,
    ServiceAnswer, StaticProvider, TokenFile, Watch, services_from_json,
};
pub use waypost_core::supervision::ProviderStatus;
pub use waypost_core::{CheckKind, HttpCheck, Registration};

#[cfg(feature = "consul")]
pub use waypost_consul as consul;
#[cfg(feature = "dns")]
pub use waypost_dns as dns;
#[cfg(feature = "kubernetes")]
pub use waypost_kubernetes as kubernetes;
