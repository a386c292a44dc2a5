//! The rows of the tables, in the format of Consul's API.

mod catalog;
mod check_definition;
mod kv_entry;
mod session;

pub(crate) use catalog::{
    CatalogCheckDefinition, Check, CheckStatus, Connect, Node, Proxy, Service, ServiceAddress,
    Weights,
};
pub(crate) use check_definition::{CheckDefinition, CheckKind};
pub(crate) use kv_entry::KvEntry;
pub(crate) use session::{Session, SessionServiceCheck};
