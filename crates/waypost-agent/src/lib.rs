//! An embedded service registry that implements Consul's HTTP API.
//!
//! It has one node and no consensus, starts in milliseconds, and is meant for laptops, CI jobs and
//! tests. For more than one machine, use Consul. Every supported endpoint behaves as in Consul 1.8:
//! status codes, headers, the case and the `null`s of the JSON, error texts, ordering and indexes.
//!
//! # Testing code that uses discovery
//!
//! A test starts its own agent on a free port, which takes less than 5 ms, and uses it like Consul.
//! [`Faults`] injects faults. All timers use Tokio's clock: while that is paused, a test that sleeps
//! for 11 s sees a TTL of 10 s expire without waiting.
//!
//! ```
//! use std::time::Duration;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), waypost_agent::Error> {
//! let agent = waypost_agent::Agent::start().await?;
//! tokio::time::pause(); // or #[tokio::test(start_paused = true)]
//! let consul_http_addr = agent.url();
//! // ... pass the address to the code under test, then advance the clock or inject faults:
//! tokio::time::sleep(Duration::from_secs(3600)).await;
//! agent.faults().fail(true);
//! # let _ = consul_http_addr;
//! # Ok(())
//! # }
//! ```
//!
//! The clock can only be paused on a current-thread runtime, and the agent must run on the same one.

mod agent;
mod agent_info;
mod agent_services;
mod app;
mod auth;
mod background;
mod check_targets;
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
mod http;
mod ids;
mod journal;
mod metadata;
mod monitor;
mod persistence;
mod registry_client;
mod stale_instances;
mod store;
mod text;
mod wall_clock;
mod wire;

pub use agent::{Agent, Builder};
pub use error::Error;
pub use faults::Faults;
pub use registry_client::{RegistryRequestError, leave};
pub use stale_instances::{StaleInstance, deregister_stale_instances, stale_instances};
