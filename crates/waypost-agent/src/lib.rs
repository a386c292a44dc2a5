//! An embedded service registry that speaks Consul's HTTP API.
//!
//! It has one node and no consensus, starts in a blink, and is meant for laptops, CI jobs and
//! tests; for more than one machine there is Consul. What it serves it serves as Consul 1.8 does:
//! status codes, headers, the casing and the `null`s of the JSON, error texts, ordering, index
//! rules.
//!
//! # Testing code that uses discovery
//!
//! A test starts an agent of its own on a free port and talks to it as to Consul. [`Faults`] make
//! it misbehave as registries do.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), waypost_agent::Error> {
//! let agent = waypost_agent::Agent::start().await?;
//! let consul_http_addr = agent.url();
//! // ... give the address to the code under test, then break things:
//! agent.faults().fail(true);
//! # let _ = consul_http_addr;
//! # Ok(())
//! # }
//! ```

mod agent;
mod app;
mod blocking;
mod checks;
mod decode;
mod dns;
mod error;
mod faults;
mod filter;
mod go;
mod guard;
mod http;
mod leftovers;
mod registration;
mod self_report;
mod store;
mod targets;
mod wire;

pub use agent::{Agent, Builder};
pub use error::Error;
pub use faults::Faults;
pub use leftovers::{Leftover, LeftoversError, clear_leftovers, leftovers};
