//! HTTPRoutes of Kubernetes.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| waypost_gateway::fuzz::http_routes(input));
