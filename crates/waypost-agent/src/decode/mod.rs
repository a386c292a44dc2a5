//! The JSON bodies of requests, read as strictly and as leniently as Consul reads them.
//!
//! [`from_slice`] makes serde follow the rules of Go's decoder. The types here list the fields that
//! Consul knows under each endpoint, derive `Deserialize`, and are converted to the records of
//! [`crate::store`]. Unknown fields are refused where Consul refuses them; what is kept of a body is
//! what Consul keeps of it. Which bodies are refused is thus as in Consul, but the texts that say
//! why are not.

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
pub(crate) use service::ServiceDefinition;
pub(crate) use session::SessionDefinition;
pub(crate) use transaction::operations;
