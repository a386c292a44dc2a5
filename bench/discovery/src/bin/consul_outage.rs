//! Measures how an outage of a real Consul affects a client that makes 1,000 look-ups per second. Prints the table in `docs/outages.md`.
//!
//! `cargo run --release --manifest-path bench/Cargo.toml --bin consul_outage [SECONDS]`

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use waypost::provider::Provider;
use waypost::provider::consul::ConsulProvider;
use waypost::{Registrar, ServiceDiscoveryClient, ServiceRegistration};
use waypost_testkit::Consul;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let seconds = std::env::args()
        .nth(1)
        .map_or(Ok(60), |text| text.parse())?;
    let mut consul = Consul::start().await;
    let provider: Arc<dyn Provider> = Arc::new(ConsulProvider::new(&consul.address())?);
    let registration = ServiceRegistration::new("web", 80)?;
    let registrar = Registrar::start(Arc::clone(&provider), registration)?;
    registrar.registered().await;
    let client = ServiceDiscoveryClient::new(provider);
    client.pick("web").await?;

    let (stop, stopped) = tokio::sync::watch::channel(false);
    let lookups = tokio::spawn({
        let client = client.clone();
        async move {
            let mut each = interval(Duration::from_millis(1));
            each.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let (mut times, mut failed) = (Vec::new(), 0);
            while !*stopped.borrow() {
                each.tick().await;
                let start = Instant::now();
                failed += usize::from(client.pick("web").await.is_err());
                times.push(start.elapsed());
            }
            (times, failed)
        }
    });
    sleep(Duration::from_secs(1)).await;
    consul.kill().await;
    sleep(Duration::from_secs(seconds)).await;
    let web = "web".parse()?;
    let age = client.directory().lookup(&web).await?.freshness().age();
    let attempts = client.directory().status()[0].reconnects();
    consul.restart().await;
    let restarted = Instant::now();
    while client
        .directory()
        .lookup(&web)
        .await?
        .freshness()
        .is_stale()
    {
        sleep(Duration::from_millis(5)).await;
    }
    let fresh = restarted.elapsed();
    sleep(Duration::from_secs(15)).await;
    stop.send_replace(true);
    let (mut times, failed) = lookups.await?;
    times.sort();
    let at = |share: f64| times[(times.len() as f64 * share) as usize];
    println!("| look-ups | failed | p50 | p99 | max | age at the end | fresh after | attempts |");
    println!("|---|---|---|---|---|---|---|---|");
    println!(
        "| {} | {failed} | {:.1?} | {:.1?} | {:.1?} | {:.1?} | {fresh:.1?} | {attempts} |",
        times.len(),
        at(0.5),
        at(0.99),
        at(0.999_999),
        age.unwrap_or_default(),
    );
    registrar.deregister().await?;
    Ok(())
}
