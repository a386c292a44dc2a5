//! Tests of the agent through its HTTP and DNS interfaces.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

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
mod memory;
mod paused_clock;
mod persistence;
mod raw_http;
mod real_consul;
mod security;
mod shared_responses;
mod stale_instances;
mod third_party_clients;
mod waypost_api;
