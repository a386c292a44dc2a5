//! JSON Web Tokens and key sets.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| waypost_gateway::fuzz::tokens(input));
