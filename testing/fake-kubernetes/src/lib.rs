//! A fake Kubernetes API server for tests, with faults on demand.
//!
//! It serves Services and EndpointSlices of one or all namespaces, and the Gateway API's objects, as a
//! server of version 1.36 does: lists and watches with bookmarks and resource versions, writes and their
//! refusals, roles and cluster roles, tokens and client certificates, over TLS. It can fail as real servers
//! do: it can be killed and restarted without its history of changes, or frozen, and its etcd can be frozen
//! or restored to an earlier state.
//!
//! It implements the parts that the tests of this workspace need. Any other request gets 404, 405 or 501.
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
//! // A user who may only read.
//! server.add_user("reader");
//! server.grant("reader", "demo", &manifest::read_rules(&["list", "watch"]));
//! let kubeconfig = server.kubeconfig_of("reader")?;
//!
//! // Give the kubeconfig to the code under test, then let the server fail.
//! server.kill().await;
//! server.restart().await?;
//! server.faults().freeze_etcd(true);
//! assert!(server.requests().is_empty());
//! # let _ = kubeconfig;
//! # Ok(())
//! # }
//! ```

mod admission;
mod api;
mod api_server;
mod auth;
mod certificates;
mod cluster;
mod error;
mod faults;
mod freezable;
mod http;
mod kind;
mod kubeconfig;
pub mod manifest;
mod request_log;
mod serve;
mod store;

pub use api_server::{ApiServer, Builder};
pub use error::Error;
pub use faults::Faults;
pub use request_log::Request;
pub use store::Backup;
