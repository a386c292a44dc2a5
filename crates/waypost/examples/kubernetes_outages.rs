//! An API server lets its clients down in each way there is, under a thousand look-ups a second:
//! what they notice. Makes the table in `docs/kubernetes-outages.md`.
//!
//! `cargo run --release -p waypost --features kubernetes --example kubernetes_outages [SECONDS]`

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;
use waypost_fake_kubernetes::ApiServer;

#[path = "../tests/it/kubernetes/outages/steady.rs"]
#[allow(dead_code, unreachable_pub, clippy::unwrap_used)] // the tests use more of it
mod steady;

use steady::{Outage, Steady, put};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let seconds = std::env::args()
        .nth(1)
        .map_or(Ok(30), |text| text.parse())?;
    let lasting = Duration::from_secs(seconds);
    println!(
        "| what happened for {seconds} s | look-ups | failed | stale after | age at the end | recovered in |"
    );
    println!("|---|---|---|---|---|---|");
    for (name, outage) in [
        ("killed", Outage::Killed),
        ("terminated", Outage::Terminated),
        ("frozen, connections open", Outage::Frozen),
        ("etcd frozen", Outage::EtcdFrozen),
        ("503", Outage::Failing),
    ] {
        let steady = Steady::begin(ApiServer::builder()).await;
        let seen = steady.suffer(outage, lasting).await;
        let (asked, failed) = steady.end();
        let stale = seen
            .stale_after
            .map_or("-".to_owned(), |it| format!("{it:.1?}"));
        println!(
            "| {name} | {asked} | {failed} | {stale} | {:.1?} | {:.2?} |",
            seen.age, seen.recovered_in
        );
    }
    restored().await
}

/// Etcd goes back to a backup, so that all watches are silent.
async fn restored() -> Result<(), Box<dyn std::error::Error>> {
    let mut times = BTreeSet::new();
    let (mut asked, mut failed) = (0, 0);
    for _ in 0..5 {
        let steady = Steady::begin(ApiServer::builder()).await;
        let backup = steady.server.backup();
        put(&steady.server, "10.0.0.2");
        put(&steady.server, "10.0.0.3");
        steady.until_only("10.0.0.3").await;
        steady.server.restore(&backup).await?;
        let restored = Instant::now();
        steady.until_only("10.0.0.1").await;
        times.insert(restored.elapsed());
        let (more_asked, more_failed) = steady.end();
        asked += more_asked;
        failed += more_failed;
    }
    let longest = times.last().copied().unwrap_or_default();
    println!(
        "| etcd restored to an earlier revision, 5 times | {asked} | {failed} | - | - | at most {longest:.1?} |"
    );
    Ok(())
}
