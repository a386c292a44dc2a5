//! How endpoints have behaved, as far as this process knows: what is in flight, how long answers
//! took, how requests ended, who is ejected for it.
//!
//! All of it belongs to the instance's id and outlives every update. It is written by leases and
//! read by strategies, but knows neither.

mod checks;
mod clock;
mod event;
mod fleet;
mod in_flight;
mod latency;
mod options;
mod state;
mod tally;

pub(crate) use checks::Thresholds;
pub use event::{BalanceCounters, BalanceEvent, BalanceEvents, EjectionCause};
pub(crate) use fleet::Fleet;
pub use fleet::Outcome;
pub(crate) use in_flight::{CountedBy, Seat};
pub use options::OutlierDetection;
pub(crate) use state::EndpointState;
pub(crate) use tally::Status;
