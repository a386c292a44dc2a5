//! The rows of the tables, in the format of Consul's API.

mod catalog;
mod check_definition;
mod kv_entry;
mod proxy;
mod session;

pub(crate) use catalog::{
    CatalogCheckDefinition, Check, CheckStatus, Connect, Node, Service, ServiceAddress, Weights,
};
pub(crate) use check_definition::{CheckDefinition, CheckKind};
pub(crate) use kv_entry::KvEntry;
pub(crate) use proxy::{Expose, MeshGateway, Proxy, ProxyConfig, Upstream};
pub(crate) use session::{Session, SessionServiceCheck};
