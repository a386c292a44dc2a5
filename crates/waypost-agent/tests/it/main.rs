//! The agent as its clients see it.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod acl;
mod blocking_queries;
mod consul_cli;
mod differential;
mod dns;
mod fault_injection;
mod grpc_checks;
mod kv;
mod laptop;
mod lifecycle;
mod paused_clock;
mod persistence;
mod raw_http;
mod real_consul;
mod security;
mod stale_instances;
mod third_party_clients;
