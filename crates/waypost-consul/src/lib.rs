#![doc = include_str!("../README.md")]
//!
//! # How it works
//! | module | contents |
//! |---|---|
//! | `provider` | the provider and its builder |
//! | `blocking_query`, `rate_limiter`, `connection_limit` | watches a path by blocking queries |
//! | `responses`, `query_options` | decodes responses to instances and names; the options of reads |
//! | `registration`, `definition`, `registered_instances` | registers instances and reports their health |
//! | `agents`, `agent_client`, `address` | chooses an agent; sends requests to one agent |
//! | `http_client`, `resolver`, `escape` | connections to an agent, and the address that its name resolves to |
//! | `acl`, `token`, `tls` | the ACL rules that requests need; tokens; certificates |

mod acl;
mod address;
mod agent_client;
mod agent_report;
mod agents;
mod blocking_query;
mod connection_limit;
mod definition;
mod diagnosis;
mod escape;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzz;
mod http_client;
mod provider;
mod query_options;
mod rate_limiter;
mod registered_instances;
mod registration;
mod resolver;
mod responses;
mod tls;
mod token;
mod validation;

pub use agent_report::{AgentIdentity, AgentReport};
pub use provider::{ConsulBuilder, ConsulProvider};
pub use query_options::Consistency;
