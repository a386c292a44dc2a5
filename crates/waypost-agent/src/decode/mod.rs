//! Request bodies. The same bodies are accepted and refused as in Consul.
//!
//! Each type lists the fields that Consul accepts at an endpoint, and is converted to records of
//! [`crate::store`], which keep the fields that Consul keeps. [`from_slice`] makes serde follow the
//! rules of Go's JSON decoder. Its errors name the path of a field; their text is not Consul's.

mod authorization;
mod catalog;
mod check;
mod coordinate;
mod json;
mod service;
mod session;
mod transaction;

pub(crate) use authorization::Authorization;
pub(crate) use catalog::{CatalogDeregistration, CatalogRegistration};
pub(crate) use check::{CheckRegistration, CheckUpdate};
pub(crate) use coordinate::CoordinateUpdate;
pub(crate) use json::from_slice;
pub(crate) use service::{ServiceDefinition, sidecar_id};
pub(crate) use session::SessionDefinition;
pub(crate) use transaction::operations;
