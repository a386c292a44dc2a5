//! A Consul that is killed under load and comes back without its data.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, sleep};
use waypost::provider::Provider;
use waypost::provider::consul::ConsulProvider;
use waypost::{Registrar, ServiceDiscoveryClient, ServiceRegistration};
use waypost_testkit::Consul;

use super::{until, web};

/// `consul_outage` in `bench/` does the same for a minute, and prints measurements.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_lookup_fails_while_consul_is_down_and_their_age_grows() {
    let mut consul = Consul::start().await;
    let provider: Arc<dyn Provider> = Arc::new(ConsulProvider::new(&consul.address()).unwrap());
    let registration = ServiceRegistration::new("web", 80).unwrap();
    let registrar = Registrar::start(Arc::clone(&provider), registration).unwrap();
    registrar.registered().await;
    let client = ServiceDiscoveryClient::new(provider);
    client.pick("web").await.unwrap();

    let lookups = tokio::spawn({
        let client = client.clone();
        async move {
            let mut interval = interval(Duration::from_millis(1));
            interval.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let mut count = 0_u32;
            loop {
                interval.tick().await;
                client.pick("web").await.unwrap();
                count += 1;
                if client.directory().status()[0].reconnects() > 0 && count.is_multiple_of(100) {
                    let found = client.directory().lookup(&web()).await.unwrap();
                    found.usable().unwrap();
                }
            }
        }
    });
    sleep(Duration::from_millis(200)).await;
    consul.kill().await;
    sleep(Duration::from_secs(6)).await;
    let found = client.directory().lookup(&web()).await.unwrap();
    assert!(found.freshness().age().unwrap() >= Duration::from_secs(5));
    consul.restart().await;
    let mut subscription = client.directory().subscribe(&web());
    until(&mut subscription, |found| !found.freshness().is_stale()).await;
    assert!(!lookups.is_finished(), "a look-up failed");
    lookups.abort();
    registrar.deregister().await.unwrap();
}
