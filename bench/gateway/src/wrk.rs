//! Generates load with wrk, with one thread.

use std::process::Command;

/// The results of wrk.
pub(crate) struct Load {
    pub(crate) requests: u64,
    /// Requests without a response, or with one that is not 2xx or 3xx.
    pub(crate) failed: u64,
    pub(crate) median: String,
    pub(crate) p99: String,
}

impl Load {
    /// The median of the latency in milliseconds.
    pub(crate) fn median_millis(&self) -> Result<f64, String> {
        millis(&self.median)
    }

    /// The 99th percentile of the latency in milliseconds.
    pub(crate) fn p99_millis(&self) -> Result<f64, String> {
        millis(&self.p99)
    }
}

fn millis(text: &str) -> Result<f64, String> {
    let units = [("us", 0.001), ("ms", 1.0), ("s", 1000.0)];
    let found = units.iter().find_map(|(unit, millis)| {
        let number = text.strip_suffix(unit)?.parse::<f64>().ok()?;
        Some(number * millis)
    });
    found.ok_or_else(|| format!("wrk printed {text:?} for a latency"))
}

/// Sends requests over 32 connections for a number of seconds.
pub(crate) fn run(url: &str, seconds: u32) -> Result<Load, String> {
    run_over(32, url, seconds)
}

/// The same over a number of connections.
pub(crate) fn run_over(connections: u32, url: &str, seconds: u32) -> Result<Load, String> {
    let (connections, seconds) = (format!("-c{connections}"), format!("-d{seconds}s"));
    let output = Command::new("wrk")
        .args(["-t1", &connections, "--latency", &seconds, url])
        .output()
        .map_err(|error| format!("wrk: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let value = |label: &str| {
        let line = text
            .lines()
            .find(|line| line.trim_start().starts_with(label))?;
        Some(line.trim_start().strip_prefix(label)?.trim().to_owned())
    };
    let requests = text
        .lines()
        .find_map(|line| line.trim().split_once(" requests in "))
        .and_then(|(count, _)| count.parse().ok())
        .ok_or_else(|| format!("wrk printed no number of requests: {text}"))?;
    let sum = |line: Option<String>| -> u64 {
        let line = line.unwrap_or_default();
        let numbers = line.split(|c: char| !c.is_ascii_digit());
        numbers
            .filter_map(|number| number.parse::<u64>().ok())
            .sum()
    };
    Ok(Load {
        requests,
        failed: sum(value("Non-2xx or 3xx responses:")) + sum(value("Socket errors:")),
        median: value("50%").unwrap_or_default(),
        p99: value("99%").unwrap_or_default(),
    })
}
