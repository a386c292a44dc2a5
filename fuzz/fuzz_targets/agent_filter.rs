//! Filter expressions.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| waypost_agent::fuzz::filter(input));
