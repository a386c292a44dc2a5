//! Files of services.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| waypost::fuzz::service_files(input));
