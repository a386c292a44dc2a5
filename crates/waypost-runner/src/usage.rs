//! The CPU time and memory of the running programs, with all processes of their groups.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

/// The CPU time and memory that a process group uses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Usage {
    /// In percent of one core, since the last sample. `None` in the first sample.
    pub(crate) cpu_percent: Option<f64>,
    pub(crate) memory_bytes: u64,
}

/// Takes samples, and keeps the last one to compute the use since then.
#[derive(Debug, Default)]
pub(crate) struct UsageSampler {
    last: HashMap<u32, (Duration, Instant)>,
}

/// The totals of a process group.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Total {
    cpu: Duration,
    memory_bytes: u64,
}

impl UsageSampler {
    /// The CPU time and memory of each of these process groups. Groups without processes are left out. On
    /// systems other than Linux, the result is empty.
    pub(crate) fn sample(&mut self, groups: &[u32]) -> HashMap<u32, Usage> {
        let now = Instant::now();
        let totals = totals(groups);
        let usage = |(&group, total): (&u32, &Total)| {
            let since = self.last.get(&group);
            let cpu_percent = since.and_then(|(before, at)| {
                let elapsed = now.saturating_duration_since(*at).as_secs_f64();
                let used = total.cpu.saturating_sub(*before).as_secs_f64();
                (elapsed > 0.0).then(|| used / elapsed * 100.0)
            });
            let usage = Usage {
                cpu_percent,
                memory_bytes: total.memory_bytes,
            };
            (group, usage)
        };
        let sample = totals.iter().map(usage).collect();
        self.last = totals
            .into_iter()
            .map(|(group, total)| (group, (total.cpu, now)))
            .collect();
        sample
    }
}

#[cfg(target_os = "linux")]
fn totals(groups: &[u32]) -> HashMap<u32, Total> {
    let mut totals: HashMap<u32, Total> = HashMap::new();
    if groups.is_empty() {
        return totals;
    }
    let ticks = rustix::param::clock_ticks_per_second();
    let page = rustix::param::page_size() as u64;
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let is_process = |name: &std::ffi::OsStr| name.as_encoded_bytes()[0].is_ascii_digit();
        if !is_process(&process.file_name()) {
            continue;
        }
        // A process may end in the meantime.
        let Ok(stat) = std::fs::read_to_string(process.path().join("stat")) else {
            continue;
        };
        let Some((group, ticks_used, pages)) = parse_stat(&stat) else {
            continue;
        };
        if groups.contains(&group) {
            let total = totals.entry(group).or_default();
            total.cpu += Duration::from_secs_f64(ticks_used as f64 / ticks as f64);
            total.memory_bytes += pages * page;
        }
    }
    totals
}

#[cfg(not(target_os = "linux"))]
fn totals(_groups: &[u32]) -> HashMap<u32, Total> {
    HashMap::new()
}

/// The process group, the CPU time in ticks and the resident pages of a process (proc(5), `stat`).
#[cfg(target_os = "linux")]
fn parse_stat(stat: &str) -> Option<(u32, u64, u64)> {
    // The name, which is in parentheses, may contain anything.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    let group = fields.nth(2)?.parse().ok()?;
    // Fields 14 and 15 of the whole line: the time in user and in kernel mode.
    let user: u64 = fields.nth(8)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    // Field 24.
    let pages = fields.nth(8)?.parse().ok()?;
    Some((group, user + system, pages))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_stat_are_found_after_any_process_name() {
        let stat = "42 (a) b) S 1 40 40 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 1 0 100 999 256 18446";
        assert_eq!(parse_stat(stat), Some((40, 200, 256)));
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn this_process_uses_memory_and_cpu() {
        let group = rustix::process::getpgrp()
            .as_raw_nonzero()
            .get()
            .unsigned_abs();
        let mut sampler = UsageSampler::default();
        let first = sampler.sample(&[group])[&group];
        assert_eq!(first.cpu_percent, None);
        assert!(first.memory_bytes > 1024 * 1024);
        let second = sampler.sample(&[group])[&group];
        assert!(second.cpu_percent.is_some());
    }
}
