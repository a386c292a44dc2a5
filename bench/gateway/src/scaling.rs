//! Requests per second of two workers against one. Each worker may use a small share of a core, so that
//! there is CPU time left for wrk and the origin, and other load on the machine hardly matters.
//!
//! Needs root and the `cpu` controller of control groups, version 1.

use std::fs;
use std::path::{Path, PathBuf};

use crate::proxies::{Origin, Proxy, TWO_WORKERS};
use crate::wrk;

const CONTROLLER: &str = "/sys/fs/cgroup/cpu";
/// The CPU time of a worker in each period: 5 % of a core.
const PERIOD_MICROS: u32 = 20_000;
const QUOTA_MICROS: u32 = 1_000;

pub(crate) fn run(rounds: u32, seconds: u32, folder: &Path) -> Result<(), String> {
    let origin = Origin::start(folder)?;
    println!("| one worker | two workers | ratio |\n|---|---|---|");
    let mut ratios = Vec::new();
    for _ in 0..rounds {
        let one = requests_per_second("waypost", 1, seconds, &origin, folder)?;
        let two = requests_per_second(TWO_WORKERS, 2, seconds, &origin, folder)?;
        println!("| {one:.0} | {two:.0} | {:.2} |", two / one);
        ratios.push(two / one);
    }
    println!("\nmedian: {:.2}", median(&mut ratios));
    Ok(())
}

fn requests_per_second(
    name: &str,
    workers: usize,
    seconds: u32,
    origin: &Origin,
    folder: &Path,
) -> Result<f64, String> {
    let proxy = Proxy::start(name, origin.port, folder)?;
    let mut limits = Vec::new();
    for thread in proxy.threads("gateway-")? {
        limits.push(Limit::new(thread)?);
    }
    if limits.len() != workers {
        return Err(format!("{} workers instead of {workers}", limits.len()));
    }
    wrk::run(&proxy.url(), 1)?;
    let load = wrk::run(&proxy.url(), seconds)?;
    if load.failed > 0 {
        return Err(format!("{name}: {} requests failed", load.failed));
    }
    Ok(load.requests as f64 / f64::from(seconds))
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
