//! The bytes of a client's connection.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| waypost_gateway::fuzz::request_heads(input));
