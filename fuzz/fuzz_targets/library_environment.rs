//! Environment variables.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| waypost::fuzz::environment(input));
