//! The 99th percentile of the latency, compared with nginx's. The proxies are measured in turn, in short
//! rounds, and compared round by round, so that other load on the machine affects all alike.

use std::path::Path;

use crate::proxies::{Origin, Proxy};
use crate::scaling::median;
use crate::wrk;

const PROXIES: [&str; 3] = ["nginx", "waypost", "waypost without log"];

pub(crate) fn run(rounds: u32, seconds: u32, folder: &Path) -> Result<(), String> {
    let origin = Origin::start(folder)?;
    let mut proxies = Vec::new();
    for name in PROXIES {
        let proxy = Proxy::start(name, origin.port, folder)?;
        wrk::run(&proxy.url(), 1)?;
        proxies.push((proxy, Vec::new()));
    }
    for _ in 0..rounds {
        for (proxy, found) in &mut proxies {
            found.push(wrk::run(&proxy.url(), seconds)?.p99_millis()?);
        }
        // Each round begins with another proxy.
        proxies.rotate_left(1);
    }
    proxies.sort_by_key(|(proxy, _)| PROXIES.iter().position(|name| *name == proxy.name()));
    let (_, of_nginx) = proxies.first().ok_or("no proxies")?;
    let of_nginx = of_nginx.clone();
    println!(
        "| proxy | p99, median of {rounds} rounds | against nginx, median of the rounds |\n|---|---|---|"
    );
    for (proxy, found) in &proxies {
        let pairs = found.iter().zip(&of_nginx);
        let mut ratios: Vec<f64> = pairs.map(|(own, nginx)| own / nginx).collect();
        let (p99, ratio) = (median(&mut found.clone()), median(&mut ratios));
        println!("| {} | {p99:.2} ms | {ratio:.2} |", proxy.name());
    }
    Ok(())
}
