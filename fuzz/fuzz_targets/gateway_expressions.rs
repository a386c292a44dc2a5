//! Regular expressions of HTTPRoutes.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| waypost_gateway::fuzz::expressions(input));
