//! Measures how outages of the API server affect a client that makes 1,000 look-ups per second. Prints the table in `docs/kubernetes-outages.md`.
//!
//! `cargo run --release --manifest-path bench/Cargo.toml --bin kubernetes_outages [SECONDS]`

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;
use waypost_fake_kubernetes::ApiServer;

#[path = "../../../../crates/waypost/tests/it/kubernetes/outages/load.rs"]
#[allow(dead_code, unreachable_pub)] // the tests use more of it
mod load;

use load::{Load, Outage, put_web};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let seconds = std::env::args()
        .nth(1)
        .map_or(Ok(30), |text| text.parse())?;
    let duration = Duration::from_secs(seconds);
    println!(
        "| outage of {seconds} s | look-ups | failed | stale after | age at the end | recovered in |"
    );
    println!("|---|---|---|---|---|---|");
    for (name, outage) in [
        ("killed", Outage::Killed),
        ("terminated", Outage::Terminated),
        ("frozen, connections open", Outage::Frozen),
        ("etcd frozen", Outage::EtcdFrozen),
        ("503", Outage::Failing),
    ] {
        let load = Load::start(ApiServer::builder()).await;
        let effect = load.run_outage(outage, duration, duration).await;
        let (lookups, failures) = load.stop();
        let stale = effect
            .stale_after
            .map_or("-".to_owned(), |it| format!("{it:.1?}"));
        println!(
            "| {name} | {lookups} | {failures} | {stale} | {:.1?} | {:.2?} |",
            effect.age, effect.recovered_after
        );
    }
    restore_etcd().await
}

/// Restores etcd from a backup, after which all watches are silent.
async fn restore_etcd() -> Result<(), Box<dyn std::error::Error>> {
    let mut times = BTreeSet::new();
    let (mut lookups, mut failures) = (0, 0);
    for _ in 0..5 {
        let load = Load::start(ApiServer::builder()).await;
        let backup = load.server.backup();
        put_web(&load.server, "10.0.0.2");
        put_web(&load.server, "10.0.0.3");
        load.until_only("10.0.0.3").await;
        load.server.restore(&backup).await?;
        let restored = Instant::now();
        load.until_only("10.0.0.1").await;
        times.insert(restored.elapsed());
        let (more_lookups, more_failures) = load.stop();
        lookups += more_lookups;
        failures += more_failures;
    }
    let longest = times.last().copied().unwrap_or_default();
    println!(
        "| etcd restored to an earlier revision, 5 times | {lookups} | {failures} | - | - | at most {longest:.1?} |"
    );
    Ok(())
}
