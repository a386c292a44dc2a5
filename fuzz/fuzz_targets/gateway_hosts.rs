//! Patterns of hosts, and hosts.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| waypost_gateway::fuzz::hosts(input));
