//! The latency of each proxy, compared with nginx's: saturated by connections that send the next request as
//! soon as they have a response, or at a constant rate. The proxies are measured in turn, in short rounds,
//! and compared round by round, so that other load on the machine affects all alike.

use std::path::Path;
use std::time::Duration;

use rustix::thread::{CpuSet, sched_setaffinity};

use crate::paced;
use crate::proxies::{NAMES, Origin, Proxy};
use crate::scaling::median;
use crate::wrk;

/// What was measured of a proxy, in milliseconds, one value for each round.
#[derive(Clone, Default)]
struct Latencies {
    p50: Vec<f64>,
    p99: Vec<f64>,
}

/// `rate` is the number of requests per second; `None` for as many as the proxy can answer.
pub(crate) fn run(
    rounds: u32,
    seconds: u32,
    rate: Option<u32>,
    folder: &Path,
) -> Result<(), String> {
    if rate.is_some() {
        use_cores(|core| core != 0)?;
    }
    let origin = Origin::start(folder)?;
    let mut proxies = Vec::new();
    for name in NAMES {
        let proxy = Proxy::start(name, origin.port, folder)?;
        wrk::run(&proxy.url(), 1)?;
        proxies.push((proxy, Latencies::default()));
    }
    if rate.is_some() {
        // The programs that were started keep the other cores.
        use_cores(|core| core == 0)?;
    }
    for _ in 0..rounds {
        for (proxy, found) in &mut proxies {
            let (p50, p99) = measure(proxy, rate, seconds)?;
            found.p50.push(p50);
            found.p99.push(p99);
        }
        // Each round begins with another proxy.
        proxies.rotate_left(1);
    }
    proxies.sort_by_key(|(proxy, _)| NAMES.iter().position(|name| *name == proxy.name()));
    let (_, nginx) = proxies.first().ok_or("no proxies")?;
    let nginx = nginx.clone();
    println!("| proxy | p50 | p99 | p99 against nginx |\n|---|---|---|---|");
    for (proxy, found) in &mut proxies {
        let pairs = found.p99.iter().zip(&nginx.p99);
        let mut ratios: Vec<f64> = pairs.map(|(own, nginx)| own / nginx).collect();
        println!(
            "| {} | {:.2} ms | {:.2} ms | {:.2} |",
            proxy.name(),
            median(&mut found.p50),
            median(&mut found.p99),
            median(&mut ratios)
        );
    }
    Ok(())
}

/// The median and the 99th percentile in milliseconds.
fn measure(proxy: &Proxy, rate: Option<u32>, seconds: u32) -> Result<(f64, f64), String> {
    let Some(rate) = rate else {
        let load = wrk::run(&proxy.url(), seconds)?;
        return Ok((load.median_millis()?, load.p99_millis()?));
    };
    let latencies = paced::run(proxy, rate, seconds)?;
    let at = |percent| latencies.get(latencies.len() * percent / 100);
    let millis = |time: Option<&Duration>| time.map_or(0.0, |time| time.as_secs_f64() * 1000.0);
    Ok((millis(at(50)), millis(at(99))))
}

/// Restricts this thread, and the programs that it starts from now on, to some cores.
fn use_cores(is_used: impl Fn(usize) -> bool) -> Result<(), String> {
    let all = std::thread::available_parallelism().map_err(|error| error.to_string())?;
    let mut cores = CpuSet::new();
    for core in (0..all.get().max(2)).filter(|core| is_used(*core)) {
        cores.set(core);
    }
    sched_setaffinity(None, &cores).map_err(|error| format!("choosing cores: {error}"))
}
