#![doc = include_str!("../README.md")]
//!
//! # How it works
//! | module | contents |
//! |---|---|
//! | `provider` | the provider and its builder |
//! | `query` | one look-up of a service: its queries and their responses |
//! | `mapping` | converts records to instances |

mod mapping;
mod provider;
mod query;

pub use provider::{DnsBuilder, DnsProvider};
