//! Makes the attempts of an HTTP request: which instance each goes to, how long it may take, and
//! whether another one follows. The integrations use this; so can an HTTP client without an integration.

mod budget;
mod pick;
#[cfg(any(feature = "reqwest", feature = "tower"))]
mod policy;
#[cfg(any(feature = "reqwest", feature = "tower"))]
mod send;

pub use self::budget::RetryBudget;
#[cfg(any(feature = "hyper-util", feature = "tonic"))]
pub(crate) use self::pick::pick_for;
pub use self::pick::{ATTEMPTS, lease_for};
#[cfg(any(feature = "reqwest", feature = "tower"))]
pub use self::policy::{AttemptTimeout, RetryPolicy};
#[cfg(any(feature = "reqwest", feature = "tower"))]
pub(crate) use self::send::{Call, Failure, HttpClient, send, was_never_sent};
