//! Responses of Consul.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| waypost::fuzz::consul_answers(input));
