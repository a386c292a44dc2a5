//! A [Waypost] provider for Kubernetes: finds the endpoints of Services by watching EndpointSlices,
//! and registers instances that run outside the cluster.
//!
//! ```no_run
//! use futures_util::StreamExt;
//! use waypost_core::provider::{Provider, ServiceAnswer};
//! use waypost_kubernetes::KubernetesProvider;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let provider = KubernetesProvider::builder().namespace("demo").build()?;
//! let mut watch = provider.watch(&"web".parse()?);
//! while let Some(answer) = watch.next().await {
//!     match answer {
//!         Ok(ServiceAnswer::Instances(instances)) => println!("{} instances", instances.len()),
//!         Ok(ServiceAnswer::Unknown) => println!("no such Service"),
//!         Err(error) => eprintln!("{error}"),
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Applications usually use it through the crate `waypost` with the feature `kubernetes`, which adds
//! caching, load balancing and registration. The program itself must enable one `v1_*` feature of the
//! crate `k8s-openapi`, such as `v1_33`.
//!
//! # How it works
//! | module | |
//! |---|---|
//! | `config`, `client` | which API server, with which identity; single requests |
//! | `reflector` | lists one kind of object and follows its changes |
//! | `store`, `sync_state` | the objects of one kind, and whether they can be relied on |
//! | `liveness` | detects a server that does not respond, or whose etcd was rolled back |
//! | `informer` | combines these for one namespace: events change a state, updates are published |
//! | `mapping`, `ports`, `endpoint_set` | from EndpointSlices and Services to instances |
//! | `registry` | writes EndpointSlices for instances outside the cluster |
//! | `rbac` | says which permissions are missing, and how to grant them |
//!
//! [Waypost]: waypost_core

mod client;
mod clock;
mod config;
mod endpoint_set;
mod error;
mod informer;
mod informer_factory;
mod latest;
mod liveness;
mod mapping;
mod options;
mod ports;
mod provider;
mod rbac;
mod reflector;
mod registry;
mod renewal;
mod resources;
mod scope;
mod service_ref;
mod store;
mod sync_state;
mod watch_stream;

pub use config::check_service_account;
pub use provider::{KubernetesBuilder, KubernetesProvider};
