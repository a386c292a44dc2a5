//! The agent as its clients see it.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod consul;
mod differential;
mod dns;
mod faults;
mod http;
mod life;
mod watching;
