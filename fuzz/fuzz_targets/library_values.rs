//! Names, hosts, weights and addresses.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| waypost::fuzz::values(input));
