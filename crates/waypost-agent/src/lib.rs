//! An embedded service registry that speaks Consul's HTTP API.
//!
//! It has one node and no consensus, starts in a blink, and is meant for laptops, CI jobs and
//! tests; for more than one machine there is Consul. What it serves it serves as Consul 1.8 does:
//! status codes, headers, the casing and the `null`s of the JSON, error texts, ordering, index
//! rules.
//!
//! # Testing code that uses discovery
//!
//! A test starts an agent of its own on a free port, which takes less than 5 ms, and talks to it as
//! to Consul. [`Faults`] make it misbehave as registries do. Everything that it does by the clock
//! it does by Tokio's, so with the clock paused hours pass in no time: a time to live of 10 s
//! expires while the test sleeps for 11 s that it doesn't have to wait.
//!
//! ```
//! use std::time::Duration;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), waypost_agent::Error> {
//! let agent = waypost_agent::Agent::start().await?;
//! tokio::time::pause(); // or #[tokio::test(start_paused = true)]
//! let consul_http_addr = agent.url();
//! // ... give the address to the code under test, then let time pass or break things:
//! tokio::time::sleep(Duration::from_secs(3600)).await;
//! agent.faults().fail(true);
//! # let _ = consul_http_addr;
//! # Ok(())
//! # }
//! ```
//!
//! The clock can be paused only on a current-thread runtime, and the agent must run on it too.

mod agent;
mod app;
mod builder;
mod checks;
mod decode;
mod dns;
mod error;
mod faults;
mod filter;
#[cfg(any(test, feature = "fuzz"))]
#[doc(hidden)]
pub mod fuzz;
mod go_compat;
mod guard;
mod http;
mod ids;
mod journal;
mod leftovers;
mod monitor;
mod persistence;
mod registration;
mod self_report;
mod store;
mod targets;
mod upkeep;
mod wire;

pub use agent::Agent;
pub use builder::Builder;
pub use error::Error;
pub use faults::Faults;
pub use leftovers::{Leftover, LeftoversError, clear_leftovers, leave, leftovers};
