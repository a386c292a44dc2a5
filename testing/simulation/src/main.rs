//! The whole system on a simulated clock: a registry, services that register with it, and clients that
//! call them, through seeded schedules of crashes, slow answers, hangs, restarts, outages, partitions,
//! clock steps, lost and duplicated writes and lost data. After each step and at the end, invariants are
//! checked.
//!
//! `cargo xtask simulate` runs it optimised, with debug assertions.

#![expect(
    clippy::unwrap_used,
    reason = "a test program: what fails is a fault of the simulation"
)]

mod registry;
mod world;

use std::num::NonZero;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use clap::Parser;

use self::world::World;

/// Run the system through schedules of faults and check that its invariants hold.
#[derive(Parser)]
struct Args {
    /// How many schedules to run.
    #[arg(long, default_value_t = 10_000)]
    schedules: u64,
    /// The seed of the first schedule. Each further schedule has the next number.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Run only the schedule with this seed, on this thread.
    #[arg(long, conflicts_with_all = ["schedules", "first"])]
    seed: Option<u64>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(seed) = args.seed {
        run(seed);
        return ExitCode::SUCCESS;
    }
    let failed = run_all(args.first, args.schedules);
    println!("{} schedules, {} failed", args.schedules, failed.len());
    for seed in &failed {
        println!("replay: cargo xtask simulate --seed {seed}");
    }
    ExitCode::from(u8::from(!failed.is_empty()))
}

/// Runs one schedule.
///
/// # Panics
///
/// If an invariant is violated.
fn run(seed: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async { World::start(seed).await.run().await });
}

/// Runs schedules on all cores and returns the seeds of those that failed.
fn run_all(first: u64, schedules: u64) -> Vec<u64> {
    let next = AtomicU64::new(0);
    let run_some = || {
        let mut failed = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= schedules {
                return failed;
            }
            let seed = first.wrapping_add(index);
            if thread::spawn(move || run(seed)).join().is_err() {
                failed.push(seed);
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(run_some)).collect();
        let results = workers.into_iter().flat_map(|worker| worker.join());
        results.flatten().collect()
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_schedule_of_faults_violates_an_invariant() {
        assert_eq!(super::run_all(0, 20), [0; 0]);
    }
}
