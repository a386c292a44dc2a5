//! Calls a parser with mutated inputs, as a fuzzer does, but with the same inputs in each run.

use std::panic::catch_unwind;

/// Inputs per call, besides the seeds.
const INPUTS: usize = 5_000;

/// Calls a function with the seeds, and with 5,000 mutations of them, which replace, remove or repeat bytes or
/// insert one of the fragments.
///
/// # Panics
/// If the function does, with the input.
pub fn call_with_mutations(target: fn(&[u8]), seeds: &[&str], fragments: &[&str]) {
    let mut random = fastrand::Rng::with_seed(7);
    for seed in seeds {
        target(seed.as_bytes());
    }
    for _ in 0..INPUTS {
        let mut input = seeds[random.usize(..seeds.len())].as_bytes().to_vec();
        for _ in 0..random.usize(1..6) {
            let at = random.usize(..=input.len());
            let end = random.usize(at..=input.len().min(at + 12));
            match random.u8(..4) {
                0 if at < input.len() => input[at] = random.u8(..),
                1 => drop(input.drain(at..end)),
                2 => {
                    let copy = input[at..end].to_vec();
                    input.splice(at..at, copy);
                }
                _ => {
                    let fragment = fragments[random.usize(..fragments.len())];
                    input.splice(at..end, fragment.bytes());
                }
            }
        }
        let result = catch_unwind(|| target(&input));
        assert!(
            result.is_ok(),
            "panicked on {:?}",
            String::from_utf8_lossy(&input)
        );
    }
}
