//! Headers of requests: forwarding, cookies, encodings, CORS.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| waypost_gateway::fuzz::request_headers(input));
