//! A mutational fuzzer: calls a function with randomly changed valid inputs.
//!
//! It needs neither coverage nor a nightly compiler, so the tests of each crate run it with a few
//! thousand inputs. The fuzz targets in the folder `fuzz` of the repository call the same functions, guided
//! by coverage. `cargo xtask fuzz` runs the tests with millions of inputs.

use std::env;
use std::panic::catch_unwind;
use std::time::Duration;

use fastrand::Rng;
use rustix::time::{ClockId, clock_gettime};

/// The processor time that an input may take. It doesn't depend on how busy the machine is.
const TIME_LIMIT: Duration = Duration::from_secs(5);

/// The maximum number of bytes that a mutation removes, repeats or replaces.
const MAX_PIECE: usize = 16;

/// Calls `target` with each of the seeds and then with `inputs` mutations of them.
///
/// `fragments` are tokens of the format, which mutations insert. The inputs are the same in each run, unless
/// these environment variables are set: `WAYPOST_FUZZ_INPUTS`, the number of inputs, and
/// `WAYPOST_FUZZ_SEED`, the seed of the random numbers.
///
/// # Panics
///
/// If the target panics or takes 5 s of processor time; the message then shows the input. Also if there are no
/// seeds.
pub fn fuzz(target: fn(&[u8]), seeds: &[impl AsRef<[u8]>], fragments: &[&str], inputs: usize) {
    let seeds: Vec<&[u8]> = seeds.iter().map(AsRef::as_ref).collect();
    assert!(!seeds.is_empty(), "no seeds");
    for seed in &seeds {
        call(target, seed);
    }
    let mut random = Rng::with_seed(variable("WAYPOST_FUZZ_SEED").unwrap_or(7));
    let inputs = variable("WAYPOST_FUZZ_INPUTS").unwrap_or(inputs as u64);
    for _ in 0..inputs {
        call(target, &mutate(&seeds, fragments, &mut random));
    }
}

/// Calls a target, and panics if it panics or takes too long.
///
/// # Panics
///
/// If the target panics or takes too long. The message shows the first 4 kB of the input.
pub fn call(target: fn(&[u8]), input: &[u8]) {
    let start = processor_time();
    let result = catch_unwind(|| target(input));
    let took = processor_time() - start;
    let shown = || String::from_utf8_lossy(&input[..input.len().min(4096)]).into_owned();
    assert!(result.is_ok(), "panicked on {:?}", shown());
    assert!(took < TIME_LIMIT, "took {took:?} for {:?}", shown());
}

/// The processor time that this thread has used.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// A random seed with a few random changes.
fn mutate(seeds: &[&[u8]], fragments: &[&str], random: &mut Rng) -> Vec<u8> {
    let mut input = seeds[random.usize(..seeds.len())].to_vec();
    for _ in 0..random.usize(1..8) {
        let at = random.usize(..=input.len());
        let end = random.usize(at..=input.len().min(at + MAX_PIECE));
        match random.u8(..7) {
            0 if at < input.len() => input[at] ^= 1 << random.u8(..8),
            1 if at < input.len() => input[at] = random.u8(..),
            2 => drop(input.drain(at..end)),
            3 => {
                let piece = input[at..end].repeat(random.usize(1..4));
                input.splice(at..at, piece);
            }
            4 => {
                let other = seeds[random.usize(..seeds.len())];
                let from = random.usize(..=other.len());
                input.splice(at..end, other[from..].iter().copied());
            }
            _ => {
                let fragment = fragments[random.usize(..fragments.len())];
                input.splice(at..end, fragment.bytes());
            }
        }
    }
    input
}

/// The number in an environment variable.
fn variable(name: &str) -> Option<u64> {
    let value = env::var(name).ok()?;
    let number = value.parse();
    Some(number.unwrap_or_else(|_| panic!("{name} must be a number, but is {value:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mutations_are_the_same_in_each_run_and_differ_from_each_other() {
        let mutations = || {
            let mut random = Rng::with_seed(7);
            let seeds: [&[u8]; 2] = [b"http://a:80/b", b"{\"a\": 1}"];
            let inputs = (0..1_000).map(|_| mutate(&seeds, &["null", "//"], &mut random));
            inputs.collect::<Vec<_>>()
        };
        let mut inputs = mutations();
        assert_eq!(inputs, mutations());
        inputs.sort_unstable();
        inputs.dedup();
        assert!(inputs.len() > 900, "{}", inputs.len());
    }

    #[test]
    #[should_panic(expected = "//\"")]
    fn a_panic_shows_the_input() {
        fuzz(
            |input| assert!(!input.ends_with(b"///")),
            &["http://a"],
            &["///"],
            1_000,
        );
    }
}
