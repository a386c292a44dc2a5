#![doc = include_str!("../README.md")]
//!
//! # How it works
//! | module | |
//! |---|---|
//! | `config`, `client` | which API server, with which identity; single requests |
//! | `reflector` | lists one kind of object and follows its changes |
//! | `store`, `sync_state` | the objects of one kind, and whether they can be relied on |
//! | `liveness` | detects a server that does not respond, or whose etcd was rolled back |
//! | `informer` | combines these for one namespace or all: events change a state, updates are published |
//! | `mapping`, `ports`, `endpoint_set` | from EndpointSlices and Services to instances |
//! | `registry` | writes EndpointSlices for instances outside the cluster |
//! | `objects` | follows objects of any kind in all namespaces, for controllers |
//! | `rbac` | says which permissions are missing, and how to grant them |

mod client;
mod clock;
mod config;
mod endpoint_set;
mod error;
mod informer;
mod informer_factory;
mod label_selector;
mod latest;
mod liveness;
mod mapping;
mod namespaces;
mod object_key;
pub mod objects;
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
pub use provider::{AccessReport, KubernetesBuilder, KubernetesProvider};
pub use rbac::MissingPermissions;
