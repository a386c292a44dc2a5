//! A stand-in for the Kubernetes API server, for tests and for laptops, with its faults on demand.
//!
//! It serves services, EndpointSlices, namespaces, leases and the objects of role-based access
//! control as a server of version 1.36 does: lists in chunks, watches with bookmarks, resource
//! versions and their rules, patches, the words of refusals, TLS with tokens and client
//! certificates. It also does what goes wrong with real ones: it is killed and comes back with
//! no memory of former changes, freezes, loses its etcd, or finds it restored to an earlier state.
//!
//! ```
//! use waypost_fake_kubernetes::{ApiServer, manifest};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), waypost_fake_kubernetes::Error> {
//! let server = ApiServer::builder().namespace("demo").start().await?;
//! server.put(&manifest::service("demo", "web", &[("http", 80)]));
//! let pods = ["10.0.0.1", "10.0.0.2"].map(manifest::endpoint);
//! server.put(&manifest::slice("demo", "web", "web-abcde", &[("http", 8080)], pods));
//!
//! // A user with the least right that reading needs.
//! server.add_user("reader")?;
//! server.grant("reader", Some("demo"), &manifest::reading(&["list", "watch"]));
//! let kubeconfig = server.kubeconfig_of("reader")?;
//!
//! // ... give the kubeconfig to the code under test, then break things:
//! server.kill().await;
//! server.restart().await?;
//! server.faults().freeze_etcd(true);
//! assert!(server.requests().is_empty());
//! # let _ = kubeconfig;
//! # Ok(())
//! # }
//! ```

mod access;
mod api;
mod api_server;
mod app;
mod certificates;
mod control;
mod error;
mod faults;
mod http;
mod kinds;
mod kubeconfig;
pub mod manifest;
mod requests;
mod rules;
mod store;

pub use api_server::{ADMIN, ApiServer, Builder};
pub use control::control;
pub use error::Error;
pub use faults::Faults;
pub use requests::Request;
pub use store::Backup;
