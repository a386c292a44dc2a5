//! All objects of the Gateway API, and their status.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| waypost_gateway::fuzz::gateway_objects(input));
