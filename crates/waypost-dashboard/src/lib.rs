//! The web page of Waypost: which services need attention and why, their logs, who calls whom, and
//! the contents of the registry.
//!
//! There is one set of files. The program that serves it passes [`Sources`], which say where the data
//! comes from. The page shows the views for which there is a source:
//!
//! | served by | sources |
//! |---|---|
//! | `waypost up` | the stack, its registry and its gateway |
//! | the embedded registry, at `/ui/` | the registry |
//! | the gateway, to browsers | the traffic |
//! | `waypost ui` | a registry that runs elsewhere, such as a Consul |
//!
//! [`Dashboard::respond`] works with any HTTP server. The feature `server` adds a router
//! that also forwards to the registry and the gateway.
//!
//! ```
//! use waypost_dashboard::{Dashboard, Sources};
//!
//! let dashboard = Dashboard::new(&Sources {
//!     registry: Some("../v1/".into()),
//!     ..Sources::default()
//! });
//! let headers = http::HeaderMap::new();
//! let page = dashboard.respond("services/orders", &headers).unwrap();
//! assert_eq!(page.headers()["content-type"], "text/html; charset=utf-8");
//! assert!(dashboard.respond("something/else", &headers).is_none());
//! ```

#![cfg_attr(docsrs, feature(doc_cfg))]

mod assets;
mod dashboard;
#[cfg(feature = "server")]
#[cfg_attr(docsrs, doc(cfg(feature = "server")))]
pub mod server;

pub use dashboard::{Dashboard, Sources};

/// The parts of the build script, for their tests.
#[cfg(test)]
#[path = "../build/module_bundle.rs"]
mod module_bundle;
#[cfg(test)]
#[path = "../build/script.rs"]
mod script;
#[cfg(test)]
#[path = "../build/style.rs"]
mod style;
