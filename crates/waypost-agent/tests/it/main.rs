//! The agent as its clients see it.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod cli;
mod clients;
mod clock;
mod consul;
mod differential;
mod dns;
mod faults;
mod grpc;
mod http;
mod keeping;
mod kinder;
mod kv;
mod leftovers;
mod life;
mod safety;
mod token;
mod watching;
