//! A file that changes are appended to, and what waits to be appended. What the changes are about,
//! the journal doesn't know.

mod log;
mod pending;

pub(crate) use log::{Fault, Log};
pub(crate) use pending::{Pending, Progress};
