//! Requests per second of two workers against one. Each worker may use a small share of a core, so that
//! there is CPU time left for wrk and the origin, and other load on the machine hardly matters.
//!
//! Needs root and the `cpu` controller of control groups, version 1.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::proxies::{Origin, Proxy, TWO_WORKERS};
use crate::wrk;

const CONTROLLER: &str = "/sys/fs/cgroup/cpu";
/// The CPU time of a worker in each period: 20 % of a core.
const PERIOD_MICROS: u32 = 10_000;
const QUOTA_MICROS: u32 = 2_000;
/// The maximum weight, so that other programs don't prevent a worker from using its quota.
const SHARES: u32 = 262_144;
/// Enough for a worker to have requests for its whole quota when a period begins, but so few that none is
/// idle long enough for the gateway to free its buffers.
const CONNECTIONS: u32 = 128;

pub(crate) fn run(rounds: u32, seconds: u32, folder: &Path) -> Result<(), String> {
    let origin = Origin::start(folder)?;
    let one = Limited::start("waypost", 1, &origin, folder)?;
    let two = Limited::start(TWO_WORKERS, 2, &origin, folder)?;
    println!("| one worker | two workers | ratio |\n|---|---|---|");
    let mut ratios = Vec::new();
    for _ in 0..rounds {
        let (one, two) = (
            one.requests_per_second(seconds)?,
            two.requests_per_second(seconds)?,
        );
        println!("| {one:.0} | {two:.0} | {:.2} |", two / one);
        ratios.push(two / one);
    }
    println!("\nmedian: {:.2}", median(&mut ratios));
    Ok(())
}

/// A gateway whose workers are limited.
struct Limited {
    proxy: Proxy,
    _limits: Vec<Limit>,
}

impl Limited {
    fn start(name: &str, workers: usize, origin: &Origin, folder: &Path) -> Result<Self, String> {
        let proxy = Proxy::start(name, origin.port, folder)?;
        let mut threads = proxy.threads("gateway-")?;
        // The first worker may answer before the last one has started.
        for _ in 0..100 {
            if threads.len() == workers {
                break;
            }
            thread::sleep(Duration::from_millis(20));
            threads = proxy.threads("gateway-")?;
        }
        if threads.len() != workers {
            return Err(format!("{} workers instead of {workers}", threads.len()));
        }
        let limits = threads
            .into_iter()
            .map(Limit::new)
            .collect::<Result<_, _>>()?;
        let limited = Self {
            proxy,
            _limits: limits,
        };
        limited.requests_per_second(1)?;
        Ok(limited)
    }

    fn requests_per_second(&self, seconds: u32) -> Result<f64, String> {
        let load = wrk::run_over(CONNECTIONS, &self.proxy.url(), seconds)?;
        if load.failed > 0 {
            return Err(format!("{} requests failed", load.failed));
        }
        Ok(load.requests as f64 / f64::from(seconds))
    }
}

pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Limits the CPU time of a thread while it exists.
struct Limit(PathBuf);

impl Limit {
    fn new(thread: u32) -> Result<Self, String> {
        let group = PathBuf::from(format!("{CONTROLLER}/waypost-bench-{thread}"));
        let failed = |error: std::io::Error| format!("{}: {error}", group.display());
        fs::create_dir(&group).map_err(failed)?;
        let limit = Self(group.clone());
        for (file, value) in [
            ("cpu.cfs_period_us", PERIOD_MICROS),
            ("cpu.cfs_quota_us", QUOTA_MICROS),
            ("cpu.shares", SHARES),
            ("tasks", thread),
        ] {
            fs::write(group.join(file), value.to_string()).map_err(failed)?;
        }
        Ok(limit)
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        // A group can only be removed when it has no threads.
        let threads = fs::read_to_string(self.0.join("tasks")).unwrap_or_default();
        for thread in threads.lines() {
            let _ = fs::write(format!("{CONTROLLER}/tasks"), thread);
        }
        let _ = fs::remove_dir(&self.0);
    }
}
