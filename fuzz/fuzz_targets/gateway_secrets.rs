//! Secrets with the certificates of HTTPS listeners.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| waypost_gateway::fuzz::gateway_secrets(input));
