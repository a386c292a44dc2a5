//! The whole system on a paused clock: a registry, services that register with it, and clients that
//! call them, through seeded schedules of crashes, hangs, restarts, outages, partitions, lost and
//! duplicated writes and lost data. After each step and at the end, invariants are checked.
//!
//! `WAYPOST_SIMULATION_SCHEDULES` is the number of schedules; `WAYPOST_SIMULATION_SEED` replays one.

mod registry;
mod world;

use self::world::World;

/// For each run of the tests; about a tenth of a second of processor time each.
const SCHEDULES: u64 = 300;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn run(seed: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let done = std::panic::catch_unwind(|| {
        runtime.block_on(async { World::start(seed).await.run().await });
    });
    assert!(
        done.is_ok(),
        "schedule {seed} failed; replay it with WAYPOST_SIMULATION_SEED={seed}"
    );
}

#[test]
fn no_schedule_of_faults_breaks_an_invariant() {
    if let Some(seed) = number("WAYPOST_SIMULATION_SEED") {
        return run(seed);
    }
    let schedules = number("WAYPOST_SIMULATION_SCHEDULES").unwrap_or(SCHEDULES);
    let next = std::sync::atomic::AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if seed >= schedules {
                        return;
                    }
                    run(seed);
                }
            });
        }
    });
}
