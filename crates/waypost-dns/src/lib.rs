#![doc = include_str!("../README.md")]
//!
//! # How it works
//! | module | contents |
//! |---|---|
//! | `provider` | the provider and its builder |
//! | `query` | one look-up of a service: the queries, and what their answers mean |
//! | `mapping` | makes instances of records |

mod mapping;
mod provider;
mod query;

pub use provider::{DnsBuilder, DnsProvider};
