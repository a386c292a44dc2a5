//! HTTP requests to the registry.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| waypost_agent::fuzz::requests(input));
