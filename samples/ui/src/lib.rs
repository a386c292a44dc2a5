//! A sample service built on `waypost`, with a web page. The page calls the AI models through the
//! gateway, shows which instance sent each result, and shows all registered services live.
//!
//! The service finds the gateway by name. While the registry is unreachable, the page keeps showing
//! the last known state, with its age.
//!
//! | Path | |
//! |---|---|
//! | `GET /` | the page, with its scripts and styles |
//! | `/api/…` | the API of the models, proxied through the gateway |
//! | `GET /events` | the registered services, as server-sent events |

mod error;
mod events;
mod overview;
mod page;
mod problem;
mod proxy;
mod router;
mod run;
mod watcher;

pub use error::Error;
pub use router::{Peers, router};
pub use run::{Config, DEFAULT_PORT, SERVICE_NAME, run, run_until};
