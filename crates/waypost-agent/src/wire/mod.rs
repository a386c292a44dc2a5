//! The JSON of records in responses, where it differs from that of the records of [`crate::store`].
//! The fields are in Consul's order.

mod agent;
mod catalog;
mod hashstructure;
mod pairs;
mod stored;

pub(crate) use agent::{AgentCheck, AgentService, ServiceHealth};
pub(crate) use catalog::{CatalogService, HealthService, NodeServices};
pub(crate) use pairs::Pairs;
pub(crate) use stored::{StoredCheck, StoredService};
